import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

from sak.data.images import Images, find_images, random_window, read_window
from sak.data.reading import to_rgb
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


def waves(height, width):
    """A picture that differs everywhere, and is smooth enough for JPEG and for being shrunk."""
    y, x = np.mgrid[:height, :width]
    channels = [np.sin(x / 150), np.cos(y / 130), np.sin((x + 2 * y) / 300)]
    return (127.5 + 120 * np.stack(channels, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("box", [(0, 0, 300, 200), (40, 30, 280, 190), (100, 100, 140, 130)])
def test_windows_are_resized_as_pillow_does_to_within_a_level(tmp_path, box):
    pixels = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    expected = Image.fromarray(pixels).crop(box).resize((96, 64), Image.Resampling.BICUBIC)
    found = read_window(tmp_path / "noise.png", lambda size: box, (64, 96), upright=False)
    assert found.dtype == torch.uint8
    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize(("orientation", "shown"), [(1, (1200, 900)), (6, (900, 1200)), (8, (900, 1200))])
@pytest.mark.parametrize(("side", "decoded"), [(64, 8), (200, 4), (300, 2), (500, 1)])
def test_large_jpegs_are_decoded_no_larger_than_they_are_needed(
    tmp_path, monkeypatch, orientation, shown, side, decoded
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(waves(900, 1200)).save(tmp_path / "large.jpg", quality=95, exif=exif)
    sizes = []
    monkeypatch.setattr(
        "sak.data.images.to_rgb", lambda *given: sizes.append(to_rgb(*given).shape[:2]) or to_rgb(*given)
    )
    seen = []
    box = (30, 50, 30 + 800, 50 + 820)
    found = read_window(tmp_path / "large.jpg", lambda size: seen.append(size) or box, (side, side), upright=True)
    assert seen == [shown]
    assert sizes == [(-(-shown[1] // decoded), -(-shown[0] // decoded))]
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "large.jpg"))
    expected = np.asarray(upright.crop(box).resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(found.permute(1, 2, 0).numpy() - expected).mean() < 2  # of 255; half a pixel of the smaller image


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
