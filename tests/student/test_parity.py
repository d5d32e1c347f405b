"""Number by number against a tiny model of the published implementation (see tests/fixtures/parity)."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

import sak
from sak import data, tasks
from sak.bundles.official import PUBLISHED_SIZES
from sak.distillation import losses
from sak.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "parity"
PUBLISHED_NAMES = {"saliency": "sal"}
CASES = {"pascal_a": "pascal_context", "nyud_a": "nyud"}


class Reference:
    def __init__(self, name):
        self.dataset = CASES[name]
        self.tensors = safetensors.torch.load_file(FIXTURES / f"{name}.safetensors")
        self.numbers = json.loads((FIXTURES / f"{name}.json").read_text())
        self.weights = {k.removeprefix("weights/"): v for k, v in self.tensors.items() if k.startswith("weights/")}
        self.teachers = list(self.numbers["teachers"])

    def student(self, weights=None, **arguments):
        arguments = {"image_size": tuple(self.numbers["image_size"]), "num_heads": 4, **arguments}
        arguments["num_heads"] = self.numbers["num_heads"]
        return sak.load_official(weights or self.weights, dataset=self.dataset, **arguments)

    def images(self, student):
        return self.tensors["input/image"] * student.std + student.mean

    def label(self, task):
        label = self.tensors[f"label/{PUBLISHED_NAMES.get(task, task)}"]
        return label[:, 0].long() if task in ("semseg", "human_parts", "saliency") else label


@pytest.fixture(scope="module", params=CASES)
def reference(request):
    return Reference(request.param)


@pytest.fixture(scope="module")
def pascal():
    return Reference("pascal_a")


@pytest.fixture(scope="module")
def output(reference):
    student = reference.student()
    with torch.no_grad():
        return student(reference.images(student))


def assert_close(ours, published):
    torch.testing.assert_close(ours, published, rtol=1e-5, atol=1e-5 * published.abs().max().item())


def test_paths(reference, output):
    for teacher in reference.teachers:
        for level, ours in enumerate(output.paths[teacher]):
            assert_close(ours, reference.tensors[f"output/aligned/{teacher}/{level}"])


def test_predictions_and_router_weights(reference, output):
    assert set(output.predictions) == set(tasks.TASKS) & {
        "saliency" if task == "sal" else task for task in reference.numbers["tasks"]
    }
    for task, prediction in output.predictions.items():
        name = PUBLISHED_NAMES.get(task, task)
        assert_close(prediction, reference.tensors[f"output/task/{name}"])
        for block, weights in zip(reference.numbers["levels"], output.routing[task], strict=True):
            assert_close(weights, reference.tensors[f"output/router/{block}_{name}"])


@pytest.mark.parametrize("loss", ["cos+l1", "cos", "l2"])
def test_distillation_loss(reference, loss):
    paths, features = (
        {t: [reference.tensors[f"{kind}/{t}/{level}"] for level in range(4)] for t in reference.teachers}
        for kind in ("output/aligned", "teacher")
    )
    terms = losses.distillation_terms(paths, features, loss)
    published = reference.numbers[f"distill_loss/{loss}"]
    for term, value in terms.items():
        teacher, level = term.split("/")
        assert value.item() == pytest.approx(published[f"{teacher}_level{int(level) + 1}"], rel=1e-5)
    assert losses.total(terms).item() == pytest.approx(published["total"], rel=1e-5)


def test_task_losses(reference, output):
    for name, prediction in output.predictions.items():
        task = data.described(reference.dataset).build(name)
        ours = task.weight * task.loss(prediction, reference.label(name))
        assert ours.item() == pytest.approx(reference.numbers["task_loss"][PUBLISHED_NAMES.get(name, name)], rel=1e-5)


def test_sources_are_in_the_published_order_though_the_file_format_sorts_names(reference):
    assert reference.student().sources == ("stem", "dinov2", "clip", "sam")


def test_a_checkpoint_in_its_own_order_keeps_it(pascal):
    """torch.save keeps the model's order: there the routers' order can be read off."""
    keys = [(t, n) for t in ("sam", "dinov2", "clip") for n in range(13)]
    ordered = {
        key: pascal.weights[key]
        for teacher, number in keys
        for key in pascal.weights
        if key.startswith(f"backbone.tsap.{teacher}.{number}.")
    }
    assert pascal.student({**ordered, **pascal.weights}).sources == ("stem", "sam", "dinov2", "clip")


def test_model_key_and_file_formats(pascal, tmp_path):
    torch.save({"model": pascal.weights}, tmp_path / "official.pth")
    safetensors.torch.save_file(pascal.weights, tmp_path / "official.safetensors")
    for name in ("official.pth", "official.safetensors"):
        student = sak.load_official(tmp_path / name, (64, 96), "pascal_context", num_heads=4)
        assert not student.training


def stage_one(weights):
    """As the published code saves its first stage: the model is the backbone alone."""
    backbone = {k.removeprefix("backbone."): v for k, v in weights.items() if k.startswith("backbone.")}
    return {k: v for k, v in backbone.items() if not k.startswith("mor.")}


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_stage_one_checkpoint_has_no_tasks(reference, prefix, tmp_path):
    weights = {f"{prefix}{key}": value for key, value in stage_one(reference.weights).items()}
    assert f"{prefix}tsap.sam.0.scale" in weights
    torch.save({"model": weights, "epoch": 29, "iter_count": 300_270}, tmp_path / "29_checkpoint.pth")
    for given in (weights, {"model": weights}, tmp_path / "29_checkpoint.pth"):
        student = reference.student(given)
        assert student.sources == ("stem", "dinov2", "clip", "sam")
        with torch.no_grad():
            out = student(reference.images(student))
        assert out.predictions == {}
        for teacher in reference.teachers:
            for level, ours in enumerate(out.paths[teacher]):
                assert_close(ours, reference.tensors[f"output/aligned/{teacher}/{level}"])


def test_misfits_of_a_stage_one_checkpoint_are_named(pascal):
    for change, message in (
        (lambda w: w.pop("tsap.clip.4.up.weight"), "1 weights are missing.*paths.clip.adapters.4.up.weight"),
        (lambda w: w.update({"surprise": torch.zeros(1)}), "1 weights are left over, the first is .*surprise"),
        (lambda w: w.pop("vit.pos_embed"), "vit.pos_embed is missing"),
    ):
        weights = stage_one(pascal.weights)
        change(weights)
        with pytest.raises(UserError, match=message):
            pascal.student(weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("backbone.tsap.clip.4.up.weight"), "1 weights are missing.*paths.clip.adapters.4.up.weight"),
        (lambda w: w.update({"backbone.surprise": torch.zeros(1)}), "1 weights are left over.*backbone.surprise"),
        (lambda w: w.update({"backbone.vit.blocks.0.norm1.bias": torch.zeros(7)}), "norm1.bias has shape"),
        (lambda w: [w.pop(key) for key in list(w) if ".tsap." in key], "no checkpoint of the published"),
    ],
)
def test_misfits_are_named(pascal, change, message):
    weights = dict(pascal.weights)
    change(weights)
    with pytest.raises(ValueError, match=message):
        pascal.student(weights)


def test_wrong_arguments_are_named(pascal):
    with pytest.raises(ValueError, match="position embedding has 25 tokens, but 64x64"):
        pascal.student(image_size=(64, 64))
    with pytest.raises(ValueError, match="semseg head has 21 channels, but nyud needs 40"):
        sak.load_official(
            {k: v for k, v in pascal.weights.items() if "parts" not in k and "sal" not in k}, (64, 96), "nyud", 4
        )
    with pytest.raises(ValueError, match="no multiple of 64"):
        sak.load_official(pascal.weights, (64, 96), "pascal_context")
    with pytest.raises(UserError, match="num_heads is 5, which does not divide the stem's width 32"):
        sak.load_official(pascal.weights, (64, 96), "pascal_context", 5)
    with pytest.raises(ValueError, match="no checkpoint at"):
        sak.load_official("missing.pth", (64, 96), "pascal_context")


def test_the_image_size_of_a_published_training_follows_from_the_grid(pascal):
    with pytest.raises(UserError, match="has 25 tokens, but no published size has so many: give the image size"):
        pascal.student(image_size=None)
    for size in PUBLISHED_SIZES:
        grid = size[0] // 16 * (size[1] // 16)
        weights = {**pascal.weights, "backbone.vit.pos_embed": torch.randn(1, 1 + grid, 32)}
        assert tuple(pascal.student(weights, image_size=None).stem.vit.patch_embed.img_size) == size


def test_a_data_set_need_not_be_named(pascal):
    student = sak.load_official(pascal.weights, (64, 96), num_heads=4)
    assert list(student.heads) == ["semseg", "human_parts", "saliency", "normals", "edge"]


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", {"model": torch.zeros(3)}, [1, 2], {"model": {"conv1.weight": torch.zeros(1)}, "epoch": 3}],
)
def test_files_that_are_no_checkpoint(content, tmp_path):
    path = tmp_path / "official.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=r"official\.pth (cannot be read|is no checkpoint of the published)"):
        sak.load_official(path)
    (tmp_path / "x.safetensors").write_bytes(b"{}")
    with pytest.raises(UserError, match=r"x\.safetensors cannot be read"):
        sak.load_official(tmp_path / "x.safetensors")
