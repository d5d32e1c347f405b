"""Training from stored features is training on the same views with the teachers at hand."""

import json
import multiprocessing
import os
import runpy
from pathlib import Path

import pytest
import torch

from sak import config
from sak.bundles.build import build_committee, build_labelled, build_training_set
from sak.distillation.cached_features import CachedFeatures, Views, build_caches
from sak.errors import UserError
from sak.preflight.fill_cache import fill
from sak.training import checkpoint, train
from sak.training.batches import TrainingBatches
from sak.training.stage import StageTraining
from teachers import Committee, Teacher
from teachers.cache import EMPTY, FILLED, WRITTEN, TeacherCache, allocate

ROOT = Path(__file__).parents[2]
ONE_STAGE = ["stages.multitask.steps=0", "stages.distill.steps=5", "stages.distill.checkpoint_every=1"]
BOTH_STAGES = [
    "cache.stages=[distill,multitask]",
    "stages.distill.checkpoint_every=1",
    "stages.multitask.checkpoint_every=1",
    "stages.multitask.evaluate_every=null",
    "data.tasks=[semseg]",
]


class Killed(Exception):
    """Stands for SIGKILL: nothing of ours handles it."""


@pytest.fixture
def cached(tiny, tmp_path):
    """Makes configs that keep two views of each image."""

    def load(*overrides, cache="cache"):
        return config.load(tiny, ["cache.views=2", f"cache.path={tmp_path / cache}", *overrides])

    return load


@pytest.fixture
def losses(monkeypatch):
    """The totals of all steps, in their order."""
    real, totals = StageTraining._step, []

    def noting(self, *arguments):
        terms = real(self, *arguments)
        totals.append(float(terms["total"]))
        return terms

    monkeypatch.setattr(StageTraining, "_step", noting)
    return totals


@pytest.fixture
def asked(monkeypatch):
    """How many images each call of a teacher had."""
    real, calls = Teacher.forward, []

    def counting(self, images):
        calls.append(len(images))
        return real(self, images)

    monkeypatch.setattr(Teacher, "forward", counting)
    return calls


def weights(run):
    return torch.load(checkpoint.newest(run.checkpoints), weights_only=True)["student"]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def distill_parts(settings):
    committee = build_committee(settings)
    images = build_training_set(settings, "distill", lambda: build_labelled(settings))
    return committee, images, build_caches(settings, "distill", images.image_files, committee)


class Numbers(torch.utils.data.Dataset):
    def set_epoch(self, epoch):
        self.epoch = epoch

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"drawn": 100 * self.epoch + index}


def test_views_come_round_again_while_the_order_does_not():
    batches = TrainingBatches(Views(Numbers(), 3, {}), 4, 1, 0, 0, 0, 1)
    drawn = [batch["drawn"].tolist() for (batch,) in batches.steps(0, 12)]
    epochs = [sorted(drawn[2 * epoch] + drawn[2 * epoch + 1]) for epoch in range(6)]
    assert epochs == [[100 * (epoch % 3) + index for index in range(8)] for epoch in range(6)]
    assert drawn[0:2] != drawn[6:8]


def test_the_losses_are_those_without_a_cache_on_the_same_views(cached, losses, asked):
    train.train(cached(*ONE_STAGE, "cache.path=null", "name=plain"))
    assert len(asked) == 5
    train.train(cached(*ONE_STAGE, "name=filling"))
    assert len(asked) == 5 + 2  # one step is one epoch here: the third sees the first's view
    first = train.RunDirectory(cached(*ONE_STAGE, "name=filling"))
    again = train.train(cached(*ONE_STAGE, "name=again"))
    assert len(asked) == 5 + 2
    plain, filling, from_cache = losses[:5], losses[5:10], losses[10:]
    assert filling == pytest.approx(plain, rel=1e-4)
    assert from_cache == filling
    assert equal(weights(again), weights(first))


def test_int8_is_close_too(cached, losses):
    train.train(cached(*ONE_STAGE, "cache.path=null", "name=plain"))
    train.train(cached(*ONE_STAGE, "cache.dtype=int8", "name=int8"))
    assert losses[5:] == pytest.approx(losses[:5], rel=5e-3)
    assert losses[5:] != losses[:5]


def test_killed_in_either_stage_and_started_again_it_ends_where_it_would_have(cached, monkeypatch):
    whole = train.train(cached(*BOTH_STAGES, "name=whole", cache="one"))
    settings = cached(*BOTH_STAGES, "name=killed", cache="two")
    real = StageTraining._step
    for kill in (("distill", 1), ("multitask", 1)):

        def dying(self, batches, step, kill=kill):
            terms = real(self, batches, step)  # its features are stored, its checkpoint is not
            if (self.stage, step) == kill:
                raise Killed
            return terms

        with monkeypatch.context() as patch:
            patch.setattr(StageTraining, "_step", dying)
            with pytest.raises(Killed):
                train.train(settings)
    resumed = train.train(settings)
    assert equal(weights(resumed), weights(whole))
    assert json.loads(resumed.metrics.read_text()) == json.loads(whole.metrics.read_text())


@pytest.mark.parametrize(
    ("target", "calls", "left", "asks"),
    [
        ("write", 1, [WRITTEN, EMPTY], [2]),  # half a batch is stored: its images are computed together again
        ("_commit", 0, [WRITTEN, WRITTEN], []),
        ("_commit", 1, [FILLED, WRITTEN], []),
    ],
)
def test_a_batch_that_was_stored_in_part_is_computed_as_before(
    cached, monkeypatch, asked, target, calls, left, asks
):  # fmt: skip
    settings = cached(*ONE_STAGE, cache="two")
    with monkeypatch.context() as patch:
        if target == "write":
            real = TeacherCache.write

            def dying(self, view, indices, content):
                patch.setattr(TeacherCache, "_commit", lambda *_: None)
                real(self, view, indices[:calls], content[:calls])
                raise Killed

        else:
            real = TeacherCache._commit

            def dying(self, states, indices):
                real(self, states, indices[:calls])
                raise Killed

        patch.setattr(TeacherCache, target, dying)
        with pytest.raises(Killed):
            train.train(settings)
    _, _, caches = distill_parts(settings)
    states = [caches["dinov2"].read(0, index)[0] for index in range(2)]
    assert sorted(states) == sorted(left)
    asked.clear()
    resumed = train.train(config_with_steps(settings, 1))
    assert asked == asks
    assert caches["dinov2"].filled(0, range(2)).all()
    whole = train.train(config_with_steps(cached(*ONE_STAGE, "name=whole", cache="one"), 1))
    assert equal(weights(resumed), weights(whole))


def config_with_steps(settings, steps):
    settings = settings.copy()
    settings.name += "-short"
    settings.stages.distill.steps = steps
    return settings


def test_a_corrupt_record_is_computed_again_and_said_once(cached, losses, asked, capsys):
    train.train(cached(*ONE_STAGE, "name=first"))
    _, _, caches = distill_parts(cached(*ONE_STAGE))
    for view in range(2):
        path = caches["dinov2"].directory / f"view-{view:03d}" / "records-00000.npy"
        data = bytearray(path.read_bytes())
        data[-5] ^= 64
        path.write_bytes(data)
    asked.clear()
    with pytest.warns(UserWarning, match="corrupt record") as warned:
        train.train(cached(*ONE_STAGE, "name=second"))
    assert len([warning for warning in warned if "corrupt record" in str(warning.message)]) == 1
    assert asked == [1, 1]
    assert "dinov2 2; 2 records were corrupt and replaced" in capsys.readouterr().out
    assert losses[5:] == pytest.approx(losses[:5], rel=1e-5)


OTHER = (
    "teachers.other={family: dinov2, model: vit_small_patch14_dinov2, weights: random, levels: [1, 3], "
    "options: {img_size: 96, patch_size: 16, embed_dim: 24, depth: 4, num_heads: 2}}"
)


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("seed=1", {"dinov2", "other"}),
        ("data.image_size=[112,112]", {"dinov2", "other"}),
        ("stages.distill.crop_scale=[0.5,1.0]", {"dinov2", "other"}),
        ("precision=bf16", {"dinov2", "other"}),
        ("cache.dtype=int8", {"dinov2", "other"}),
        ("teachers.other.input_size=64", {"other"}),
        ("teachers.other.input_stats=own", set()),
        ("cache.views=7", set()),
        ("stages.distill.batch_size=1", set()),
    ],
)
def test_features_of_other_settings_are_elsewhere(cached, override, changed):
    def directories(*overrides):
        _, _, caches = distill_parts(cached(OTHER, *overrides))
        return {name: cache.directory for name, cache in caches.items()}

    before, after = directories(), directories(override)
    assert {name for name in before if before[name] != after[name]} == changed


def test_weights_that_change_leave_the_other_teachers_features(cached):
    settings = cached(OTHER)
    committee, images, before = distill_parts(settings)
    with torch.no_grad():
        next(committee["other"].backbone.parameters()).view(-1)[0] += 1e-3
    after = build_caches(settings, "distill", images.image_files, committee)
    assert before["other"].directory != after["other"].directory
    assert before["dinov2"].directory == after["dinov2"].directory


def test_filled_ahead_no_teacher_is_asked_in_either_stage(cached, asked):
    assert fill(cached(*BOTH_STAGES)) == "distill: features computed: dinov2 4\nmultitask: features computed: dinov2 4"
    asked.clear()
    train.train(cached(*BOTH_STAGES))
    assert asked == []


@pytest.mark.parametrize(("steps", "computed"), [(1, 1), (2, 2), (3, 3), (4, 4), (7, 4)])  # of 2 images, 2 views
def test_only_what_the_steps_see_is_filled(cached, asked, steps, computed):
    settings = cached("stages.multitask.steps=0", "stages.distill.batch_size=1", f"stages.distill.steps={steps}")
    assert fill(settings) == f"distill: features computed: dinov2 {computed}"
    asked.clear()
    train.train(settings)
    assert asked == []


def test_filled_ahead_an_untrained_teacher_that_is_added_is_not_asked(cached, asked):
    old = train.train(cached(*ONE_STAGE, "name=old", "cache.path=null"))
    added = ["name=added", "student.add_teacher=other", f"from={old.path}", "teachers.other.levels=[0,1,2,3]"]
    settings = cached(OTHER, *ONE_STAGE, *added)
    assert fill(settings) == "distill: features computed: other 4"
    asked.clear()
    train.train(settings)
    assert asked == []


def test_a_filling_that_is_stopped_goes_on(cached, monkeypatch):
    settings = cached("stages.distill.batch_size=1", "stages.distill.steps=4")
    real, calls = Committee.__getitem__, []

    def stopping(self, name):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Committee, "__getitem__", stopping)
        with pytest.raises(KeyboardInterrupt, match="what was stored is kept"):
            fill(settings)
    assert fill(settings) == "distill: features computed: dinov2 2"
    assert fill(settings) == "distill: features computed: dinov2 0"


def test_a_filling_leaves_faulty_images_out_and_lists_them(cached, archive, asked):
    faulty = (archive / "ImageSets" / "Context" / "train.txt").read_text().split()[0]
    os.truncate(archive / "JPEGImages" / f"{faulty}.jpg", 1500)
    root = f"data.root={archive}"
    with pytest.raises(UserError, match=rf"{faulty}\.jpg is corrupt"):
        fill(cached(root))
    with pytest.raises(UserError, match="1 of 2 images of distill are faulty, more than the 0"):
        fill(cached(root, "data.on_error=skip"))
    settings = cached(root, "data.on_error=skip", "data.max_skipped=0.5")
    for _ in range(2):  # again, it finds nothing new, and lists the image no second time
        assert fill(settings).startswith("distill: features computed: dinov2")
        listed = (Path(settings.cache.path) / "distill" / "skipped.txt").read_text().splitlines()
        assert [row.split("\t")[:2] for row in listed] == [["distill", "0"]]
    _, _, caches = distill_parts(settings)
    for view in range(2):
        assert caches["dinov2"].filled(view, range(2)).tolist() == [False, True]
    asked.clear()
    train.train(cached(root, "data.on_error=skip", "data.max_skipped=0.5", *ONE_STAGE))
    assert asked == []


def test_verifying_finds_what_is_corrupt(cached):
    settings = cached()
    fill(settings)
    _, _, caches = distill_parts(settings)
    path = caches["dinov2"].directory / "view-001" / "records-00000.npy"
    path.write_bytes(path.read_bytes()[:-3] + b"abc")
    assert fill(settings) == "distill: features computed: dinov2 0"
    with pytest.warns(UserWarning, match="corrupt"):
        done = fill(settings, verify=True)
    assert done == "distill: features computed: dinov2 1; 1 records were corrupt and replaced"
    assert fill(settings, verify=True) == "distill: features computed: dinov2 0"


def test_two_processes_fill_one_cache(cached):
    settings = cached("cache.views=20", "stages.distill.batch_size=1", "stages.distill.steps=40")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fill, args=(settings, (part, 2))) for part in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    committee, images, caches = distill_parts(settings)
    views = Views(images, 20, caches)
    for view in range(20):
        views.set_epoch(view)
        assert caches["dinov2"].filled(view, range(2)).all()
        sample = views[1]
        assert sample["cache/dinov2/state"] == FILLED
        features = caches["dinov2"].decode(sample["cache/dinov2"][None])
        for ours, theirs in zip(features, committee["dinov2"](sample["image"][None]), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_the_command_says_the_size_first_and_what_it_did_last(tiny, tmp_path, capsys):
    main = runpy.run_path(str(ROOT / "tools" / "cache_teachers.py"))["main"]
    arguments = [str(tiny), f"cache.path={tmp_path / 'cache'}", "cache.views=3"]
    main([*arguments, "--part", "2/2"])
    lines = capsys.readouterr().out.splitlines()
    sizes = [line for line in lines if "2 images x 3 views x" in line or line.startswith("all features: ")]
    assert len(sizes) == 2
    assert lines[-1] == "distill: features computed: dinov2 6"
    main([arguments[0], "--verify", *arguments[1:]])
    assert capsys.readouterr().out.splitlines()[-1] == "distill: features computed: dinov2 0"
    for part, sentence in (("3/2", "must be one of 1/2 to 2/2"), ("half", "must be two numbers as in 1/4")):
        with pytest.raises(UserError, match=sentence):
            main([*arguments, "--part", part])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["cache.path=somewhere"], "cache.views is None, but must be a number, as cache.path is set"),
        (["cache.views=0"], "cache.views is 0, but must be positive"),
        (["cache.dtype=int4"], "cache.dtype is 'int4', but must be float16 or int8"),
        (["cache.stages=[distil]"], "cache.stages is .*but must be of distill, multitask"),
    ],
)
def test_settings_that_make_no_sense(tiny, overrides, sentence):
    with pytest.raises(UserError, match=sentence):
        config.load(tiny, overrides)


def test_nothing_to_fill_is_said(tiny, cached):
    for settings in (config.load(tiny), cached("stages.distill.steps=0")):
        with pytest.raises(UserError, match=r"nothing to cache: set cache.path"):
            fill(settings)


def test_the_features_of_a_batch_come_from_disk_where_they_can(cached, asked):
    committee, images, caches = distill_parts(cached())
    allocate(list(caches.values()), lambda line: None)
    cached_features = CachedFeatures(committee, caches)
    views = Views(images, 2, caches)

    def batch():
        return torch.utils.data.default_collate([views[0], views[1]])

    first = cached_features(batch())["dinov2"]
    second = cached_features(batch())["dinov2"]
    assert asked == [2]
    for one, two, computed in zip(first, second, committee["dinov2"](batch()["image"]), strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, computed, rtol=1e-3, atol=1e-4)
