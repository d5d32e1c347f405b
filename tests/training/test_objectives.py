"""What is added up to a stage's loss, by hand, and what learns from it."""

from types import SimpleNamespace

import pytest
import torch

from sak.distillation import losses
from sak.student import Student
from sak.training import objectives

TEACHERS, LEVELS = {"a": 6, "b": 4}, 2


def maps(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: [torch.randn(3, width, 2, 2, generator=generator) for _ in range(LEVELS)]
        for name, width in TEACHERS.items()
    }


PATHS, FEATURES = maps(0), maps(1)
# Three images with two sources: importance 0.9 and 2.1, mean 1.5, variance 0.36; and one that is even.
ROUTING = {"edge": [torch.tensor([[0.2, 0.8], [0.3, 0.7], [0.4, 0.6]]), torch.full((3, 2), 0.5)]}
BALANCE = 0.36 / 1.5**2
TASKS = {
    "edge": SimpleNamespace(weight=50.0, loss=lambda output, label: output - label),
    "depth": SimpleNamespace(weight=2.0, loss=lambda output, label: label - output),
}


def student(images, tasks=None):
    assert images == "images"
    predictions = {name: torch.tensor(value) for name, value in (("edge", 5.0), ("depth", 1.0))}
    return SimpleNamespace(paths=PATHS, predictions=predictions if tasks is None else {}, routing=ROUTING)


def batch():
    return {"image": "images", "edge": torch.tensor(3.0), "depth": torch.tensor(8.0)}  # losses 2 and 7


def weighed(of_tasks):
    assert {name: loss.item() for name, loss in of_tasks.items()} == {"edge": 100, "depth": 14}
    return 0.5 * of_tasks["edge"] + 3 * of_tasks["depth"], {"weight/edge": 0.5, "weight/depth": 3}


@pytest.mark.parametrize("dropping", [0.0, 1.0])
@pytest.mark.parametrize("balance", [0.0, 0.25])
@pytest.mark.parametrize(("task_balance", "of_tasks"), [(None, 114.0), (weighed, 92.0)])
def test_the_second_stage_adds_up(dropping, balance, task_balance, of_tasks):
    seen = []
    objective = objectives.multitask(
        lambda given: FEATURES, TASKS, "l2", 0.3, dropping, balance, task_balance, watch=seen.append
    )
    total, terms = objective(student, batch())
    of_teachers = {
        f"distill/{name}/{level}": (PATHS[name][level] - FEATURES[name][level]).square().mean()
        for name in TEACHERS
        for level in range(LEVELS)
    }
    expected = {"task/edge": 100.0, "task/depth": 14.0, **{name: term.item() for name, term in of_teachers.items()}}
    if task_balance:
        expected |= {"weight/edge": 0.5, "weight/depth": 3}
    if balance:
        expected["balance"] = BALANCE
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(expected)
    distilled = sum(of_teachers.values())
    if dropping:  # of every image the worst teacher is left
        of_images = [
            sum((PATHS[name][level] - FEATURES[name][level]).square().flatten(1).mean(1) for level in range(LEVELS))
            for name in TEACHERS
        ]
        distilled = 2 * torch.stack(of_images).amax(dim=0).mean()
    assert total.item() == pytest.approx(of_tasks + balance * BALANCE + 0.3 * distilled.item())
    assert [output.paths for output in seen] == [PATHS]


@pytest.mark.parametrize("dropping", [0.0, 1.0])
def test_the_first_stage_is_the_distillation_alone(dropping):
    paths = {name: [level.clone().requires_grad_() for level in levels] for name, levels in PATHS.items()}

    def learner(images, tasks):
        assert (images, tasks) == ("images", ())
        return SimpleNamespace(paths=paths)

    total, terms = objectives.distillation(lambda given: FEATURES, "l2", dropping)(learner, batch())
    expected = losses.distillation_terms(PATHS, FEATURES, "l2")
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(
        {f"distill/{name}": term.item() for name, term in expected.items()}
    )
    if not dropping:
        assert total.item() == pytest.approx(sum(term.item() for term in expected.values()))
    assert total.requires_grad
    assert not dropping or not any(term.requires_grad for term in terms.values())  # they are for the log


def test_without_features_only_the_tasks_count():
    total, terms = objectives.multitask(None, TASKS, "l2", 1.0)(student, batch())
    assert (total.item(), set(terms)) == (114.0, {"task/edge", "task/depth"})


STEM = {"embed_dim": 16, "depth": 4, "num_heads": 2, "patch_size": 8}


@pytest.mark.parametrize("paths", ["adapter", "none"])
@pytest.mark.parametrize("stage", ["distill", "multitask"])
@pytest.mark.parametrize("distils", [True, False])
@pytest.mark.parametrize("frozen", [(), ("paths.a", "heads")])
def test_what_learns_in_a_stage(paths, stage, distils, frozen):
    whole = Student(
        "vit_tiny_patch16_384", (32, 32), {"edge": 1}, {"a": [8] * 3}, levels=[0, 1, 2], stem_options=STEM, paths=paths
    )
    whole.freeze(frozen)
    objectives.choose_trained_weights(whole, stage, distils)

    def learns(name):
        if name.startswith(tuple(f"{part}." for part in frozen)):
            return False
        if name.startswith(("heads.", "routers.")):
            return stage == "multitask"
        if name.startswith("paths.a.aligners."):
            return distils
        # Nobody reads what comes after the third block; adapter 0 is that of the stem's input.
        return not name.startswith(("stem.vit.blocks.3.", "paths.a.adapters.4."))

    found = {name: parameter.requires_grad for name, parameter in whole.named_parameters()}
    assert found == {name: learns(name) for name in found}
