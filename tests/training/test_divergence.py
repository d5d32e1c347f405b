"""What is not finite ends a run before it reaches a checkpoint, and the run can go on from the one before."""

import pytest
import torch

from sak import cli, config
from sak.tasks import Edge
from sak.training import checkpoint
from sak.training.optimizer import Learner
from sak.training.run_directory import RunDirectory
from sak.training.stage import StageTraining
from sak.training.train import train

EDGES = ["data.tasks=[edge]", "stages.multitask.evaluate_every=null"]
EVERY_STEP = ["stages.distill.checkpoint_every=1", "stages.multitask.checkpoint_every=1"]
RARE = ["stages.multitask.log_every=100", "stages.multitask.checkpoint_every=2"]


def at_step(monkeypatch, stage, step, ruin):
    """Call ``ruin(learner)`` after the backward pass of a step, counted from 1."""
    real_step, real_update, now = StageTraining._step, Learner.step, []

    def noting(self, micro_batches, number):
        now[:] = [self.stage, number + 1]
        return real_step(self, micro_batches, number)

    def ruining(self):
        if now == [stage, step]:
            ruin(self)
        return real_update(self)

    monkeypatch.setattr(StageTraining, "_step", noting)
    monkeypatch.setattr(Learner, "step", ruining)


def one_gradient(value):
    def ruin(learner):
        weights = [weight for weight in learner.model.parameters() if weight.grad is not None]
        weights[len(weights) // 2].grad.view(-1)[0] = value

    return ruin


def one_weight(value):
    def ruin(learner):
        with torch.no_grad():
            learner.student.stem.vit.cls_token.view(-1)[0] = value

    return ruin


def outcome(run):
    weights = checkpoint.load(checkpoint.newest(run.checkpoints))["student"]
    return run.metrics.read_text(), {key: value.tolist() for key, value in weights.items()}


@pytest.mark.parametrize(
    "looks", [EVERY_STEP, pytest.param(RARE, marks=pytest.mark.slow)], ids=["every step", "rarely"]
)
@pytest.mark.parametrize(
    ("stage", "step", "ruin", "options", "message"),
    [
        ("distill", 2, one_gradient(float("nan")), [], "the gradient's norm is nan at step 2 of the stage distill; no"),
        (
            "distill",
            3,
            one_gradient(float("-inf")),
            [],
            "the gradient's norm is inf at step 3 of the stage distill; no",
        ),
        ("multitask", 3, one_gradient(float("inf")), [], "the gradient's norm is inf at step 3 of the stage multitask"),
        (
            "multitask",
            3,
            one_gradient(float("nan")),
            ["stages.multitask.optim.clip=null", "stages.multitask.accumulate=2"],
            "the gradient's norm is nan at step 3 of the stage multitask",
        ),
        # Written at the end of the step, before any loss has seen it.
        (
            "multitask",
            4,
            one_weight(float("nan")),
            [],
            "stem.vit.cls_token of the student is not finite after step 4 of",
        ),
    ],
)
def test_a_gradient_that_is_not_finite_reaches_no_checkpoint_and_the_run_goes_on(
    tiny, monkeypatch, capsys, stage, step, ruin, options, message, looks
):
    settings = config.load(tiny, [*EDGES, *options, *looks])
    with monkeypatch.context() as patch:
        at_step(patch, stage, step, ruin)
        with pytest.raises(SystemExit) as stop:
            cli.run(lambda _: train(settings))
    (line,) = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "error" in line]
    assert stop.value.code == 1
    assert line.startswith(f"error: {message}")
    run = RunDirectory(settings)
    before = checkpoint.newest(run.checkpoints)
    if before is not None:
        state = checkpoint.load(before)
        assert (state["stage"], state["step"]) < (stage, step)
        assert all(value.isfinite().all() for value in state["student"].values())
        assert all(v.isfinite().all() for state in state["optimizer"]["state"].values() for v in state.values())
    resumed = train(settings)
    assert outcome(resumed) == outcome(train(config.load(tiny, [*EDGES, *options, *looks, "name=whole"])))


def test_a_loss_whose_gradient_alone_is_not_finite(tiny, monkeypatch):
    """The root of 0: its value is fine."""
    real = Edge.loss
    monkeypatch.setattr(Edge, "loss", lambda self, output, label: real(self, output, label) + (0 * output).sum().sqrt())
    settings = config.load(tiny, [*EDGES, *EVERY_STEP])
    with pytest.raises(FloatingPointError, match="the gradient's norm is nan at step 1 of the stage multitask"):
        train(settings)
    assert checkpoint.newest(RunDirectory(settings).checkpoints).name == "distill-0000003.pt"
