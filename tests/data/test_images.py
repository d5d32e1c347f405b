import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from sak.data.images import Images, find_images, random_window
from sak.errors import UserError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("b/two.png", "a/deep/one.JPG", "three.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_find_images(folder):
    found = find_images(folder)
    assert [str(path.relative_to(folder)) for path in found] == ["a/deep/one.JPG", "b/two.png", "three.jpeg"]


def test_find_images_without_any(folder):
    with pytest.raises(UserError, match="is not a folder and no tar"):
        find_images(folder / "nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        find_images(folder / "empty")
    with pytest.raises(UserError, match="no images"):
        Images([], (8, 8))


def test_items(folder):
    dataset = Images(find_images(folder), (24, 40))
    assert len(dataset) == 3
    for index, name in enumerate(["one", "two", "three"]):
        item = dataset[index]
        assert set(item) == {"image", "name"}
        assert item["name"] == name
        assert item["image"].dtype == torch.float32
        assert item["image"].shape == (3, 24, 40)
        assert 0 <= item["image"].min() <= item["image"].max() <= 1
    with pytest.raises(IndexError):
        dataset[3]


def test_crops_depend_on_seed_epoch_and_index_alone(folder):
    def items(seed=0, epoch=0, workers=0):
        dataset = Images(find_images(folder), (24, 24), seed)
        dataset.set_epoch(epoch)
        return torch.stack([item["image"] for item in DataLoader(dataset, batch_size=None, num_workers=workers)])

    first = items()
    assert torch.equal(first, items(workers=2))
    assert not torch.equal(first, items(epoch=1))
    assert not torch.equal(first, items(seed=1))


def test_whole_image_or_its_mirror_where_the_crop_is_all(tmp_path):
    gradient = np.broadcast_to(np.linspace(0, 255, 60).astype(np.uint8)[None, :, None], (60, 60, 3))
    Image.fromarray(np.ascontiguousarray(gradient)).save(tmp_path / "gradient.png")
    whole = torch.from_numpy(gradient.transpose(2, 0, 1).copy()).float() / 255
    dataset = Images([tmp_path / "gradient.png"], (60, 60), crop_scale=(1.0, 1.0))
    mirrored = 0
    for epoch in range(40):
        dataset.set_epoch(epoch)
        image = dataset[0]["image"]
        mirrored += torch.equal(image, whole.flip(-1))
        assert torch.equal(image, whole) or torch.equal(image, whole.flip(-1))
    assert 8 < mirrored < 32


def test_windows_have_the_allowed_area_and_ratio():
    rng = np.random.default_rng(0)
    shares, ratios = [], []
    for _ in range(300):
        left, top, right, bottom = random_window((400, 300), rng, (0.08, 1.0))
        assert 0 <= left < right <= 400
        assert 0 <= top < bottom <= 300
        shares.append((right - left) * (bottom - top) / (400 * 300))
        ratios.append((right - left) / (bottom - top))
    assert min(shares) == pytest.approx(0.08, abs=0.03)
    assert max(shares) > 0.8
    assert 3 / 4 - 0.02 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 4 / 3 + 0.02


def test_window_of_an_image_too_long_for_any_ratio():
    assert random_window((1000, 30), np.random.default_rng(0), (0.5, 1.0)) == (480, 0, 520, 30)
    assert random_window((30, 1000), np.random.default_rng(0), (0.5, 1.0)) == (0, 480, 30, 520)
    assert random_window((1, 1), np.random.default_rng(0), (0.08, 1.0)) == (0, 0, 1, 1)


def test_grey_and_transparent_images_become_rgb(tmp_path):
    for mode in ("L", "RGBA", "P", "1"):
        Image.new(mode, (20, 20)).save(tmp_path / f"{mode}.png")
    assert all(
        item["image"].shape == (3, 8, 8) for item in map(Images(find_images(tmp_path), (8, 8)).__getitem__, range(4))
    )


def test_corrupt_images_are_named(folder):
    path = folder / "three.jpeg"
    path.write_bytes(path.read_bytes()[:1000])
    dataset = Images(find_images(folder), (8, 8))
    dataset[0]
    with pytest.raises(UserError, match=f"{path} is corrupt"):
        dataset[2]
