"""Cosines of paths and teachers against sums written out, shared PCA, and tools/inspect_fidelity.py."""

import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from sak import config, data
from sak.bundles.build import aligned_teachers, build_committee, build_student, build_tasks
from sak.bundles.bundle import load_bundle
from sak.errors import UserError
from sak.evaluation.sources import Cosines, tokens_inside
from sak.research.similarity.aligners import as_distilled, learned_standardiser, with_aligners
from sak.research.similarity.fidelity import colours, principal_axes
from sak.training import checkpoint
from sak.training.train import train

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "tiny"))


@pytest.fixture
def inspect(call_tool):
    return functools.partial(call_tool, "inspect_fidelity")


def maps(seed, dim=5):
    return torch.randn(3, dim, 4, 6, generator=torch.Generator().manual_seed(seed))


def everywhere():
    return torch.ones(3, 4, 6, dtype=torch.bool)


def test_a_path_that_is_its_teacher_has_a_cosine_of_1_whatever_its_length():
    cosines = Cosines()
    cosines.update(3 * maps(0), maps(0), everywhere())
    assert cosines.token == pytest.approx([1.0] * 3)
    assert cosines.whole == pytest.approx([1.0] * 3)
    opposite = Cosines()
    opposite.update(-maps(0), maps(0), everywhere())
    assert opposite.token == pytest.approx([-1.0] * 3)


def test_cosines_against_their_sums_without_the_padding():
    inside = everywhere()
    inside[1, :2] = False
    ours, theirs = maps(0), maps(1)
    cosines = Cosines()
    cosines.update(ours[:2], theirs[:2], inside[:2])
    cosines.update(ours[2:], theirs[2:], inside[2:])
    a, b = ours[1, :, 2:].flatten(1), theirs[1, :, 2:].flatten(1)
    of_tokens = [(x @ y / (x.norm() * y.norm())).item() for x, y in zip(a.T, b.T, strict=True)]
    assert cosines.token[1] == pytest.approx(sum(of_tokens) / 12, abs=1e-6)
    assert cosines.whole[1] == pytest.approx(((a * b).sum() / (a.norm() * b.norm())).item(), abs=1e-6)
    assert cosines.count == 60


def test_no_constant_token_does_better_than_the_best_constant():
    theirs = maps(1) + 0.7
    cosines = Cosines()
    cosines.update(maps(0), theirs, everywhere())
    tokens = theirs.movedim(1, -1).flatten(0, 2)

    def reached(constant):
        return torch.nn.functional.cosine_similarity(tokens, constant[None], dim=1).mean().item()

    best = torch.nn.functional.normalize(tokens, dim=1).mean(0)
    assert cosines.constant == pytest.approx(reached(best), abs=1e-6)
    others = torch.randn(200, 5, generator=torch.Generator().manual_seed(3))
    assert max(map(reached, others)) < cosines.constant


def test_principal_axes_are_those_of_the_covariance():
    scale = torch.tensor([3.0, 1.0, 0.1, 2.0, 0.2], dtype=torch.float64)
    tokens = maps(0, 5).double().movedim(1, -1).flatten(0, 2) * scale
    mean, axes = principal_axes(tokens)
    covariance = (tokens - mean).T @ (tokens - mean) / len(tokens)
    values, vectors = torch.linalg.eigh(covariance)
    torch.testing.assert_close((axes * vectors.flip(1)[:, :3]).sum(0).abs(), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(((tokens - mean) @ axes).square().mean(0), values.flip(0)[:3])


def test_teacher_and_path_are_drawn_in_one_basis():
    inside = everywhere()
    inside[0, 0] = False
    teacher, path = colours(maps(0), 2 * maps(0), inside, inside)  # another length is the same direction
    torch.testing.assert_close(teacher, path)
    assert (teacher[0, 0] == 1).all()
    assert teacher.shape == (3, 4, 6, 3)
    assert 0 == teacher.min() < teacher.max() == 1
    _, other = colours(maps(0), maps(1), inside, inside)
    assert not torch.allclose(teacher, other, atol=0.1)


def aligned(run):
    settings = config.load(run / "config.yaml")
    trained = build_student(settings, build_tasks(settings.data), {"dinov2": [24] * 4})
    return with_aligners(load_bundle(run / "student"), str(run), trained)


def test_a_finished_run_gets_its_aligners_back_from_its_checkpoint(run):
    student = aligned(run)
    assert aligned_teachers(load_bundle(run / "student")) == []
    assert aligned_teachers(student) == ["dinov2"]
    state = torch.load(max(run.glob("checkpoints/multitask-*.pt")), weights_only=True)["student"]
    torch.testing.assert_close(student.paths["dinov2"].aligners[3].weight, state["paths.dinov2.aligners.3.weight"])


def test_aligners_of_another_student_are_refused(run):
    path = max(run.glob("checkpoints/multitask-*.pt"))
    content = torch.load(path, weights_only=True)
    content["student"]["stem.vit.cls_token"] += 1
    torch.save(content, path)
    with pytest.raises(UserError, match=r"is not of the student at .*: their weights differ"):
        aligned(run)


def test_a_run_and_its_cosines_by_hand(inspect, run):
    code, out, errors = inspect(run)
    assert (code, errors) == (0, [])
    result = json.loads((run / "fidelity" / "fidelity.json").read_text())
    assert result["images"] == 2
    settings = config.load(run / "config.yaml")
    dataset = data.build(settings.data, "val")
    torch.manual_seed(settings.seed + 1)  # the untrained teacher is drawn from its name
    committee, student = build_committee(settings), aligned(run)
    by_image = []
    for sample in (dataset[0], dataset[1]):
        with torch.no_grad():
            ours = student(sample["image"][None], tasks=()).paths["dinov2"][2]
        theirs = committee(sample["image"][None])["dinov2"][2]
        cosine = torch.nn.functional.cosine_similarity(ours, theirs, dim=1)[0]
        rows, columns = ((torch.arange(6) + 0.5) * 16 for _ in range(2))
        (h, w), (top, left) = sample["size"], ((96 - sample["size"][0]) // 2, (96 - sample["size"][1]) // 2)
        chosen = ((rows > top) & (rows < top + h))[:, None] & ((columns > left) & (columns < left + w))
        by_image.append(cosine[chosen].mean().item())
    assert result["teachers"]["dinov2"]["2"]["token"] == pytest.approx(sum(by_image) / 2, abs=1e-5)
    for name in ("fidelity", *(f"pca-block{block}" for block in range(4))):
        assert Image.open(run / "fidelity" / f"{name}.png").width > 200
    assert "cosine of path and teacher" in out


def distilled(path, tiny):
    """A bundle as the first stage leaves it, with its aligners."""
    settings = config.load(tiny)
    build_student(settings, {}, {"dinov2": [24] * 4}).save_pretrained(path)
    return path


def test_a_bundle_of_the_first_stage_has_them_itself(inspect, tiny, tmp_path):
    bundle = distilled(tmp_path / "bundle", tiny)
    code, _, errors = inspect(bundle, "--config", tiny, "--limit", "1", "--output", tmp_path / "out")
    assert (code, errors) == (0, [])
    assert json.loads((tmp_path / "out" / "fidelity.json").read_text())["images"] == 1


STANDARDISED = ["stages.multitask.steps=0", "stages.distill.steps=2", "stages.distill.loss=l2"]


@pytest.mark.parametrize("kind", ["phi_s", "ema"])
def test_paths_are_compared_with_what_they_learned(inspect, tiny, kind):
    settings = config.load(tiny, [*STANDARDISED, f"stages.distill.standardise={kind}"])
    run = train(settings)
    statistics = checkpoint.load(checkpoint.newest(run.checkpoints))["standardise"][kind]
    student, learned, dims = as_distilled(str(run.path), settings)
    learned.eval()
    assert (learned.kind, dims) == (kind, {"dinov2": [24] * 4})
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw, found = (teach(images)["dinov2"][1] for teach in (learned.committee, learned))
    of_level = {
        name.rpartition(".")[2]: value for name, value in statistics.items() if name.startswith("teachers.dinov2.1.")
    }
    centred = raw - of_level["mean"][:, None, None]
    if kind == "phi_s":
        expected = torch.einsum("ij,bjhw->bihw", of_level["turn"], centred)
    else:
        expected = centred / (of_level["std"] + 1e-6)[:, None, None]
    torch.testing.assert_close(found, expected)
    after = learned.standardiser.state_dict()
    assert all(torch.equal(after[name], value) for name, value in statistics.items())  # looking moves nothing

    assert inspect(run.path, "--limit", "1")[::2] == (0, [])
    result = json.loads((run.path / "fidelity" / "fidelity.json").read_text())
    sample = data.build(settings.data, "val")[0]
    with torch.no_grad():
        ours = student(sample["image"][None], tasks=()).paths["dinov2"][1]
        theirs = learned(sample["image"][None])["dinov2"][1]
    by_hand = Cosines()
    by_hand.update(ours, theirs, tokens_inside([torch.tensor([side]) for side in sample["size"]], (6, 6), (96, 96)))
    assert result["standardised"] == kind
    assert result["teachers"]["dinov2"]["1"]["token"] == pytest.approx(by_hand.token[0], abs=1e-5)

    later = config.load(tiny, ["stages.distill.steps=0", "stages.multitask.alpha=0", f"student.weights={run.path}"])
    assert learned_standardiser("later", later, dims).kind == kind  # its own stage does not distil
    code, _, errors = inspect(without_checkpoints(run.path), "--limit", "1")
    assert (code, len(errors)) == (2, 1)
    assert f"standardised by {kind}, but the statistics are not there" in errors[0]


def without_checkpoints(run):
    shutil.rmtree(run / "checkpoints")
    return run


def unfinished(run):
    shutil.rmtree(run / "student")
    return run


MISTAKES = {
    "no config": (lambda run, tiny, p: [distilled(p / "b", tiny)], "say with --config which teachers"),
    "nothing there": (lambda run, tiny, p: [p / "nowhere", "--config", tiny], "there is no student at"),
    "unfinished": (lambda run, tiny, p: [unfinished(run)], "is unfinished: it has no student/ yet"),
    "aligners lost": (lambda run, tiny, p: [without_checkpoints(run)], "has lost the aligners to dinov2"),
    "other teachers": (
        lambda run, tiny, p: [distilled(p / "b", tiny), "--config", tiny, "teachers.clip={family: dinov2, model: "
                              "vit_tiny_patch16_384, weights: random, levels: [1, 2, 3, 5]}"],
        "the config's teachers are dinov2, clip",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(inspect, run, tiny, tmp_path, mistake):
    arguments, message = MISTAKES[mistake]
    code, _, errors = inspect(*arguments(run, tiny, tmp_path))
    assert (code, len(errors)) == (2, 1)
    assert message in errors[0]
