"""Faulty images, workers that die, loaders that hang, and a disk that is full in the middle of a run."""

import json
import os
import resource
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from sak import cli, config
from sak.data.faulty_images import Skips
from sak.data.loading import load
from sak.data.reading import CorruptFile
from sak.errors import UserError
from sak.files import about
from sak.training import checkpoint, train
from sak.training.batches import TrainingBatches
from sak.training.run_directory import RunDirectory


class Numbers(Dataset):
    """Samples that say which index they are of."""

    def __init__(self, count, faulty=(), act=lambda index: None):
        self.count, self.faulty, self.act = count, faulty, act

    def __len__(self):
        return self.count

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __getitem__(self, index):
        self.act(index)
        if index in self.faulty:
            raise CorruptFile(f"{index}.jpg is\ncorrupt")
        return {"index": index}


def skips(folder, count, share, replaced=True, part="distill"):
    return Skips(folder / "run" / "skipped.txt", part, count, share, replaced)


def stream(tmp_path, faulty, share=0.5, count=12):
    ours = skips(tmp_path, count, share)
    return TrainingBatches(Numbers(count, faulty), 4, 1, 0, 0, 0, 1, skips=ours), ours


def indices(steps):
    return [micro["index"].tolist() for step in steps for micro in step]


# --- skipping -------------------------------------------------------------------------------------------------------


def test_the_next_image_that_is_not_faulty_stands_in(tmp_path):
    faulty = {3, 4, 11}
    batches, ours = stream(tmp_path, faulty)
    whole, _ = stream(tmp_path / "whole", ())
    expected = [[{3: 5, 4: 5, 11: 0}.get(i, i) for i in batch] for batch in indices(whole.steps(0, 6))]
    seen = indices(batches.steps(0, 6))
    assert seen == expected
    assert seen[4:] == indices(stream(tmp_path / "resumed", faulty)[0].steps(4, 6))
    assert ours.listed() == {index: f"{index}.jpg is corrupt" for index in faulty}
    assert ours.file.read_text().count("\n") == 3  # although two epochs met each of them


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_leaves_it_out(tmp_path, workers):
    ours = skips(tmp_path, 6, 0.5, replaced=False, part="val")
    batches = list(load(Numbers(6, {1, 4, 5}), [[0, 1], [2, 3], [4, 5]], workers, skips=ours))
    assert [batch and batch["index"].tolist() for batch in batches] == [[0], [2, 3], None]
    assert ours.sentence() == "3 of 6 images of `val` are faulty (`skipped.txt`): they are left out of all metrics."


@pytest.mark.parametrize(
    ("images", "share", "allowed"), [(1000, 0.001, 1), (3000, 0.001, 3), (999, 0.001, 0), (7, 1, 7)]
)
def test_no_more_than_allowed_are_skipped(tmp_path, images, share, allowed):
    ours = skips(tmp_path, images, share)
    ours.note(dict.fromkeys(range(allowed), "gone"))
    if allowed < images:
        with pytest.raises(UserError, match=rf"^{allowed + 1} of {images} images of distill.*more than the {allowed} "):
            ours.note({images - 1: "gone"})
    assert len(ours.listed()) == min(allowed + 1, images)


def test_where_all_are_faulty_it_does_not_look_at_all(tmp_path):
    looked = []
    dataset = Numbers(1000, range(1000), looked.append)
    with pytest.raises(UserError, match="6 of 1000 images"):
        list(load(dataset, [[0]], 0, skips=skips(tmp_path, 1000, 0.005)))
    assert looked == [0, 1, 2, 3, 4, 5]


def test_parts_share_the_list_and_one_is_looked_at_anew(tmp_path):
    ours, other = skips(tmp_path, 10, 0.5), skips(tmp_path, 10, 0.5, False, "val")
    ours.note({1: "gone"})
    other.note({1: "gone", 2: "gone"})
    other.forget()
    assert (ours.listed(), other.listed()) == ({1: "gone"}, {})


def test_without_being_told_it_stops(tmp_path):
    with pytest.raises(UserError, match=r"^2\.jpg is"):
        list(load(Numbers(4, {2}), [[0, 1], [2, 3]], 0))


def test_a_mistake_that_is_no_faulty_file_is_not_skipped(tmp_path):
    def act(index):
        raise UserError("the whole data set is another one")

    with pytest.raises(UserError, match=r"^the whole data set"):
        list(load(Numbers(4, (), act), [[0, 1]], 0, skips=skips(tmp_path, 4, 1.0)))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"garbage\n", 1),
        (b"val\t3\tgone\nval\tthree\tgone\n", 2),
        (b"val\t-1\tgone\n", 1),
        (b"val\t3\n", 1),
        (b"\xff\xfe\x00\x01", 1),
        (b"{}", 1),
        ("val\t\u0663\tgone".encode(), 1),  # a digit, but not one that is written here
    ],
)
def test_a_list_that_no_run_has_written_is_told_at_once(tmp_path, content, line):
    file = tmp_path / "run" / "skipped.txt"
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{file}, line {line}, is none that a run writes: delete the file"):
        skips(tmp_path, 9, 0.5)
    assert file.read_bytes() == content


def test_a_list_without_anything_is_one(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "skipped.txt").touch()
    assert skips(tmp_path, 9, 0.5).listed() == {}


# --- processes ------------------------------------------------------------------------------------------------------


def die(index):
    if index == 5:
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out


def hang(index):
    if index == 5:
        time.sleep(1000)


def test_a_worker_that_is_killed_is_one_line():
    with pytest.raises(
        UserError, match=r"a process that loads data died .*Killed.*memory ran out.*data\.workers"
    ) as error:
        list(load(Numbers(8, (), die), [[0, 1], [2, 3], [4, 5], [6, 7]], 2))
    assert "\n" not in str(error.value)


def test_a_loader_that_hangs_is_one_line_and_leaves_no_process():
    others = {process.pid for process in torch.multiprocessing.active_children()}
    with pytest.raises(UserError, match=r"no batch came .*timed out after 2 seconds.*data\.timeout"):
        list(load(Numbers(8, (), hang), [[0, 1], [2, 3], [4, 5], [6, 7]], 2, timeout=2))
    assert {process.pid for process in torch.multiprocessing.active_children()} <= others


# --- whole runs -----------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tiny, archive):
    """The tiny experiment on a copy of the archive, in its shortest form."""

    def load(*overrides):
        steps = ["stages.distill.steps=2", "stages.multitask.steps=2", "stages.multitask.evaluate_every=1"]
        return config.load(tiny, [f"data.root={archive}", *steps, *overrides])

    return load


def shrink(path):
    with Image.open(path) as image:
        smaller = image.resize((image.width - 1, image.height))
    smaller.save(path)


def one_of(archive, split):
    return (archive / "ImageSets" / "Context" / f"{split}.txt").read_text().split()[0]


@pytest.mark.slow  # four trainings; the parts are tested above
def test_a_run_skips_says_so_and_goes_on_exactly(own, archive, monkeypatch, pictures):
    os.truncate(archive / "JPEGImages" / f"{one_of(archive, 'train')}.jpg", 1500)
    shrink(archive / "sal_distill" / f"{one_of(archive, 'val')}.png")
    with pytest.raises(UserError, match=rf"{one_of(archive, 'train')}\.jpg is corrupt"):
        train.train(own())
    every = ["stages.distill.checkpoint_every=1", "stages.multitask.checkpoint_every=1"]
    with pytest.raises(UserError, match=r"1 of 2 images of distill are faulty, more than the 0"):
        train.train(own("data.on_error=skip"))
    # The same run goes on: what is done with faults is no part of the experiment.
    run = train.train(own("data.on_error=skip", "data.max_skipped=0.5", *every))
    rows = [line.split("\t") for line in run.skipped.read_text().splitlines()]
    assert {(part, index) for part, index, _ in rows} == {("distill", "0"), ("multitask", "0"), ("val", "0")}
    assert next(reason for part, _, reason in rows if part == "val").startswith(str(archive / "sal_distill"))
    results = run.results.read_text()
    assert "1 of 2 images of `val` are faulty (`skipped.txt`): they are left out of all metrics." in results
    assert "1 of 2 images of `multitask` are faulty (`skipped.txt`): the next image stood in for each." in results

    # Its metrics are those of the image that is left.
    (archive / "ImageSets" / "Context" / "val.txt").write_text("\n".join(names_of(archive, "val")[1:]))
    constants = json.loads(run.constants.read_text())
    alone = train.train(own("name=alone", "data.on_error=skip", "data.max_skipped=0.5"))
    assert json.loads(alone.constants.read_text()) == constants
    assert alone.metrics.read_text() == run.metrics.read_text()


def names_of(archive, split):
    return (archive / "ImageSets" / "Context" / f"{split}.txt").read_text().split()


def remove(path):
    path.unlink()


def channels(path):
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(path)


@pytest.mark.parametrize(
    ("damage", "folder", "message"),
    [
        (remove, "sal_distill", "does not exist"),
        (shrink, "sal_distill", "pixels"),
        (channels, "sal_distill", "3 channels"),
    ],
)
def test_a_label_that_changes_after_the_files_were_listed_is_named(own, archive, damage, folder, message):
    dataset = train.data.build(own().data, "train")
    file = archive / folder / f"{dataset.names[0]}.png"
    damage(file)
    with pytest.raises(UserError, match=rf"{file.name}.*{message}"):
        list(load(dataset, [[0]], 0))
    ours = Skips(archive / "skipped.txt", "multitask", 2, 0.5, True)
    (batch,) = load(dataset, [[0]], 0, skips=ours)
    assert batch["name"] == [dataset.names[1]]


def test_a_disk_that_is_full_ends_the_run_in_one_line_and_loses_nothing(own, tiny, archive, monkeypatch, capsys):
    """The second checkpoint meets a limit on the size of files; with room again, the run ends as one without it."""
    every = ["stages.distill.checkpoint_every=1", "stages.multitask.checkpoint_every=1"]
    whole = train.train(own("name=whole", *every))
    save = checkpoint.save

    def without_room(directory, progress, *rest):
        if progress.step == 1:
            return save(directory, progress, *rest)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
        try:
            return save(directory, progress, *rest)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    settings = own("name=full", *every)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", without_room)
        with pytest.raises(SystemExit) as stop:
            cli.run(lambda _: train.train(settings))
    (line,) = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "error" in line]
    assert (stop.value.code, "distill-0000002.pt cannot be saved" in line) == (2, True)
    run = RunDirectory(settings)
    assert [file.name for file in run.checkpoints.iterdir()] == ["distill-0000001.pt"]
    assert train.train(settings).metrics.read_text() == whole.metrics.read_text()


def test_any_other_write_to_a_full_disk_is_one_line_too(capsys):
    def main(_):
        with about("runs/events"), open("/dev/full", "w") as file:
            file.write("events")

    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert stop.value.code == 2
    said = "runs/events cannot be used (No space left on device): make room on its disk; the same command goes on from"
    assert capsys.readouterr().err == f"error: {said} there\n"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "stages.multitask.keep_best=semseg.mou",
            r"keep_best is 'semseg\.mou', but must be one of semseg\.miou, human",
        ),
        ("data.on_error=ignore", "data.on_error is 'ignore', but must be stop or skip"),
        ("data.max_skipped=2", "data.max_skipped is 2.0, but must be a share"),
        ("data.normals_tolerance=2", "data.normals_tolerance is 2.0, but must be between 0 and 1, or null"),
        ("data.normals_tolerance=0", "data.normals_tolerance is 0.0, but must be between 0 and 1"),
        ("data.timeout=0", "data.timeout is 0, but must be positive"),
        ("stages.distill.keep_last=0", "stages.distill.keep_last is 0, but must be positive"),
    ],
)
def test_wrong_values_are_one_line(own, value, message):
    with pytest.raises(UserError, match=message):
        train.train(own(value))
