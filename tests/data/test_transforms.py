import cv2
import numpy as np
import pytest
import torch

from sak import data
from sak.data import transforms
from sak.data.transforms import IGNORE

PASCAL, NYUD = data.described("pascal_context"), data.described("nyud")
KNOWN = {name: PASCAL.build(name) for name in PASCAL.tasks} | {"depth": NYUD.build("depth")}
NUM_IDS = 8
NORMALS = np.random.default_rng(0).normal(size=(NUM_IDS, 3)).astype(np.float32)
NORMALS /= np.linalg.norm(NORMALS, axis=1, keepdims=True)


def painted(height=150, width=200, block=25):
    """A sample whose every label can be read off the image's colour: blocks of ids 0..7, red = 30 id."""
    rows, columns = np.arange(height) // block, np.arange(width) // block
    ids = ((3 * rows[:, None] + 5 * columns) % NUM_IDS).astype(np.uint8)
    grey = np.full_like(ids, 99)
    return {
        "name": "painted",
        "image": np.stack([30 * ids, grey, grey], axis=-1),
        "semseg": ids,
        "human_parts": ids % 7,
        "saliency": ids % 2,
        "edge": (ids % 2).astype(np.float32)[..., None],
        "normals": NORMALS[ids],
        "depth": (1.0 + ids).astype(np.float32)[..., None],
        "boundaries": (ids % 2)[..., None],
    }


def agreement(sample, depth_factor=1.0, mirrored=False):
    """The share of pixels on which each label is what the image's colour says, away from the blocks' borders."""
    red = sample["image"][..., 0].astype(np.float32)
    ids = np.rint(red / 30).astype(int)
    # Where interpolation blended two blocks, the neighbourhood holds more than one colour.
    inner = cv2.dilate(red, np.ones((5, 5))) == cv2.erode(red, np.ones((5, 5)))
    assert inner.mean() > 0.3
    normals = NORMALS[ids] * np.float32([-1 if mirrored else 1, 1, 1])
    truth = {
        "semseg": ids,
        "human_parts": ids % 7,
        "saliency": ids % 2,
        "edge": (ids % 2)[..., None],
        "normals": normals,
        "depth": (1.0 + ids)[..., None] / depth_factor,
        "boundaries": (ids % 2)[..., None],
    }
    return {task: np.isclose(sample[task], truth[task], rtol=1e-5)[inner].mean() for task in truth}


@pytest.mark.parametrize("size", [(75, 100), (300, 400), (111, 237), (150, 200)])
def test_resize_keeps_image_and_labels_together(size):
    sample = painted()
    result = transforms.resize(sample, size)
    assert result["image"].shape == (*size, 3)
    assert result["image"].dtype == np.uint8
    assert all(share == 1 for share in agreement(result).values())
    np.testing.assert_allclose(np.linalg.norm(result["normals"], axis=-1), 1, atol=1e-6)


def test_nearest_samples_at_pixel_centres():
    label = np.arange(6, dtype=np.int32)[None]
    np.testing.assert_array_equal(transforms.resize_nearest(label, (1, 3)), [[1, 3, 5]])
    np.testing.assert_array_equal(transforms.resize_nearest(label, (2, 12))[1], np.repeat(np.arange(6), 2))
    symmetric = np.array([[0, 1, 2, 2, 1, 0]])
    shrunk = transforms.resize_nearest(symmetric, (1, 4))
    np.testing.assert_array_equal(shrunk, [[0, 2, 2, 0]])


def test_random_scale_divides_depth_and_keeps_what_is_ignored():
    sample = painted()
    sample["depth"][:10] = IGNORE
    factors = []
    for seed in range(8):
        result = transforms.random_scale(sample, np.random.default_rng(seed), KNOWN)
        factor = np.random.default_rng(seed).uniform(0.5, 2)
        factors.append(factor)
        assert result["image"].shape[:2] == (round(150 * factor), round(200 * factor))
        ignored = result["depth"] == IGNORE
        assert ignored.mean() == pytest.approx(10 / 150, abs=0.01)
        depth = np.where(ignored, (1.0 + result["semseg"][..., None]) / factor, result["depth"])
        assert all(share == 1 for share in agreement({**result, "depth": depth}, depth_factor=factor).values())
    assert min(factors) < 0.8
    assert max(factors) > 1.5


@pytest.mark.parametrize("size", [(1, 60), (60, 1)])
def test_of_a_line_of_pixels_one_is_left(size):
    thin = {"image": np.zeros((*size, 3), np.uint8), "semseg": np.zeros(size, np.uint8)}
    for result in (
        transforms.random_scale(thin, np.random.default_rng(0), KNOWN, low=0.1, high=0.1),
        transforms.fit(thin, (6, 6)),
    ):
        assert result["semseg"].shape == result["image"].shape[:2] == tuple(6 if side == 60 else 1 for side in size)


def test_flip_mirrors_everything_and_negates_the_normals_x():
    sample = painted()
    sample["normals"][:20] = IGNORE
    result = transforms.flip(sample, KNOWN)
    np.testing.assert_array_equal(result["image"], sample["image"][:, ::-1])
    assert (result["normals"][:20] == IGNORE).all()
    np.testing.assert_array_equal(result["normals"][20:, :, 0], -sample["normals"][20:, ::-1, 0])
    np.testing.assert_array_equal(result["normals"][20:, :, 1:], sample["normals"][20:, ::-1, 1:])
    del sample["normals"]
    for task in transforms.labels(sample):
        np.testing.assert_array_equal(result[task], sample[task][:, ::-1])


def test_random_flip_flips_half():
    sample = painted(30, 40)
    rng = np.random.default_rng(0)
    flipped = [transforms.random_flip(sample, rng, KNOWN)["image"] is not sample["image"] for _ in range(200)]
    assert 70 < sum(flipped) < 130


def test_crop_cuts_the_same_window_from_all():
    sample = painted()
    for seed in range(5):
        result = transforms.random_crop(sample, np.random.default_rng(seed), (60, 80))
        assert result["image"].shape == (60, 80, 3)
        assert all(share == 1 for share in agreement(result).values())


def test_crop_takes_all_of_an_axis_that_is_too_short():
    result = transforms.random_crop(painted(), np.random.default_rng(0), (400, 80))
    assert result["image"].shape == (150, 80, 3)


def dominated(columns):
    """Class 0 but for some columns of class 1 at the right and a band of ignored rows below."""
    sample = painted(100, 400)
    sample["semseg"][:] = 0
    sample["semseg"][:, 400 - columns :] = 1
    sample["semseg"][50:] = IGNORE
    return sample


def test_crop_avoids_windows_that_one_class_fills():
    sample = dominated(columns=100)

    def shares(**kwargs):
        for seed in range(60):
            classes = transforms.random_crop(sample, np.random.default_rng(seed), (100, 100), **kwargs)["semseg"]
            counts = np.bincount(classes[classes != IGNORE])
            yield counts.max() / counts.sum()

    # A window that begins anywhere in 0..300 is fine if it begins in 225..275: one in six, so few fail ten times.
    assert np.mean([share > 0.75 for share in shares()]) < 0.35
    assert np.mean([share > 0.75 for share in shares(tries=1)]) > 0.65


def test_crop_gives_up_after_ten_tries():
    for sample in (dominated(columns=0), {**dominated(0), "semseg": np.full((100, 400), IGNORE, dtype=np.uint8)}):
        result = transforms.random_crop(sample, np.random.default_rng(0), (50, 50))
        assert result["image"].shape == (50, 50, 3)


def test_photometric_distortion_changes_colours_only():
    sample = painted()
    different = 0
    for seed in range(20):
        result = transforms.photometric_distortion(sample, np.random.default_rng(seed))
        image = result.pop("image")
        assert image.dtype == np.float32
        assert image.min() >= 0
        assert image.max() <= 255
        different += not np.allclose(image, sample["image"], atol=1)
        assert all(result[key] is sample[key] for key in result)
    assert different >= 15


class Scripted:
    """A generator that says yes where it is told to, and draws the lower or the upper end of each range."""

    def __init__(self, yes, high):
        self.answers, self.high, self.ranges = [0.499 if answer else 0.5 for answer in yes], high, []

    def random(self):
        return self.answers.pop(0)

    def uniform(self, low, high):
        self.ranges.append((low, high))
        return high if self.high else low


BRIGHTNESS, CONTRAST, FIRST, SATURATION, HUE = range(5)  # what is asked, in this order


@pytest.mark.parametrize(
    ("yes", "high", "colour", "expected", "ranges"),
    [
        ([], True, (200, 100, 50), (200, 100, 50), []),
        ([FIRST], True, (200, 100, 50), (200, 100, 50), []),
        ([BRIGHTNESS], True, (250, 100, 0), (255, 132, 32), [(-32, 32)]),
        ([BRIGHTNESS], False, (250, 100, 0), (218, 68, 0), [(-32, 32)]),
        ([CONTRAST, FIRST], True, (200, 100, 50), (255, 150, 75), [(0.5, 1.5)]),
        ([CONTRAST], False, (200, 100, 50), (100, 50, 25), [(0.5, 1.5)]),
        # Red at half of its saturation, S = 1/2: the others are V (1 - S).
        ([SATURATION], False, (200, 100, 100), (200, 150, 150), [(0.5, 1.5)]),
        ([SATURATION], True, (200, 100, 100), (200, 50, 50), [(0.5, 1.5)]),
        # 36 of the 60 degrees from red to yellow, and to magenta.
        ([HUE], True, (255, 0, 0), (255, 153, 0), [(-36, 36)]),
        ([HUE], False, (255, 0, 0), (255, 0, 153), [(-36, 36)]),
        # What contrast cuts off at white is gone for the saturation, or still there.
        ([CONTRAST, FIRST, SATURATION], True, (200, 150, 150), (255, 210, 210), [(0.5, 1.5), (0.5, 1.5)]),
        ([CONTRAST, SATURATION], True, (200, 150, 150), (255, 187.5, 187.5), [(0.5, 1.5), (0.5, 1.5)]),
    ],
)
def test_photometric_distortion_by_hand(yes, high, colour, expected, ranges):
    rng = Scripted([number in yes for number in range(5)], high)
    image = np.full((2, 3, 3), colour, dtype=np.uint8)
    result = transforms.photometric_distortion({"image": image}, rng)["image"]
    np.testing.assert_allclose(result, np.broadcast_to(np.float32(expected), result.shape), atol=0.6)
    assert (rng.ranges, rng.answers) == (ranges, [])


def test_photometric_distortion_leaves_grey_grey_in_hue():
    sample = {"image": np.full((8, 8, 3), 128, dtype=np.uint8)}
    for seed in range(20):
        image = transforms.photometric_distortion(sample, np.random.default_rng(seed))["image"]
        np.testing.assert_allclose(image, image[..., :1].repeat(3, -1), atol=1e-3)


@pytest.mark.parametrize(
    ("size", "expected"), [((100, 100), (75, 100)), ((60, 400), (60, 80)), ((150, 200), (150, 200))]
)
def test_fit_shrinks_to_the_canvas(size, expected):
    sample = painted()
    result = transforms.fit(sample, size)
    assert result["image"].shape[:2] == expected
    assert all(share == 1 for share in agreement(result).values())


def test_fit_never_enlarges():
    sample = painted()
    assert transforms.fit(sample, (500, 500)) is sample


def test_pad_centres_on_the_mean_colour():
    sample = painted(57, 85, block=5)
    result = transforms.pad(sample, (96, 96))
    assert result["size"] == (57, 85)
    assert transforms.margins((57, 85), (96, 96)) == (19, 5)
    window = np.s_[19 : 19 + 57, 5 : 5 + 85]
    padding = np.ones((96, 96), dtype=bool)
    padding[window] = False
    np.testing.assert_array_equal(result["image"][window], sample["image"])
    np.testing.assert_allclose(result["image"][padding] / 255, [(0.485, 0.456, 0.406)] * padding.sum(), atol=1e-6)
    for task in transforms.labels(sample):
        np.testing.assert_array_equal(result[task][window], sample[task])
        assert (result[task][padding] == IGNORE).all()
        assert result[task].dtype == sample[task].dtype


def test_images_without_parts_are_ignored():
    sample = painted()
    unchanged = transforms.ignore_empty(sample, KNOWN)
    assert all(unchanged[key] is sample[key] for key in sample)
    parts = np.zeros((4, 4), dtype=np.uint8)
    parts[0] = IGNORE
    assert (transforms.ignore_empty({"human_parts": parts}, KNOWN)["human_parts"] == IGNORE).all()
    assert (parts[1:] == 0).all()


def test_to_tensors():
    result = transforms.to_tensors(painted(20, 30, block=3))
    layouts = {key: (value.dtype, tuple(value.shape)) for key, value in result.items() if torch.is_tensor(value)}
    assert layouts == {
        "image": (torch.float32, (3, 20, 30)),
        "semseg": (torch.int64, (20, 30)),
        "human_parts": (torch.int64, (20, 30)),
        "saliency": (torch.int64, (20, 30)),
        "edge": (torch.float32, (1, 20, 30)),
        "normals": (torch.float32, (3, 20, 30)),
        "depth": (torch.float32, (1, 20, 30)),
        "boundaries": (torch.uint8, (1, 20, 30)),
    }
    assert float(result["image"].max()) == pytest.approx(210 / 255)
    assert result["name"] == "painted"


def test_recipe_is_determined_by_the_generator_and_leaves_its_input():
    sample = painted()
    copy = {key: value.copy() for key, value in sample.items() if key != "name"}
    one, two, other = (
        transforms.for_training(sample, np.random.default_rng(seed), (96, 128), KNOWN) for seed in (1, 1, 2)
    )
    assert all((sample[key] == copy[key]).all() for key in copy)
    assert all(torch.equal(one[key], two[key]) for key in copy)
    assert not torch.equal(one["image"], other["image"])
    assert one["image"].shape == (3, 96, 128)
    assert 0 <= one["image"].min() <= one["image"].max() <= 1
