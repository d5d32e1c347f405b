import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from sak.plotting import GAP, PAGE, copy_small, heat_map, pixels, save, tiled, weight_bar, weight_map


def test_a_saved_picture_has_all_of_its_colours(tmp_path):
    """Neither a palette nor dithering: a gradient keeps each of its pixels."""
    gradient = np.stack(np.broadcast_arrays(np.arange(256)[:, None], np.arange(256)[None], 7), axis=-1).astype(np.uint8)
    save(gradient, tmp_path / "gradient.png")
    with Image.open(tmp_path / "gradient.png") as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.array(image), gradient)
    figure = Figure(figsize=(2, 2))
    figure.subplots().imshow(gradient, interpolation="nearest")
    save(figure, tmp_path / "figure.png")
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "figure.png")), pixels(figure))


def test_a_copy_is_small_where_a_palette_makes_it_so_and_near_in_any_case(tmp_path):
    """Of lines with soft edges and one rare colour; and of noise, whose palette would be larger than three pixels."""
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot(np.random.default_rng(0).normal(size=(40, 5)).cumsum(0))
    drawn = pixels(figure).copy()
    drawn[:3, :3] = (250, 0, 240)
    for name, picture, smaller in (("lines", drawn, True), ("dots", drawn[:1, :3], False)):
        save(picture, tmp_path / f"{name}.png")
        copy_small(tmp_path / f"{name}.png", tmp_path / "copy.png")
        with Image.open(tmp_path / "copy.png") as image:
            copied = np.array(image.convert("RGB"), int)
        assert np.abs(copied - picture).max() < 40
        assert np.abs(copied - picture).mean() < 1
        np.testing.assert_array_equal(copied[0, :3], picture[0, :3])
        sizes = [(tmp_path / f"{each}.png").stat().st_size for each in ("copy", name)]
        assert sizes[0] < 0.8 * sizes[1] if smaller else sizes[0] == sizes[1]


@pytest.mark.parametrize(
    ("count", "width", "shape"), [(5, 330, (2, 3)), (4, 350, (2, 2)), (2, 2000, (2, 1)), (1, 9, (1, 1))]
)
def test_pictures_are_laid_in_even_lines_of_a_page(count, width, shape):
    pictures = [np.full((10 + number, width, 3), number, np.uint8) for number in range(count)]
    sheet = tiled(pictures)
    assert sheet.shape[1] == shape[1] * (width + GAP) - GAP
    assert shape[1] == 1 or sheet.shape[1] <= PAGE
    first = [sheet[0, place * (width + GAP), 0] for place in range(shape[1])]
    assert first == list(range(shape[1]))
    height = 10 + shape[1] - 1  # of the first line
    assert sheet.shape[0] == height * (shape[0] > 1) + 10 + count - 1
    assert shape[0] == 1 or sheet[height, 0].tolist() == [shape[1]] * 3
    assert all((sheet == number).all(axis=-1).sum() == picture[..., 0].size for number, picture in enumerate(pictures))


@pytest.mark.parametrize("sources", [2, 4, 7])
def test_weights_are_coloured_about_the_even_share_which_the_bar_marks(sources):
    even = 1 / sources
    weights = np.array([[even, even / 2, even * 1.5, 0, 1][:sources]])
    figure = Figure()
    axis = figure.subplots()
    names = [f"s{number}" for number in range(sources)]
    heat = weight_map(axis, weights, [["x"] * sources], ["task"], names, "block 1")
    white, below, above = (np.array(heat.to_rgba(value))[:3] for value in (even, even / 2, even * 1.5))
    assert white.min() > 0.95
    assert below[2] > below[0]  # violet
    assert above[0] > above[2]  # orange
    assert np.linalg.norm(white - heat.to_rgba(0)[:3]) < np.linalg.norm(white - heat.to_rgba(1)[:3]) or sources == 2
    weight_bar(figure, heat, axis, sources, "weight")
    bar = figure.axes[1]
    ticks = {label.get_text(): tick for label, tick in zip(bar.get_yticklabels(), bar.get_yticks(), strict=True)}
    assert ticks[f"1/{sources}"] == pytest.approx(even)
    assert bar.get_ylim() == (0, 1)
    assert f"1/{sources}: all alike" in bar.get_ylabel()


def test_a_cell_without_a_value_is_grey_and_can_be_read():
    axis = Figure().subplots()
    heat_map(axis, np.array([[np.nan, 1.0, 0.0]]), [["a", "b", "c"]], ["row"], ["x", "y", "z"], "", (0, 1))
    assert [text.get_color() for text in axis.texts] == ["black", "black", "white"]
    assert axis.get_facecolor()[:3] == pytest.approx(to_rgb("#e0e0e0"))
