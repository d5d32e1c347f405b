import pytest
import torch
from torch.utils.data import Dataset

from sak.data.loading import load
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
        return {"index": index, "epoch": self.epoch}


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
    others = torch.multiprocessing.active_children()
    with pytest.raises(UserError, match=r"^2.jpg is truncated$"):
        list(load(Numbers(4, broken=[2]), [[0, 1], [2, 3]], workers))
    assert torch.multiprocessing.active_children() == others  # the program would wait for it at its end


def test_batches_that_cannot_be_cut():
    with pytest.raises(UserError, match="batch_size 4 cannot be cut evenly into 3"):
        stream(accumulate=3)
    with pytest.raises(UserError, match="only 3 training images"):
        stream(count=3)
