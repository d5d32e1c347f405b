import os
import queue
import random
import signal
import threading
import time

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from sak.data.loading import Loading, load, watching_workers
from sak.errors import UserError
from sak.training.batches import TrainingBatches


class Numbers(Dataset):
    """Samples that say which index and epoch they are of."""

    def __init__(self, count, broken=()):
        self.count, self.broken, self.epoch = count, broken, 0

    def __len__(self):
        return self.count

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        if index in self.broken:
            raise UserError(f"{index}.jpg is truncated")
        return {"index": index, "epoch": self.epoch, "process": os.getpid()}


def stream(rank=0, world=1, accumulate=1, workers=0, count=11, batch_size=4):
    return TrainingBatches(Numbers(count), batch_size, accumulate, 0, workers, rank, world)


def flat(steps):
    return [index for step in steps for micro in step for index in micro]


def indices(steps):
    return [[micro["index"].tolist() for micro in step] for step in steps]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_that_starts_later_goes_on_the_same(workers):
    whole = list(stream(workers=workers).steps(0, 7))
    assert indices(stream(workers=workers).steps(3, 7)) == indices(whole[3:])
    assert [step[0]["epoch"].unique().tolist() for step in whole] == [[0], [0], [1], [1], [2], [2], [3]]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_live_through_all_epochs(workers):
    """And each sample is of its own epoch, whichever worker makes it and whatever another reader does meanwhile."""
    batches = stream(workers=workers, count=9, batch_size=4, accumulate=2)
    seen = []
    for step in batches.steps(1, 8):
        batches.dataset.set_epoch(99)
        seen += step
    assert [micro["epoch"].unique().item() for micro in seen] == [0, 0, *(e for e in (1, 2, 3) for _ in range(4))]
    assert len({micro["process"][0].item() for micro in seen}) == workers
    assert os.getpid() not in {micro["process"][0].item() for micro in seen}


def test_the_order_of_an_epoch_is_drawn_once(monkeypatch):
    drawn, real = [], np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: drawn.append(seed) or real(seed))
    expected = indices(stream(count=41).steps(3, 25))
    assert drawn == [[0, 0], [0, 1], [0, 2]]
    monkeypatch.undo()
    assert expected == [[stream(count=41).indices(step)[0]] for step in range(3, 25)]


@pytest.mark.parametrize("cached", [False, True])
def test_reading_ahead_goes_on_into_the_next_epoch_but_not_beside_a_cache(tmp_path, cached):
    """What a cache holds of an image changes when it is taken."""

    class Noting(Numbers):
        caches = {"dinov2": "its cache"} if cached else {}

        def __getitem__(self, index):
            (tmp_path / f"{self.epoch}-{index}").touch()
            return super().__getitem__(index)

    batches = TrainingBatches(Noting(8), 2, 1, 0, 2, 0, 1)
    newest = []
    for number, _ in enumerate(batches.steps(0, 12)):
        time.sleep(0.02)
        newest.append(max(int(file.name[0]) for file in tmp_path.iterdir()) - number // 4)
    assert max(newest) == (0 if cached else 1)


def test_a_loader_is_asked_again_and_again():
    with Loading(Numbers(9), 2) as loading:
        first, second = ([batch["index"].tolist() for batch in loading.batches(b)] for b in ([[1, 2]], [[3], [8, 0]]))
    assert (first, second) == ([[1, 2]], [[3], [8, 0]])


class Large(Numbers):
    """Samples that workers hand over by files, as they do images."""

    def __getitem__(self, index):
        return {"image": torch.full((3, 128, 128), float(index))}


def read_until_killed(draw):
    """As a run reads, in which a death is told wherever the main process happens to be."""
    others = torch.multiprocessing.active_children()

    def kill():
        ours = [child for child in torch.multiprocessing.active_children() if child not in others]
        os.kill(draw.choice(ours).pid, signal.SIGKILL)

    killer = threading.Timer(draw.uniform(0, 0.2), kill)
    try:
        with watching_workers():
            for number, batch in enumerate(load(Large(10**6), [[4 * n, 4 * n + 1] for n in range(5000)], 2)):
                assert batch["image"].sum() > -1
                if number == 0:
                    killer.start()
    finally:
        killer.join()


def test_workers_that_are_killed_at_any_moment_end_in_one_line(capfd):
    draw = random.Random(0)
    for _ in range(18):
        with pytest.raises(
            UserError, match=r"^a process that loads data died \(DataLoader worker.*: most likely"
        ) as error:
            read_until_killed(draw)
        assert "\n" not in str(error.value)
    assert "Traceback" not in capfd.readouterr().err


DIED = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


def over(error, cause=None, context=None):
    """An error that came from another, or was raised while another was handled."""
    error.__cause__, error.__context__ = cause, context
    return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DIED, r"died \(DataLoader worker \(pid 7\) is killed by signal: Killed\)"),
        (
            over(RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), queue.Empty()),
            r"died .*pid\(s\) 7, 8",
        ),
        (over(RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), DIED), "died .*exited"),
        (over(RuntimeError("an operation failed"), DIED), "died .*pid 7"),
        (over(ValueError("handled"), None, over(OSError("reset"), None, DIED)), "died .*pid 7"),
        (RuntimeError("DataLoader timed out after 5 seconds"), r"no batch came .*timed out after 5 seconds\)"),
    ],
)
def test_the_error_and_what_it_came_from_decide(error, message):
    with pytest.raises(UserError, match=message) as told, watching_workers():
        raise error
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), over(UserError("2.jpg is corrupt"), None, DIED)])
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as told, watching_workers():
        raise error
    assert told.value is error


def test_an_epoch_sees_no_image_twice_and_epochs_differ():
    first, second = (flat(indices(stream().steps(epoch * 2, epoch * 2 + 2))) for epoch in (0, 1))
    assert len(set(first)) == 8
    assert first != second


def test_processes_and_micro_batches_share_a_step():
    whole = stream().indices(1)[0]
    parts = [stream(rank, 2, 2).indices(1) for rank in range(2)]
    assert sorted(flat(parts)) == sorted(whole)
    assert [len(micro) for micro in parts[0]] == [1, 1]
    assert len(next(stream(0, 2, 2).steps(0, 1))) == 2


def test_the_global_random_state_is_untouched():
    before = torch.get_rng_state()
    list(stream(workers=1).steps(0, 2))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_sample_is_one_line(workers):
    others = {child.pid for child in torch.multiprocessing.active_children()}
    with pytest.raises(UserError, match=r"^2.jpg is truncated$"):
        list(load(Numbers(4, broken=[2]), [[0, 1], [2, 3]], workers))
    left = {child.pid for child in torch.multiprocessing.active_children()}
    assert left <= others  # the program would wait for it at its end


def test_batches_that_cannot_be_cut():
    with pytest.raises(UserError, match="batch_size 4 cannot be cut evenly into 3"):
        stream(accumulate=3)
    with pytest.raises(UserError, match="only 3 training images"):
        stream(count=3)
