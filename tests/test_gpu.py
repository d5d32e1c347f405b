"""That a GPU computes what a CPU does: `pytest -m gpu`, on a machine that has one."""

import copy
import json
import math
import warnings

import pytest
import torch
from torch.utils._pytree import tree_leaves

import teachers
from sak import Student, config
from sak.bundles.build import build_tasks
from sak.bundles.bundle import load_bundle
from sak.distillation import losses
from sak.evaluation.distributed import bf16_is_fast
from sak.training import objectives
from sak.training.compiling import compiled
from sak.training.train import train

DEVICE = torch.device("cuda")
TASKS = {"semseg": 21, "human_parts": 7, "saliency": 2, "normals": 3, "edge": 1}
OPTIONS = {"patch_size": 16, "embed_dim": 64, "depth": 4, "num_heads": 2}

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]


@pytest.fixture(autouse=True)
def exact_products():
    """Without TF32."""
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def student():
    return Student("vit_tiny_patch16_384", (64, 64), TASKS, {"a": [24] * 4, "b": [32] * 4}, range(4), OPTIONS)


def close(found, expected, most):
    return (found.cpu().float() - expected).norm() / expected.norm() < most


def outputs(student, images):
    output = student(images)
    return [*output.predictions.values(), *(level for levels in output.paths.values() for level in levels)]


def test_a_student_and_its_gradients(student):
    images = torch.rand(2, 3, 64, 64)
    student.eval()  # whose gates draw no noise
    same = copy.deepcopy(student).to(DEVICE)
    for model, device in ((student, "cpu"), (same, DEVICE)):
        sum(maps.square().mean() for maps in outputs(model, images.to(device))).backward()
    found = outputs(same, images.to(DEVICE))
    assert all(close(ours, its, 1e-4) for ours, its in zip(found, outputs(student, images), strict=True))
    pairs = zip(same.parameters(), student.parameters(), strict=True)
    assert all(close(ours.grad, its.grad, 1e-3) for ours, its in pairs if its.grad is not None and its.grad.norm() > 0)
    with torch.autocast("cuda", torch.bfloat16):
        rounded = outputs(same, images.to(DEVICE))
    assert all(close(ours, its, 0.05) for ours, its in zip(rounded, outputs(student, images), strict=True))


@pytest.mark.parametrize(
    ("family", "model", "options"),
    [
        ("dinov2", "vit_small_patch14_dinov2", {"img_size": 64, "patch_size": 16, "embed_dim": 24, "depth": 2}),
        ("clip", "ViT-B-16", {"image_size": 64, "patch_size": 16, "width": 32, "layers": 2, "head_width": 16}),
        ("sam", "vit_b", {"img_size": 64, "patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}),
    ],
)
def test_teachers(family, model, options):
    options |= {"num_heads": 2} if family == "dinov2" else {}
    options |= {"global_attn_indexes": [1], "window_size": 2} if family == "sam" else {}
    spec = {"family": family, "model": model, "weights": "random", "levels": [0, 1], "options": options}
    teacher = teachers.build(family, spec)
    images = torch.rand(2, 3, 64, 64)
    expected = teacher(images)
    found = teacher.to(DEVICE)(images.to(DEVICE))
    assert all(close(ours, its, 1e-4) for ours, its in zip(found, expected, strict=True))


def test_losses_predictions_and_metrics(tiny):
    tasks = build_tasks(config.load(tiny).data)
    generator = torch.Generator().manual_seed(0)
    for name, task in tasks.items():
        maps = torch.randn(2, TASKS[name], 32, 32, generator=generator)
        if name == "normals":
            label = torch.nn.functional.normalize(torch.randn(2, 3, 32, 32, generator=generator), dim=1)
        elif name == "edge":
            label = torch.randint(0, 2, (2, 1, 32, 32), generator=generator).float()
        else:
            label = torch.randint(0, TASKS[name], (2, 32, 32), generator=generator)
        assert task.loss(maps.to(DEVICE), label.to(DEVICE)).item() == pytest.approx(task.loss(maps, label).item(), 1e-4)
        assert close(task.predict(maps.to(DEVICE)).float(), task.predict(maps).float(), 1e-5)
        if name != "edge":
            ours, its = task.new_metric(), task.new_metric()
            ours.update(task.predict(maps.to(DEVICE)), label.to(DEVICE))
            its.update(task.predict(maps), label)
            found, expected = ([float(value) for value in tree_leaves(each.compute())] for each in (ours, its))
            assert found == pytest.approx(expected, rel=1e-4)
    paths = {"a": [torch.randn(2, 24, 4, 4, generator=generator)]}
    features = {"a": [torch.randn(2, 24, 4, 4, generator=generator)]}
    moved = ({name: [x.to(DEVICE) for x in levels] for name, levels in maps.items()} for maps in (paths, features))
    found, expected = losses.distillation_terms(*moved), losses.distillation_terms(paths, features)
    assert losses.total(found).item() == pytest.approx(losses.total(expected).item(), rel=1e-5)


def test_a_run_in_bf16_that_goes_on(tiny, train_until_killed, tmp_path):
    assert bf16_is_fast(DEVICE)
    changes = ["precision=auto", "stages.multitask.checkpoint_every=1", f"cache.path={tmp_path}/cache", "cache.views=1"]
    settings = config.load(tiny, changes)
    train_until_killed(settings, "multitask")
    run = train(settings)
    assert config.load(run.config_file).precision == "bf16"
    metrics = json.loads((run.path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics
    student = load_bundle(run.path / "student")
    predictions = student(torch.rand(1, 3, 96, 96)).predictions.values()
    assert all(math.isfinite(maps.sum().item()) for maps in predictions)


def test_compiled_training(student):
    student.to(DEVICE).train()
    objectives.choose_trained_weights(student, "multitask", distils=False)

    def objective(model, batch):
        return sum(maps.square().mean() for maps in model(batch["image"]).predictions.values()), {}

    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="compile=true")  # others are torch's, and advise
        faster = compiled(objective, student, (2, 3, 64, 64), predicts=True)
    assert faster is not objective
    student.eval()
    batch = {"image": torch.rand(2, 3, 64, 64, device=DEVICE)}
    assert faster(student, batch)[0].item() == pytest.approx(objective(student, batch)[0].item(), rel=1e-3)
