import numpy as np
import pytest
import torch
from PIL import Image

from sak.data.nyud import NYUDv2
from sak.errors import UserError
from sak.metrics.boundary import boundary_map

HEIGHT, WIDTH = 40, 60


@pytest.fixture
def root(tmp_path):
    """Two training images and one of validation, with the arrays that were stored."""
    rng = np.random.default_rng(0)
    for folder in ("images", "gt_sets", "segmentation", "normals", "edge", "depth"):
        (tmp_path / folder).mkdir()
    (tmp_path / "gt_sets/train.txt").write_text("0003\n0007\n")
    (tmp_path / "gt_sets/val.txt").write_text("0001\n")
    for name in ("0001", "0003", "0007"):
        classes = np.repeat(np.repeat(rng.integers(0, 41, (4, 6)), 10, 0), 10, 1).astype(np.uint8)
        classes[:10, :10], classes[10:20, :10] = 0, 40
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(tmp_path / f"images/{name}.png")
        Image.fromarray(classes).save(tmp_path / f"segmentation/{name}.png")
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(tmp_path / f"normals/{name}.png")
        Image.fromarray(255 * boundary_map(classes).astype(np.uint8)).save(tmp_path / f"edge/{name}.png")
        depth = rng.uniform(0.7, 9.9, (HEIGHT, WIDTH)).astype(np.float32)
        depth[-5:] = 0
        np.save(tmp_path / f"depth/{name}.npy", depth)
    return tmp_path


def stored(root, name):
    return {
        folder: np.array(Image.open(root / f"{folder}/{name}.png"))
        for folder in ("images", "segmentation", "normals", "edge")
    }


def test_values(root):
    dataset = NYUDv2(root, "val", image_size=(HEIGHT, WIDTH))
    assert dataset.TASKS == ("semseg", "normals", "edge", "depth")
    sample, files = dataset[0], stored(root, "0001")
    np.testing.assert_allclose(sample["image"].numpy().transpose(1, 2, 0), files["images"] / 255, atol=1e-6)
    expected = np.where(files["segmentation"] == 0, 255, files["segmentation"].astype(int) - 1)
    np.testing.assert_array_equal(sample["semseg"].numpy(), expected)
    assert {0, 39, 255} >= set(np.unique(expected)) & {0, 39, 40, 255}
    normals = (2 * files["normals"].astype(np.float32) / 255 - 1).transpose(2, 0, 1)
    np.testing.assert_allclose(sample["normals"].numpy(), normals, atol=1e-6)
    np.testing.assert_array_equal(sample["edge"][0].numpy(), files["edge"] / 255)
    depth = np.load(root / "depth/0001.npy")
    np.testing.assert_array_equal(sample["depth"][0].numpy(), np.where(depth == 0, 255, depth))
    np.testing.assert_array_equal(sample["boundaries"][0].numpy(), boundary_map(files["edge"]))
    assert [sample[key].dtype for key in ("semseg", "normals", "edge", "depth", "boundaries")] == [
        torch.int64,
        torch.float32,
        torch.float32,
        torch.float32,
        torch.uint8,
    ]


def test_default_canvas(root):
    sample = NYUDv2(root, "train")[0]
    assert sample["image"].shape == (3, 448, 576)
    assert sample["size"] == (HEIGHT, WIDTH)


def test_augmentation_scales_depth(root):
    dataset = NYUDv2(root, "train", ["depth"], image_size=(100, 140), augment=True)
    for epoch in range(6):
        dataset.set_epoch(epoch)
        sample = dataset[1]
        assert sample["size"] != (HEIGHT, WIDTH)
        factor = sample["size"][0] / HEIGHT
        depth = np.load(root / "depth/0007.npy")
        valid = sample["depth"][sample["depth"] != 255]
        assert float(valid.max()) == pytest.approx(depth.max() / factor, rel=0.05)
        assert float(valid.min()) == pytest.approx(depth[depth > 0].min() / factor, rel=0.05)


def test_classes_out_of_range_are_named(root):
    path = root / "segmentation/0003.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 41, dtype=np.uint8)).save(path)
    with pytest.raises(UserError, match=f"{path} holds the value 41"):
        NYUDv2(root, "train", image_size=(HEIGHT, WIDTH))[0]


def test_corrupt_depth_is_named(root):
    path = root / "depth/0003.npy"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match=f"{path} is corrupt"):
        NYUDv2(root, "train", image_size=(HEIGHT, WIDTH))[0]
    np.save(path, np.zeros((3, HEIGHT, WIDTH)))
    with pytest.raises(UserError, match=rf"{path} has shape \(3, {HEIGHT}, {WIDTH}\)"):
        NYUDv2(root, "train", image_size=(HEIGHT, WIDTH))[0]


def test_missing_files_are_named(root):
    (root / "depth/0007.npy").unlink()
    with pytest.raises(UserError, match=r"^NYUD-v2 \(train\) lacks 1 of its files.*depth/0007\.npy \(depth\)"):
        NYUDv2(root, "train")
    NYUDv2(root, "train", ["semseg", "normals", "edge"])
    with pytest.raises(UserError, match="no task 'saliency'"):
        NYUDv2(root, "train", ["saliency"])
