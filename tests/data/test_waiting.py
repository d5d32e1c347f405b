from sak.data import waiting
from sak.data.waiting import Waiting


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


def test_share_of_the_time_that_the_source_took(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(waiting, "time", clock)

    def source():
        for item in range(4):
            clock.now += 1.0
            yield item

    batches = Waiting(source())
    items, shares = [], []
    for item in batches:
        items.append(item)
        clock.now += 3.0
        if item % 2:
            shares.append(batches.share())
    assert items == [0, 1, 2, 3]
    assert shares == [0.25, 0.25]
