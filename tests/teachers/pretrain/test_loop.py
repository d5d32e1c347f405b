"""The loop: rates, resuming to the bit, going on from another run, and that every objective can learn."""

import math

import pytest
import torch
from torch import nn

from sak.errors import UserError
from teachers.pretrain.data import Scenes
from teachers.pretrain.loop import Objective, Phase, Run
from teachers.pretrain.recipes import RECIPES


class Line(Objective):
    """A least-squares objective, to watch the loop itself."""

    def __init__(self):
        super().__init__(Scenes(torch.zeros(1, 3, 8, 8), [""], torch.zeros(1, 8, 8), torch.zeros(1, 1)))
        self.weight = nn.Parameter(torch.zeros(3, 1))
        self.stop_at, self.scale, self.seen = None, 1.0, []

    def losses(self, phase, generator):
        self.seen.append((phase.name, torch.randn(1).item()))  # as dropped patches draw from the global generator
        x = torch.randn(16, 3, generator=generator)
        error = self.scale * (x @ self.weight - x.sum(1, keepdim=True))
        return {"fit": error.square().mean(), "size": 0 * self.weight.square().sum()}

    def after_step(self, phase, progress):
        if len(self.seen) == self.stop_at:
            raise KeyboardInterrupt


PHASES = (Phase("a", 6, 4, 0.1), Phase("b", 4, 4, 0.05))


def test_every_phase_warms_up_and_cools_down():
    phase = Phase("a", 100, 4, 0.2, warmup=0.1)
    rates = [phase.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.02)
    assert rates[4] == pytest.approx(0.1)
    assert rates[50] == pytest.approx(0.1)
    assert rates[75] == pytest.approx(0.2 * 0.5 * (1 + math.cos(0.75 * math.pi)))
    assert rates[99] < 1e-3
    assert max(rates) < 0.2


def test_the_optimizer_has_the_phase_s_rate(tmp_path):
    run = Run(Line(), PHASES, tmp_path / "a.pt", seed=0)
    rates, step = [], run.optimizer.step
    run.optimizer.step = lambda: (rates.append([group["lr"] for group in run.optimizer.param_groups]), step())
    run.train()
    expected = [phase.rate(step) for phase in PHASES for step in range(phase.steps)]
    assert rates == [[rate, rate] for rate in expected]
    assert [name for name, _ in run.objective.seen] == ["a"] * 6 + ["b"] * 4


def test_the_gradient_is_clipped(tmp_path):
    objective = Line()
    objective.scale = 1000.0
    run = Run(objective, PHASES, tmp_path / "a.pt", seed=0)
    _, norm = run.step(PHASES[0], 0)
    assert norm > 100
    assert objective.weight.grad.norm() == pytest.approx(1, rel=1e-4)


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path):
    objective = Line()
    objective.scale = math.inf
    with pytest.raises(FloatingPointError, match="at step 0"):
        Run(objective, PHASES, tmp_path / "a.pt", seed=0).train()
    assert not (tmp_path / "a.pt").exists()


def test_a_stopped_run_resumes_where_it_was(tmp_path):
    torch.manual_seed(5)
    straight = Line()
    Run(straight, PHASES, tmp_path / "a.pt", seed=3, every=4).train()
    torch.manual_seed(5)
    stopped = Line()
    stopped.stop_at = 7  # in the second phase, after a checkpoint in the first
    with pytest.raises(KeyboardInterrupt):
        Run(stopped, PHASES, tmp_path / "b.pt", seed=3, every=4).train()
    torch.manual_seed(99)
    resumed = Line()
    run = Run(resumed, PHASES, tmp_path / "b.pt", seed=3, every=4)
    run.train()
    assert resumed.weight.equal(straight.weight)
    assert resumed.seen == straight.seen[4:]
    assert (run.progress.starts, run.progress.steps) == (2, 10)
    assert straight.weight.abs().min() > 0.2
    for phases, seed, what in ((PHASES[:1], 3, "phases"), (PHASES, 4, "seed")):
        with pytest.raises(UserError, match=f"other {what}; ask for the same, or delete it to start anew"):
            Run(Line(), phases, tmp_path / "b.pt", seed=seed)


def test_a_run_is_watched(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Run(Line(), PHASES, tmp_path / "a.pt", seed=0, watch=lambda: {"right": 40.0}, every=1).train()
    events = EventAccumulator(str(tmp_path / "a"))
    events.Reload()
    assert {"loss/fit", "loss/size", "learning rate", "gradient norm"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("loss/fit")] == [10]
    assert [event.value for event in events.Scalars("held-out scenes/right")] == [40.0]


def test_what_is_no_checkpoint_is_named(tmp_path):
    (tmp_path / "text.pt").write_text("no checkpoint")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "zip.pt").write_bytes(b"PK corrupt")
    for name, said in (
        ("text", "cannot be read as weights"),
        ("zip", "cannot be read as weights"),
        ("other", "is no checkpoint of a pretraining"),
        ("list", "is no checkpoint of a pretraining"),
    ):
        with pytest.raises(UserError, match=rf"{name}\.pt {said}"):
            Run(Line(), PHASES, tmp_path / "new.pt", seed=0, start=tmp_path / f"{name}.pt")
        with pytest.raises(UserError, match=rf"{name}\.pt {said}"):
            Run(Line(), PHASES, tmp_path / f"{name}.pt", seed=0)


def build(name, scenes, seed=0):
    torch.manual_seed(seed)
    return RECIPES[name].objective(scenes)


def phases(name, steps, batch_size=4):
    return RECIPES[name].scaled(steps, batch_size).phases


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in ("clip", "vit") else name for name in sorted(RECIPES)],
)
def test_all_of_an_objective_resumes_to_the_bit(name, scenes, tmp_path):
    """Heads, towers, queues and the optimizer with it, across the border of phases."""
    straight = build(name, scenes)
    first = Run(straight, phases(name, 4), tmp_path / "a.pt", seed=1, every=2)
    first.train()
    half = build(name, scenes)
    stopped = Run(half, phases(name, 4), tmp_path / "b.pt", seed=1, every=2)
    stopped.step, steps = None, stopped.step

    def step(phase, number):
        if stopped.progress.steps == 3:
            raise KeyboardInterrupt
        return steps(phase, number)

    stopped.step = step
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = build(name, scenes, seed=9)
    second = Run(resumed, phases(name, 4), tmp_path / "b.pt", seed=1, every=2)
    assert second.progress.steps == 2
    second.train()
    for key, value in straight.state_dict().items():
        assert value.equal(resumed.state_dict()[key]), key
    moments = [run.optimizer.state_dict()["state"] for run in (first, second)]
    assert all(moments[0][key]["exp_avg"].equal(moments[1][key]["exp_avg"]) for key in moments[0])


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_another_run_goes_on_with_all_of_an_objective(name, scenes, tmp_path):
    before = build(name, scenes)
    earlier = Run(before, phases(name, 2), tmp_path / "a.pt", seed=1)
    earlier.train()
    after = build(name, scenes, seed=9)
    run = Run(after, phases(name, 3), tmp_path / "b.pt", seed=2, start=tmp_path / "a.pt")
    assert run.progress.steps == 0
    for key, value in before.state_dict().items():
        assert value.equal(after.state_dict()[key]), key
    moments = [each.optimizer.state_dict()["state"] for each in (earlier, run)]
    assert all(moments[1][key]["exp_avg"].equal(value["exp_avg"]) for key, value in moments[0].items())
    other = build("vit" if name != "vit" else "clip", scenes)
    with pytest.raises(UserError, match="checkpoint of another miniature"):
        Run(other, phases(name, 3), tmp_path / "c.pt", seed=2, start=tmp_path / "a.pt")


# Of one batch: its size, steps, and how much of each term of the loss they may leave. A term that does not learn stays.
# All but the first are slow.
OVERFIT = {
    "vit": (8, 40, {"classes": 0.5}),
    "clip": (8, 40, {"contrast": 0.2}),
    "sam": (2, 120, {"focal": 0.6, "dice": 0.7}),
    "dinov2": (8, 40, {"image": 0.92, "contrast": 0.4, "places": 0.6, "patch": 0.92}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OVERFIT))
def test_every_objective_learns_a_few_scenes_by_heart(name, scenes, tmp_path):
    batch_size, steps, left = OVERFIT[name]
    few = Scenes(
        scenes.images[:8],
        scenes.captions[:8],
        scenes.regions[:8],
        scenes.classes[:8],
        tuple(part[:8] for part in scenes.again),
    )
    objective = build(name, few)
    phase = Phase(RECIPES[name].phases[0].name, steps, batch_size, 1e-3)
    run = Run(objective, [phase], tmp_path / "a.pt", seed=1)
    history = []
    for step in range(steps):
        run.generator.manual_seed(1)  # the same views, prompts and masks
        history.append(run.step(phase, step)[0])
    for term, share in left.items():
        values = torch.stack([terms[term] for terms in history])
        assert values[-6:].mean() < share * values[:3].mean(), term
