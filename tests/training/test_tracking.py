"""What a run writes for TensorBoard: tags, steps, charts, what a resumed run drops, and runs of before."""

import itertools
import re
import shutil
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from torch.utils.tensorboard import SummaryWriter

from sak import config
from sak.evaluation.evaluate import Evaluation
from sak.research.ablation.cost import timing
from sak.research.routing.history import router_history
from sak.training.checkpoint import Progress
from sak.training.router_record import TRAINING, VALIDATION
from sak.training.run_directory import RunDirectory
from sak.training.tracking import Tracker, read_scalars

STEPS = {"distill": 5, "multitask": 4}
SOURCES = ("stem", "clip")


@pytest.fixture
def tracker(tiny, monkeypatch):
    """A tracker of the tiny run that goes on after so many steps; each starts a minute after the one before."""
    starts = itertools.count(1)

    def begin(*done, overrides=()):
        now = 1e9 + 60 * next(starts)
        monkeypatch.setattr(time, "time", lambda: now)
        settings = config.load(tiny, overrides)
        return Tracker(settings, RunDirectory(settings), STEPS, Progress(*done))

    return begin


def write(tracker, stage, steps, value):
    """A loss and the weights of one router after each of the steps."""
    for step in steps:
        done = Progress(stage, step)
        tracker.scalars({"loss/total": value, "learning_rate": value}, done)
        if stage == "multitask":
            tracker.weights(TRAINING, {"edge/block3/stem": value, "edge/block3/clip": 1 - value}, done)


def curve(events, tag):
    return {scalar.step: round(scalar.value, 3) for scalar in read_scalars(events)[tag]}


def test_what_a_killed_run_wrote_beyond_its_checkpoint_is_dropped_stage_by_stage(tracker):
    killed = tracker("distill", 0)
    write(killed, "distill", range(1, 6), 0.1)
    write(killed, "multitask", range(1, 5), 0.1)
    killed.close()
    events = killed.run.events

    resumed = tracker("multitask", 2)
    write(resumed, "multitask", [3], 0.2)
    resumed.close()
    assert curve(events, "distill/loss/total") == dict.fromkeys(range(1, 6), 0.1)
    assert curve(events, "multitask/loss/total") == {1: 0.1, 2: 0.1, 3: 0.2}
    assert curve(events, "multitask/routing_training/edge/block3/stem") == {1: 0.1, 2: 0.1, 3: 0.2}
    # What TensorBoard itself shows of a source.
    shown = EventAccumulator(str(events / "multitask" / "clip")).Reload()
    assert [event.step for event in shown.Scalars("multitask/routing_training/edge/block3")] == [1, 2, 3]

    again = tracker("distill", 4)  # the checkpoints of the second stage are gone
    write(again, "distill", [5], 0.3)
    write(again, "multitask", [1], 0.3)
    again.close()
    assert curve(events, "distill/loss/total") == {**dict.fromkeys(range(1, 5), 0.1), 5: 0.3}
    assert curve(events, "multitask/loss/total") == {1: 0.3}


def old_run(events):
    """As runs of before wrote it: at the top, steps over both stages."""
    with SummaryWriter(events) as writer:
        for step in range(1, 6):
            writer.add_scalar("distill/learning_rate", 0.5, step)
        for step in range(6, 10):
            writer.add_scalar("multitask/loss/total", 0.5, step)
            writer.add_scalar("multitask/learning_rate", 0.5, step)
            for source in SOURCES:
                writer.add_scalar(f"routing_training/edge/block3/{source}", 0.5, step)
        for tag in ("metrics/edge/ods_f", "routing/edge/block3/stem", "routing/edge/block3/clip"):
            writer.add_scalar(tag, 0.5, 7)


def test_a_run_of_before_is_read_as_one_of_today(tmp_path):
    old_run(tmp_path)
    assert set(read_scalars(tmp_path)) == {
        "distill/learning_rate",
        *("multitask/loss/total", "multitask/learning_rate", "multitask/metrics/edge/ods_f"),
        *(f"multitask/{group}/edge/block3/{source}" for group in (VALIDATION, TRAINING) for source in SOURCES),
    }
    assert list(curve(tmp_path, "distill/learning_rate")) == [1, 2, 3, 4, 5]
    assert list(curve(tmp_path, "multitask/learning_rate")) == [1, 2, 3, 4]
    assert router_history(read_scalars(tmp_path), ["edge"], SOURCES, [3], VALIDATION) == {
        "edge": {3: {source: [(2, 0.5)] for source in SOURCES}}
    }


def test_a_run_of_before_without_a_first_stage_has_its_steps(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("metrics/edge/ods_f", 0.5, 4)
    assert curve(tmp_path, "multitask/metrics/edge/ods_f") == {4: 0.5}


def test_a_run_of_before_goes_on(tiny, tracker, monkeypatch):
    events = RunDirectory(config.load(tiny)).events
    monkeypatch.setattr(time, "time", lambda: 1e9)
    old_run(events)
    resumed = tracker("multitask", 2)  # 7 steps over both stages
    write(resumed, "multitask", [3, 4], 0.25)
    resumed.close()
    assert curve(events, "multitask/loss/total") == {1: 0.5, 2: 0.5, 3: 0.25, 4: 0.25}
    assert curve(events, "multitask/metrics/edge/ods_f") == {2: 0.5}
    history = router_history(read_scalars(events), ["edge"], SOURCES, [3], TRAINING)
    assert history["edge"][3]["clip"] == [(1, 0.5), (2, 0.5), (3, 0.75), (4, 0.75)]


def test_the_time_of_a_step_is_that_of_the_log(tiny, monkeypatch):
    settings = config.load(tiny)
    run = RunDirectory(settings)
    tracker = Tracker(settings, run, STEPS, Progress("distill", 0))
    for stage, seconds in (("distill", 2.0), ("multitask", 3.0)):
        for step in range(1, 4):
            monkeypatch.setattr(time, "time", lambda now=1e9 + seconds * step: now)
            write(tracker, stage, [step], 0.5)
    monkeypatch.undo()
    tracker.close()
    run.metrics.write_text("{}")
    assert timing(settings).step == pytest.approx({"distill": 2.0, "multitask": 3.0})


def evaluated(tracker):
    weights = torch.tensor([[0.2, 0.8], [0.4, 0.6]])
    routing = {task: [weights] * 2 for task in ("semseg", "edge")}
    tracker.evaluation(Evaluation({"edge": {"ods_f": 50.0}}, routing), SOURCES, (1, 3), Progress("multitask", 2))
    tracker.close()
    return tracker.run.events


def test_a_chart_of_a_router_has_all_sources_and_histograms_are_for_those_who_ask(tracker):
    quiet = tracker("multitask", 0)
    quiet.layout(["semseg", "edge"], (1, 3))
    events = evaluated(quiet)
    routers = {f"multitask/routing/{task}/block{block}" for task in ("semseg", "edge") for block in (1, 3)}
    for source in SOURCES:  # runs of TensorBoard's, which draws those of one tag into one chart
        tags = EventAccumulator(str(events / "multitask" / source)).Reload().Tags()
        assert (set(tags["scalars"]), tags["histograms"]) == (routers, [])
    assert curve(events, "multitask/routing/edge/block3/clip") == {2: 0.7}
    assert curve(events, "multitask/metrics/edge/ods_f") == {2: 50}

    top = EventAccumulator(str(events)).Reload()
    (content,) = top.Tensors("custom_scalars__config__")[0].tensor_proto.string_val
    sections = Layout.FromString(content).category
    assert [section.title for section in sections] == ["routers of semseg", "routers of edge"]
    assert [chart.title for chart in sections[1].chart] == ["edge, block 1", "edge, block 3"]
    (pattern,) = sections[1].chart[1].multiline.tag
    matched = {tag for tag in (*routers, "multitask/routing_training/edge/block3") if re.match(pattern, tag)}
    assert matched == {"multitask/routing/edge/block3", "multitask/routing_training/edge/block3"}

    shutil.rmtree(events)
    asked = tracker("multitask", 0, overrides=["tracking.histograms=true"])
    events = evaluated(asked)
    assert set(EventAccumulator(str(events / "multitask" / "clip")).Reload().Tags()["histograms"]) == routers


def test_config_and_results_are_a_text(trained):
    texts = EventAccumulator(str(trained / "events")).Reload()
    (written,) = texts.Tensors("run/config/text_summary")[0].tensor_proto.string_val
    assert written.decode() == f"```\n{(trained / 'config.yaml').read_text().rstrip()}\n```"
    (written,) = texts.Tensors("run/results/text_summary")[0].tensor_proto.string_val
    assert written.decode() == (trained / "results.md").read_text()
