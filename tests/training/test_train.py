import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sak import Student, config
from sak.bundles.build import build_committee, build_student, build_tasks
from sak.errors import UserError
from sak.evaluation import constants
from sak.evaluation.subject import open_subject
from sak.training import checkpoint, objectives, tracking, train
from sak.training.batches import TrainingBatches
from sak.training.stage import StageTraining
from sak.training.tracking import read_scalars


class Killed(Exception):
    """Stands for SIGKILL: nothing of ours handles it."""


def last_weights(run):
    return torch.load(checkpoint.newest(run.checkpoints), weights_only=True)["student"]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def kill_at(monkeypatch, stage, step):
    """Die in the middle of a step."""
    real = StageTraining._step

    def dying(self, batches, number):
        if (self.stage, number) == (stage, step):
            raise Killed
        return real(self, batches, number)

    monkeypatch.setattr(StageTraining, "_step", dying)


def test_from_nothing_to_results(tiny, pictures):
    run = train.train(config.load(tiny))
    names = {file.name for file in run.path.iterdir()}
    assert {"config.yaml", "checkpoints", "student", "metrics.json", "results.md", "events", "panels"} <= names
    assert config.differences(config.load(run.config_file), config.load(tiny)) == []
    metrics = json.loads(run.metrics.read_text())
    assert list(metrics) == ["semseg", "human_parts", "saliency", "normals", "edge"]
    assert {"miou", "max_f"} == set(metrics["saliency"])
    assert 0 <= metrics["normals"]["mean_error"] <= 180
    assert re.search(r"\| semseg +\| miou +\|", run.results.read_text())
    assert not list(run.path.rglob("*.partial"))

    student = Student.from_pretrained(run.student).eval()
    weights = {key: value for key, value in last_weights(run).items() if "aligners" not in key}
    assert equal(dict(student.state_dict()), weights)

    scalars = read_scalars(run.events)
    assert {
        "distill/loss/distill/dinov2/0",
        "multitask/loss/task/edge",
        "multitask/loss/total",
        "multitask/learning_rate",
        "multitask/images_per_second",
        "multitask/metrics/semseg/miou",
        "multitask/routing/edge/block3/dinov2",
        "multitask/routing_training/semseg/block0/stem",
    } <= scalars.keys()
    assert [scalar.step for scalar in scalars["multitask/metrics/semseg/miou"]] == [2, 4]
    assert [scalar.step for scalar in scalars["distill/loss/total"]] == [1, 2, 3]
    drawn = EventAccumulator(str(run.events / "multitask")).Reload().Tags()["images"]
    assert set(drawn) == {
        *(f"multitask/mean_weights/block{block}" for block in range(4)),
        *(f"multitask/predictions/{task}" for task in metrics),
    }
    for folder in (run.panels, run.routing):
        assert sorted(file.name for file in folder.iterdir()) == ["multitask-0000002.png", "multitask-0000004.png"]


@pytest.mark.parametrize(
    ("stage", "step"), [("distill", 2), ("multitask", 0), pytest.param("multitask", 3, marks=pytest.mark.slow)]
)
def test_killed_and_started_again_it_ends_where_it_would_have(tiny, monkeypatch, stage, step):
    often = ["stages.distill.checkpoint_every=1", "stages.multitask.checkpoint_every=2"]
    whole = train.train(config.load(tiny, [*often, "name=whole"]))
    settings = config.load(tiny, [*often, "name=killed"])
    with monkeypatch.context() as patch:
        kill_at(patch, stage, step)
        with pytest.raises(Killed):
            train.train(settings)
    resumed = train.train(settings)
    assert equal(last_weights(resumed), last_weights(whole))
    assert resumed.metrics.read_text() == whole.metrics.read_text()


def test_accumulation_does_not_change_the_step_of_the_distillation(tiny):
    # Batch statistics of the heads see micro-batches, so that only the first stage is the same function.
    arguments = ["stages.multitask.steps=0", "data.tasks=[semseg]"]
    plain = train.train(config.load(tiny, [*arguments, "name=plain"]))
    parts = train.train(config.load(tiny, [*arguments, "name=parts", "stages.distill.accumulate=2"]))
    for key, value in last_weights(plain).items():
        torch.testing.assert_close(last_weights(parts)[key], value, rtol=1e-3, atol=1e-5)


def test_without_teachers_there_is_only_the_second_stage(tiny, pictures):
    text = tiny.read_text()
    tiny.write_text(text[: text.index("teachers:")] + text[text.index("stages:") :])
    run = train.train(config.load(tiny, ["stages.distill.steps=0", "stages.multitask.steps=1"]))
    assert Student.from_pretrained(run.student).sources == ("stem",)


def test_teachers_stay_out_of_gradient_optimizer_and_checkpoint(tiny):
    settings = config.load(tiny)
    tasks, committee = build_tasks(settings.data), build_committee(settings)
    student = build_student(settings, tasks, committee.dims)
    before = {key: value.clone() for key, value in committee.state_dict().items()}
    experiment_batches = TrainingBatches(train.data.build(settings.data, "train", True), 2, 1, 0, 0, 0, 1)
    (batch,) = next(experiment_batches.steps(0, 1))
    total, terms = objectives.multitask(objectives.of_images(committee), tasks, "cos+l1", 1.0)(student, batch)
    total.backward()
    assert all(not p.requires_grad and p.grad is None for p in committee.parameters())
    for part in ("stem", "paths", "routers", "heads"):
        assert all(p.grad is not None for p in getattr(student, part).parameters()), part
    assert equal(before, dict(committee.state_dict()))
    assert len(terms) == 5 + 4
    ours = {f"{part}." for part in ("stem", "paths", "routers", "heads")}
    assert all(key.startswith(tuple(ours)) for key in last_weights(train.train(settings)))


def test_total_is_tasks_plus_alpha_times_distillation(tiny):
    settings = config.load(tiny)
    tasks, committee = build_tasks(settings.data), build_committee(settings)
    student = build_student(settings, tasks, committee.dims).eval()
    batches = TrainingBatches(train.data.build(settings.data, "train", True), 2, 1, 0, 0, 0, 1)
    (batch,) = next(batches.steps(0, 1))
    with torch.no_grad():
        total, terms = objectives.multitask(objectives.of_images(committee), tasks, "cos+l1", 0.3)(student, batch)
    weights = [0.3 if name.startswith("distill/") else 1.0 for name in terms]
    assert total.item() == pytest.approx(
        sum(w * t.item() for w, t in zip(weights, terms.values(), strict=True)), rel=1e-5
    )


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tiny, monkeypatch):
    from sak.tasks import Edge

    monkeypatch.setattr(Edge, "loss", lambda self, output, label: output.sum() * float("nan"))
    settings = config.load(tiny)
    with pytest.raises(FloatingPointError, match="task/edge is nan at step 1 of the stage multitask"):
        train.train(settings)
    assert checkpoint.newest(train.RunDirectory(settings).checkpoints).name == "distill-0000003.pt"


def test_a_figure_is_drawn_once_for_its_file_and_the_events(tiny, tmp_path, monkeypatch, pictures):
    run = SimpleNamespace(events=tmp_path / "events", panels=tmp_path / "panels")
    tracker = tracking.Tracker(
        config.load(tiny), run, {"distill": 3, "multitask": 4}, checkpoint.Progress("distill", 0)
    )
    figure = Figure()
    figure.subplots().plot([0, 1], [1, 0])
    drawn, real = [], FigureCanvasAgg.draw
    monkeypatch.setattr(FigureCanvasAgg, "draw", lambda self: drawn.append(1) or real(self))
    tracker.figure("predictions", {"one": figure}, run.panels, checkpoint.Progress("multitask", 2))
    tracker.close()
    assert drawn == [1]
    picture = np.asarray(Image.open(run.panels / "multitask-0000002.png"))
    (event,) = EventAccumulator(str(run.events / "multitask")).Reload().Images("multitask/predictions/one")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))[..., :3], picture)
    assert (picture.shape, picture.min(), picture.max()) == ((480, 640, 3), 0, 255)


def test_runs_side_by_side_share_the_constants(tiny, monkeypatch):
    short = ["stages.distill.steps=0", "stages.multitask.steps=1", "data.tasks=[semseg]"]
    one = train.train(config.load(tiny, [*short, "name=one"]))
    (file,) = (one.path.parent / ".constants").iterdir()
    assert file.read_text() == one.constants.read_text()

    def again(*arguments):
        raise AssertionError("computed again")

    monkeypatch.setattr(constants, "constant_predictions", again)
    other = train.train(config.load(tiny, [*short, "name=other", "seed=1"]))
    assert other.constants.read_text() == one.constants.read_text()
    assert "best constant" in other.results.read_text()


def test_a_finished_run_is_left_alone(tiny):
    run = train.train(config.load(tiny, ["stages.distill.steps=1", "stages.multitask.steps=1"]))
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*")}
    again = train.train(config.load(tiny, ["stages.distill.steps=1", "stages.multitask.steps=1", "data.workers=1"]))
    assert again.finished
    assert {file: file.stat().st_mtime_ns for file in run.path.rglob("*")} == before


@pytest.fixture
def evaluated(monkeypatch):
    """How many images each forward pass of an evaluation has."""
    real, sizes = Student.forward, []

    def forward(self, images, *arguments, **named):
        if not self.training:
            sizes.append(len(images))
        return real(self, images, *arguments, **named)

    monkeypatch.setattr(Student, "forward", forward)
    return sizes


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ([], [2, 1]),
        (["stages.multitask.accumulate=2"], [1, 1, 1]),  # a device has no room for more than a micro-batch
        (["evaluation.batch_size=1"], [1, 1, 1]),
        (["stages.multitask.accumulate=2", "evaluation.batch_size=3"], [3]),
    ],
)
def test_an_evaluation_takes_as_many_images_at_once_as_the_training(tiny, archive, evaluated, options, sizes):
    names = archive / "ImageSets" / "Context" / "val.txt"
    names.write_text("\n".join((names.read_text().split() * 2)[:3]))
    short = ["stages.distill.steps=0", "stages.multitask.steps=1", "data.tasks=[semseg]", f"data.root={archive}"]
    run = train.train(config.load(tiny, [*short, *options]))
    assert evaluated == sizes
    evaluated.clear()
    assert open_subject(str(run.path)).batch_size == max(sizes)


def test_evaluation_may_take_fewer_images_when_a_run_goes_on(tiny, monkeypatch, evaluated):
    """As after an evaluation that ran out of memory; and a run that began without the key goes on."""
    short = ["stages.distill.steps=0", "data.tasks=[semseg]", "stages.multitask.checkpoint_every=1"]
    with monkeypatch.context() as patch:
        kill_at(patch, "multitask", 3)
        with pytest.raises(Killed):
            train.train(config.load(tiny, short))
    run = train.RunDirectory(config.load(tiny, short))
    before = OmegaConf.to_container(OmegaConf.load(run.config_file))
    del before["evaluation"]
    OmegaConf.save(OmegaConf.create(before), run.config_file)
    evaluated.clear()
    assert train.train(config.load(tiny, [*short, "evaluation.batch_size=1"])).finished
    assert set(evaluated) == {1}


@pytest.mark.parametrize("value", ["0", "-3"])
def test_an_evaluation_has_a_positive_batch(tiny, value):
    with pytest.raises(UserError, match=f"evaluation.batch_size is {value}, but must be positive"):
        config.load(tiny, [f"evaluation.batch_size={value}"])
