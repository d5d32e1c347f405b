import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sak.data.pascal_context import PascalContext
from sak.data.transforms import margins
from sak.errors import UserError
from sak.metrics.boundary import boundary_map

FIXTURE = Path(__file__).parents[1] / "fixtures/pascal_format"
ROOT = FIXTURE / "PASCALContext"
PUBLISHED_NAMES = {"saliency": "sal"}
MEAN = np.float32([0.485, 0.456, 0.406])[:, None, None]
STD = np.float32([0.229, 0.224, 0.225])[:, None, None]


@pytest.fixture
def copy(tmp_path):
    return Path(shutil.copytree(ROOT, tmp_path / "PASCALContext"))


def expected_arrays(split):
    with np.load(FIXTURE / f"expected_{split}.npz") as file:
        return dict(file)


@pytest.mark.parametrize("split", ["train", "val"])
def test_equals_the_published_loader(split):
    expected = expected_arrays(split)
    dataset = PascalContext(ROOT, split, image_size=(96, 96))
    assert len(dataset) == 2
    for sample in (dataset[i] for i in range(len(dataset))):
        for task in PascalContext.TASKS:
            theirs = expected[f"{sample['name']}/eval_96x96/{PUBLISHED_NAMES.get(task, task)}"]
            np.testing.assert_array_equal(sample[task].numpy().reshape(theirs.shape), theirs)
        image = (sample["image"].numpy() - MEAN) / STD
        np.testing.assert_allclose(image, expected[f"{sample['name']}/eval_96x96/image"], atol=1 / 255 / 0.22)


@pytest.mark.parametrize("split", ["train", "val"])
def test_equals_the_published_maps_before_padding(split):
    expected = expected_arrays(split)
    for name in PascalContext(ROOT, split).names:
        size = expected[f"{name}/image"].shape[:2]
        dataset = PascalContext(ROOT, split, image_size=size)
        sample = dataset[dataset.names.index(name)]
        assert sample["size"] == size
        for task in PascalContext.TASKS:
            theirs = expected[f"{name}/{PUBLISHED_NAMES.get(task, task)}"]
            ours = sample[task].numpy()
            ours = ours[..., None] if ours.ndim == 2 else ours.transpose(1, 2, 0)
            if task == "normals":  # the published loader marks invalid pixels by null vectors at first
                ours = np.where(ours == 255, 0, ours)
            if task == "human_parts" and not theirs.any():
                assert (ours == 255).all()
            else:
                np.testing.assert_array_equal(ours, theirs)


def test_boundaries_are_those_of_the_label_map():
    dataset = PascalContext(ROOT, "val", image_size=(96, 112))
    for sample in (dataset[i] for i in range(len(dataset))):
        (height, width), (top, left) = sample["size"], margins(sample["size"], (96, 112))
        classes = scipy.io.loadmat(ROOT / f"pascal-context/trainval/{sample['name']}.mat")["LabelMap"]
        boundaries = sample["boundaries"][0].numpy()
        assert sample["boundaries"].dtype == torch.uint8
        inside = boundaries[top : top + height, left : left + width]
        np.testing.assert_array_equal(inside, boundary_map(classes))
        assert set(np.unique(inside)) == {0, 1}
        boundaries[top : top + height, left : left + width] = 255
        assert (boundaries == 255).all()


def test_boundaries_stay_whole_when_the_image_is_shrunk():
    full = PascalContext(ROOT, "val", ["edge"], image_size=(60, 90))[0]["boundaries"] == 1
    half = PascalContext(ROOT, "val", ["edge"], image_size=(30, 45))[0]["boundaries"] == 1
    assert int(half.sum()) == pytest.approx(int(full.sum()) / 2, rel=0.15)


def test_only_unaugmented_images_have_boundaries():
    assert "boundaries" in PascalContext(ROOT, "train", image_size=(96, 96))[0]
    assert "boundaries" not in PascalContext(ROOT, "train", image_size=(96, 96), augment=True)[0]
    assert "boundaries" not in PascalContext(ROOT, "val", image_size=(96, 96), augment=True)[0]
    assert "boundaries" not in PascalContext(ROOT, "val", ["semseg"], image_size=(96, 96))[0]


def test_larger_images_are_shrunk_to_the_canvas():
    sample = PascalContext(ROOT, "train", image_size=(28, 64))[0]  # 56 x 82
    assert sample["size"] == (28, 41)
    assert sample["image"].shape == (3, 28, 64)
    assert set(sample["semseg"].unique().tolist()) <= {0, 9, 15, 255}


def test_reads_only_what_the_tasks_need(copy):
    for folder in ("human_parts", "sal_distill", "normals_distill", "json", "pascal-context"):
        shutil.rmtree(copy / folder)
    sample = PascalContext(copy, "train", ["semseg"], image_size=(96, 96))[0]
    assert set(sample) == {"name", "image", "semseg", "size"}


def test_never_writes_into_the_archive(copy):
    before = sorted((path, path.stat().st_mtime_ns) for path in copy.rglob("*"))
    for split in ("train", "val"):
        dataset = PascalContext(copy, split, image_size=(96, 96), augment=split == "train")
        list(DataLoader(dataset, batch_size=2))
    assert sorted((path, path.stat().st_mtime_ns) for path in copy.rglob("*")) == before


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    def items(seed=0, epoch=0, workers=0):
        dataset = PascalContext(ROOT, "train", image_size=(64, 64), augment=True, seed=seed)
        dataset.set_epoch(epoch)
        return torch.stack([sample["image"] for sample in DataLoader(dataset, batch_size=None, num_workers=workers)])

    first = items()
    assert torch.equal(first, items())
    assert torch.equal(first, items(workers=2))
    assert not torch.equal(first, items(epoch=1))
    assert torch.equal(items(epoch=1), items(epoch=1, workers=1))
    assert not torch.equal(first, items(seed=1))
    dataset = PascalContext(ROOT, "train", image_size=(64, 64), augment=True)
    assert torch.equal(dataset[1]["image"], first[1])  # whatever was read before


def test_augmented_samples_have_the_canvas_size_and_valid_labels():
    dataset = PascalContext(ROOT, "train", image_size=(64, 80), augment=True)
    for epoch in range(4):
        dataset.set_epoch(epoch)
        for sample in (dataset[i] for i in range(len(dataset))):
            assert sample["image"].shape == (3, 64, 80)
            assert 0 <= sample["image"].min() <= sample["image"].max() <= 1
            assert set(sample["semseg"].unique().tolist()) <= {0, 9, 15, 255}
            assert set(sample["edge"].unique().tolist()) <= {0, 1, 255}
            valid = (sample["normals"] != 255).all(0)
            assert valid.any()
            lengths = sample["normals"].norm(dim=0)[valid]
            assert (lengths - 1).abs().max() < 0.02


def test_names_and_image_files():
    dataset = PascalContext(ROOT, "val")
    assert dataset.names == ["2008_001002", "2008_001003"]
    assert dataset.image_files == [ROOT / f"JPEGImages/{name}.jpg" for name in dataset.names]
    assert dataset[-1]["name"] == "2008_001003"
    with pytest.raises(IndexError):
        dataset[2]


def test_unknown_task_and_split():
    with pytest.raises(UserError, match=r"no task 'depth'.*semseg, human_parts, saliency, normals, edge"):
        PascalContext(ROOT, "train", ["semseg", "depth"])
    with pytest.raises(UserError, match="no split 'test'"):
        PascalContext(ROOT, "test")


def test_images_without_any_annotated_object(copy):
    annotation = np.empty((1, 1), dtype=[("imname", object), ("objects", object)])
    annotation[0, 0] = ("2008_001000", np.zeros((0, 0)))
    scipy.io.savemat(copy / "human_parts/2008_001000.mat", {"anno": annotation})
    sample = PascalContext(copy, "train", ["human_parts"], image_size=(96, 96))[0]
    assert (sample["human_parts"] == 255).all()


def test_missing_root_and_list(copy):
    with pytest.raises(UserError, match=r"nowhere.*data\.root"):
        PascalContext(copy / "nowhere")
    (copy / "ImageSets/Context/val.txt").write_text("\n")
    with pytest.raises(UserError, match=r"val\.txt lists no image"):
        PascalContext(copy, "val")
    (copy / "ImageSets/Context/val.txt").unlink()
    with pytest.raises(UserError, match=r"val\.txt.*is missing"):
        PascalContext(copy, "val")


def test_missing_files_are_counted_and_the_first_is_named(copy):
    (copy / "semseg/VOC12/2008_001000.png").unlink()
    (copy / "semseg/pascal-context/2008_001001.png").unlink()
    (copy / "pascal-context/trainval/2008_001001.mat").unlink()  # of normals and of edge, but one file
    with pytest.raises(UserError) as error:
        PascalContext(copy, "train")
    message = str(error.value)
    assert message.startswith("PASCAL-Context (train) lacks 3 of its files")
    assert f"{copy}/semseg/VOC12/2008_001000.png, or {copy}/semseg/pascal-context/2008_001000.png (semseg)" in message
    PascalContext(copy, "val")


def test_missing_folder_is_missing_files(copy):
    shutil.rmtree(copy / "sal_distill")
    with pytest.raises(UserError, match=r"lacks 2 of.*sal_distill/2008_001000\.png \(saliency\)"):
        PascalContext(copy, "train")


@pytest.mark.parametrize(
    ("file", "task"),
    [
        ("JPEGImages/2008_001000.jpg", "semseg"),
        ("semseg/VOC12/2008_001000.png", "semseg"),
        ("human_parts/2008_001000.mat", "human_parts"),
        ("pascal-context/trainval/2008_001000.mat", "edge"),
        ("normals_distill/2008_001000.png", "normals"),
        ("json/nyu_classes.json", "normals"),
    ],
)
@pytest.mark.parametrize("share", [0, 0.5])
def test_corrupt_files_are_named(copy, file, task, share):
    path = copy / file
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    dataset = PascalContext(copy, "train", [task], image_size=(96, 96))
    with pytest.raises(UserError, match=str(path)):
        dataset[0]


def test_values_out_of_range_are_named(copy):
    path = copy / "semseg/VOC12/2008_001000.png"
    classes = np.array(Image.open(path))
    classes[3, 4] = 37
    Image.fromarray(classes).save(path)
    with pytest.raises(UserError, match=rf"{path} holds the value 37.*21 classes"):
        PascalContext(copy, "train", ["semseg"], image_size=(96, 96))[0]


def test_colours_instead_of_classes_are_named(copy):
    path = copy / "semseg/VOC12/2008_001000.png"
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(UserError, match=rf"{path} has 3 channels"):
        PascalContext(copy, "train", ["semseg"], image_size=(96, 96))[0]


def test_palette_images_are_read_as_indices(copy):
    path = copy / "semseg/VOC12/2008_001000.png"
    before = PascalContext(copy, "train", ["semseg"], image_size=(96, 96))[0]["semseg"]
    image = Image.fromarray(np.array(Image.open(path)), mode="P")
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
    image.save(path)
    assert Image.open(path).mode == "P"
    after = PascalContext(copy, "train", ["semseg"], image_size=(96, 96))[0]["semseg"]
    assert torch.equal(before, after)


def test_parts_of_another_size_are_named(copy):
    shutil.copy(ROOT / "human_parts/2008_001001.mat", copy / "human_parts/2008_001000.mat")
    with pytest.raises(UserError, match=r"human_parts/2008_001000\.mat holds a mask of \(58, 85\)"):
        PascalContext(copy, "train", ["human_parts"], image_size=(96, 96))[0]


@pytest.mark.parametrize("augment", [False, True])
def test_labels_of_another_size_are_named(copy, augment):
    path = copy / "sal_distill/2008_001000.png"
    Image.open(path).resize((20, 20)).save(path)
    with pytest.raises(UserError, match=rf"{path} is \(20, 20\).*JPEGImages/2008_001000\.jpg is \(56, 82\)"):
        PascalContext(copy, "train", ["saliency"], image_size=(96, 96), augment=augment)[0]
