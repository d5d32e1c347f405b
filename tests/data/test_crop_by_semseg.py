"""The published crop looks at semseg only where it is a task; an option lets it look at the map in any case."""

import numpy as np
import pytest
import torch
from PIL import Image

from sak import config
from sak.data.nyud import NYUDv2
from sak.data.pascal_context import PascalContext
from sak.distillation.cached_features import build_caches
from sak.errors import UserError
from sak.preflight.survey import survey_archive

SIZE, EPOCHS = (24, 24), 12


@pytest.fixture
def dominated(archive):
    """One class but for a block of others, so that most windows of this size are refused."""
    for name in ("2008_001000", "2008_001001"):
        (path,) = archive.glob(f"semseg/*/{name}.png")
        height, width = np.array(Image.open(path)).shape
        classes = np.zeros((height, width), np.uint8)
        classes[20:44, 20:44] = np.arange(24 * 24).reshape(24, 24) % 20 + 1
        Image.fromarray(classes).save(path)
    return archive


def samples(root, tasks, **options):
    dataset = PascalContext(root, "train", tasks, image_size=SIZE, augment=True, **options)
    for epoch in range(EPOCHS):
        dataset.set_epoch(epoch)
        yield from dataset


def test_the_same_windows_with_and_without_semseg_among_the_tasks(dominated):
    with_semseg = list(samples(dominated, ["saliency", "semseg"]))
    published = list(samples(dominated, ["saliency"]))
    asked = list(samples(dominated, ["saliency"], crop_by_semseg=True))
    different = 0
    for one, other, plain in zip(with_semseg, asked, published, strict=True):
        assert set(other) == {"name", "image", "saliency", "size"}
        assert all(torch.equal(one[key], other[key]) for key in ("image", "saliency"))
        different += not torch.equal(plain["image"], other["image"])
    assert different > EPOCHS // 2


def test_nothing_changes_where_semseg_is_a_task_or_nothing_is_augmented(dominated):
    for one, other in zip(
        samples(dominated, ["semseg"]), samples(dominated, ["semseg"], crop_by_semseg=True), strict=True
    ):
        assert torch.equal(one["image"], other["image"])
    for path in dominated.glob("semseg/*/*.png"):
        path.unlink()
    evaluated = PascalContext(dominated, "train", ["saliency"], image_size=SIZE, crop_by_semseg=True)
    assert set(evaluated[0]) == {"name", "image", "saliency", "size"}


def test_its_files_are_looked_for_by_training_and_doctor(dominated):
    (path,) = dominated.glob("semseg/*/2008_001000.png")
    path.unlink()
    with pytest.raises(UserError, match=r"lacks 1 of its files, .*\(semseg\)"):
        next(samples(dominated, ["saliency"], crop_by_semseg=True))
    settings = config.schema.DataConfig("pascal_context", str(dominated), list(SIZE), ["saliency"], crop_by_semseg=True)
    found = [problem for problem in survey_archive(settings, progress=False).problems if problem.kind == "missing"]
    assert [problem.subject for problem in found] == ["semseg, train"]


def test_a_data_set_without_semseg_says_so(monkeypatch):
    monkeypatch.setattr(NYUDv2, "TASKS", ("depth",))
    with pytest.raises(UserError, match=r"data\.crop_by_semseg is set, but NYUD-v2 has no semseg"):
        NYUDv2.labels_read(["depth"], True)


def test_features_are_cached_apart(tiny, archive, tmp_path):
    """What the crop looks at is part of what the second stage sees."""

    class Teacher(torch.nn.Linear):
        dims = (4,)
        LIBRARIES = ()

        def grid(self, *_):
            return 2, 2

        def changes(self, *_):
            return {}

    def directories(stage, *overrides):
        settings = config.load(tiny, [f"cache.path={tmp_path}/c", "cache.views=1", *overrides])
        caches = build_caches(settings, stage, [archive / "a.jpg"], {"dinov2": teacher})
        return [cache.directory for cache in caches.values()]

    teacher = Teacher(1, 1)
    plain = directories("multitask")
    assert directories("multitask", "data.crop_by_semseg=false") == plain
    assert directories("multitask", "data.crop_by_semseg=true") != plain
    assert directories("multitask", "data.scale=[0.5,2.0]") == plain
    assert directories("multitask", "data.scale=[0.8,1.2]") != plain
    assert directories("distill", "data.crop_by_semseg=true") == directories("distill")
    assert directories("distill", f"stages.distill.images={archive}") != directories(
        "distill"
    )  # these are turned upright
