import errno
import os
import re
import resource

import pytest
import torch

from sak.errors import UserError
from sak.training import checkpoint
from sak.training.checkpoint import Progress


def state(value=0.0, size=50_000):
    return {"student": {"weight": torch.full((size,), value)}, "optimizer": {"state": {}}, "scaler": {}}


def names(directory):
    return sorted(file.name for file in directory.iterdir())


@pytest.fixture
def three(tmp_path):
    """The newest three checkpoints of a run that has come to its second stage."""
    for value, progress in enumerate([Progress("distill", 9), Progress("multitask", 5), Progress("multitask", 10)]):
        checkpoint.save(tmp_path, progress, state(float(value)))
    return tmp_path


def test_what_is_read_is_what_was_written(three):
    path, read = checkpoint.resume(three)
    assert path.name == "multitask-0000010.pt"
    assert (read["stage"], read["step"]) == ("multitask", 10)
    assert torch.equal(read["student"]["weight"], state(2.0)["student"]["weight"])


def test_nothing_to_resume(tmp_path):
    assert checkpoint.resume(tmp_path / "none") is None
    assert checkpoint.newest(tmp_path) is None


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_ones_of_a_stage_are_kept(tmp_path, keep):
    checkpoint.save(tmp_path, Progress("distill", 4), state(), keep)
    steps = [2, 9_999_999, 10_000_000, 10_000_001]  # where names grow longer, too
    for step in steps:
        checkpoint.save(tmp_path, Progress("multitask", step), state(), keep)
    kept = [checkpoint.path_of(tmp_path, Progress("multitask", step)).name for step in steps[-keep:]]
    assert names(tmp_path) == sorted(["distill-0000004.pt", *kept])
    assert checkpoint.newest(tmp_path).name == "multitask-10000001.pt"


def truncate(path):
    os.truncate(path, path.stat().st_size * 2 // 3)


def empty(path):
    os.truncate(path, 0)


def garbage(path):
    path.write_bytes(os.urandom(5000))


def flip_a_bit_of_a_tensor(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    # The reason for checking: torch itself takes what it finds.
    assert torch.load(path, weights_only=True)["student"]["weight"].unique().numel() == 2


def other_content(path):
    torch.save({"epoch": 3, "model": {}}, path)


def no_dictionary(path):
    torch.save(torch.zeros(3), path)


def something_to_execute(path):
    torch.save({**state(), "stage": "multitask", "step": 10, "hook": print}, path)


def weights_that_are_not_finite(path):
    """As a version that did not look at gradients has written them."""
    torch.save({**state(float("nan")), "stage": "multitask", "step": 10}, path)


DAMAGES = [
    weights_that_are_not_finite,
    truncate,
    empty,
    garbage,
    flip_a_bit_of_a_tensor,
    other_content,
    no_dictionary,
    something_to_execute,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_corrupt_one_is_set_aside_for_the_one_before(three, damage):
    damage(three / "multitask-0000010.pt")
    expected = r"multitask-0000010\.pt is .*now multitask-0000010\.pt\.corrupt.*from multitask-0000005\.pt"
    with pytest.warns(UserWarning, match=expected):
        path, read = checkpoint.resume(three)
    assert (path.name, read["student"]["weight"][0]) == ("multitask-0000005.pt", 1.0)
    # It neither counts among those that are kept, nor is it met again.
    for step in (6, 7):
        checkpoint.save(three, Progress("multitask", step), state(3.0))
    ours = ["multitask-0000006.pt", "multitask-0000007.pt", "multitask-0000010.pt.corrupt"]
    assert names(three) == ["distill-0000009.pt", *ours]
    assert checkpoint.resume(three)[0].name == "multitask-0000007.pt"


def test_behind_two_corrupt_ones_is_that_of_the_first_stage(three):
    empty(three / "multitask-0000010.pt")
    garbage(three / "multitask-0000005.pt")
    with pytest.warns(UserWarning, match="is corrupt") as caught:
        path, read = checkpoint.resume(three)
    assert [re.search(r"checkpoint \S*/(\S+)", str(warning.message))[1] for warning in caught] == [
        "multitask-0000010.pt",
        "multitask-0000005.pt",
    ]
    assert (path.name, read["stage"]) == ("distill-0000009.pt", "distill")


def test_all_corrupt_is_one_line_and_nothing_is_moved(three):
    for file in three.iterdir():
        truncate(file)
    before = names(three)
    with pytest.raises(UserError, match=r"no checkpoint in .* \(3 are corrupt; .*multitask-0000010\.pt") as error:
        checkpoint.resume(three)
    assert "\n" not in str(error.value)
    assert names(three) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_ruined_weights_are_never_written(three, value):
    before = {file.name: file.read_bytes() for file in three.iterdir()}
    ruined = state()
    ruined["student"]["weight"][-1] = value
    ruined["student"]["steps"] = torch.tensor(7)  # which are whole numbers
    with pytest.raises(
        FloatingPointError, match=r"^weight of the student is not finite after step 15 of the stage mul"
    ):
        checkpoint.save(three, Progress("multitask", 15), ruined)
    assert {file.name: file.read_bytes() for file in three.iterdir()} == before


def test_one_of_several_processes_verifies(three, monkeypatch):
    flip_a_bit_of_a_tensor(three / "multitask-0000010.pt")
    with pytest.raises(checkpoint.CorruptCheckpoint, match=r"the checksum of .* is wrong"):
        checkpoint.load(three / "multitask-0000010.pt")
    assert checkpoint.resume(three, verify=False)[0].name == "multitask-0000010.pt"
    with pytest.warns(UserWarning, match="is corrupt"):
        assert checkpoint.resume(three)[0].name == "multitask-0000005.pt"
    garbage(three / "multitask-0000005.pt")  # what cannot be read at all is no checkpoint to anyone
    with pytest.warns(UserWarning, match="is corrupt"):
        assert checkpoint.resume(three, verify=False)[0].name == "distill-0000009.pt"


@pytest.mark.parametrize("share", [0.001, 0.5, 0.9999])
def test_a_write_that_fails_leaves_the_last_good_one(three, share):
    """The system refuses to let the file grow, at its start, in the middle and just before its end."""
    size = (three / "multitask-0000010.pt").stat().st_size
    before = {file.name: file.read_bytes() for file in three.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), hard))
    try:
        with pytest.raises(UserError, match=r"multitask-0000015\.pt cannot be saved: .* MB are free") as error:
            checkpoint.save(three, Progress("multitask", 15), state(4.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert {file.name: file.read_bytes() for file in three.iterdir()} == before


def test_a_disk_that_is_full_when_the_file_is_flushed(three, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def broken(_):  # which no room would mend
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = names(three)
    for flush, kind, message in (
        (full, UserError, "cannot be saved: No space left on device"),
        (broken, OSError, "Input/output error"),
    ):
        monkeypatch.setattr(os, "fsync", flush)
        with pytest.raises(kind, match=message):
            checkpoint.save(three, Progress("multitask", 15), state())
        assert names(three) == before
