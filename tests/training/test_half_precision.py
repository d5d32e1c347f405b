"""float16: losses are scaled, steps whose gradients overflow are left out, and the scale is kept through a kill."""

import runpy
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves

from sak import config
from sak.distillation.standardisation import Standardiser
from sak.tasks import SemSeg
from sak.training import checkpoint
from sak.training import train as training
from sak.training.optimizer import Learner
from sak.training.stage import StageTraining
from sak.training.train import train

HALF = [
    "precision=fp16",
    "data.tasks=[semseg,normals]",
    "stages.multitask.evaluate_every=null",
    "stages.distill.checkpoint_every=1",
    "stages.multitask.checkpoint_every=1",
    "stages.distill.keep_last=9",
    "stages.multitask.keep_last=9",
]


class Killed(Exception):
    """Stands for SIGKILL."""


@pytest.fixture
def scaled(monkeypatch):
    """Sets the scale that trainings in float16 begin with."""
    build = runpy.run_path(str(Path(__file__).with_name("fp16_on_cpu.py")))["build"]

    def begin(**options):
        monkeypatch.setattr(training, "build_accelerator", build(**options))

    return begin


def states(run):
    """{checkpoint's name: content}"""
    return {path.name: checkpoint.load(path) for path in sorted(run.checkpoints.iterdir())}


def same(one, other):
    leaves = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in leaves)


def test_a_step_that_overflows_is_left_out_and_halves_the_scale(tiny, scaled):
    scaled(scale=2.0**32)  # no float16 is so large: the first steps overflow
    run = train(config.load(tiny, HALF))
    found = states(run)
    scales = [state["scaler"]["scale"] for state in found.values()]
    assert scales[:3] == [2.0**31, 2.0**30, 2.0**29]
    start, *_ = (state["student"] for state in found.values())
    after = found["distill-0000003.pt"]["student"]
    assert same(start, after)
    assert run.finished


def test_steps_move_the_weights_as_full_precision_does(tiny, scaled):
    scaled(scale=2.0**10)
    half = states(train(config.load(tiny, [*HALF, "name=half"])))
    full = states(train(config.load(tiny, [*HALF[1:], "name=full"])))
    assert half["multitask-0000004.pt"]["scaler"]["scale"] == 2.0**12  # it grew at every third step
    for name in ("distill-0000001.pt", "multitask-0000001.pt"):  # later ones have gone ways of their own
        # AdamW's moments are of the gradients themselves, whatever the scale was.
        found, expected = (
            torch.cat([moments["exp_avg"].flatten() for moments in run[name]["optimizer"]["state"].values()])
            for run in (half, full)
        )
        assert (found - expected).norm() < 0.1 * expected.norm(), name


@pytest.mark.parametrize(
    ("stage", "step"), [pytest.param("distill", 1, marks=pytest.mark.slow), ("multitask", 0), ("multitask", 2)]
)
def test_the_scale_is_kept_through_a_kill(tiny, scaled, monkeypatch, stage, step):
    """In the middle of either stage, and between them: the second stage begins with the scale of the first."""
    scaled(scale=2.0**16)
    whole = train(config.load(tiny, [*HALF, "name=whole"]))
    expected = states(whole)
    assert expected["distill-0000003.pt"]["scaler"]["scale"] != 2.0**16
    real = StageTraining._step

    def dying(self, batches, number):
        if (self.stage, number) == (stage, step):
            raise Killed
        return real(self, batches, number)

    settings = config.load(tiny, [*HALF, "name=killed"])
    with monkeypatch.context() as patch:
        patch.setattr(StageTraining, "_step", dying)
        with pytest.raises(Killed):
            train(settings)
    found = states(train(settings))
    assert found.keys() == expected.keys()
    assert all(same(found[name], expected[name]) for name in expected)


def test_statistics_of_the_teachers_are_taken_in_full_precision(tiny, monkeypatch):
    """The teachers compute in half precision, but not who reads what they say."""
    real, seen = Standardiser.fit, []

    def fit(self, batches, add):
        def watched():
            for features in batches:
                seen.append((torch.is_autocast_enabled("cpu"), {level.dtype for level in features["dinov2"]}))
                yield features

        return real(self, watched(), add)

    monkeypatch.setattr(Standardiser, "fit", fit)
    one = ["stages.distill.steps=1", "stages.multitask.steps=0", "stages.distill.standardise=phi_s"]
    train(config.load(tiny, ["precision=bf16", *one, "stages.distill.standardise_images=2"]))
    assert seen == [(False, {torch.float32})]


def test_a_gradient_that_no_scale_can_mend_ends_the_run(tiny, scaled, monkeypatch):
    real = SemSeg.loss
    monkeypatch.setattr(SemSeg, "loss", lambda self, out, label: real(self, out, label) + (0 * out).sum().sqrt())
    scaled(scale=2.0**-7)
    settings = config.load(tiny, [*HALF, "stages.distill.steps=0", "stages.multitask.steps=8"])
    # 2^-7, 2^-8 and 2^-9 are left out; 2^-10 is below what could be too much for float16.
    with pytest.raises(FloatingPointError, match="the gradient's norm is nan at step 4 of the stage multitask"):
        train(settings)


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_norm_is_of_the_gradient_without_its_scale(clip, scaled):
    scaled(scale=2.0**10)
    accelerator = training.build_accelerator("fp16")
    model = torch.nn.Linear(3, 2, bias=False)
    optim = config.schema.OptimConfig(lr=0.1, weight_decay=0.0, schedule="cosine", clip=clip)
    learner = Learner(model, optim, accelerator, sharded=False, state=None)
    loss = (learner.model.weight * torch.tensor([[3.0, 0.0, 0.0], [0.0, 4.0, 0.0]])).sum()
    accelerator.backward(loss)
    assert learner.step().item() == pytest.approx(5.0)
    before = model.weight.detach().clone()
    model.weight.grad = torch.full_like(model.weight, torch.inf)  # the step that is left out has none
    assert learner.step().item() == 0
    assert torch.equal(model.weight, before)
