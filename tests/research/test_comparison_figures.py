"""The figures that compare frozen models and paths: they fit a page, and their axes say what and in which unit."""

import numpy as np
import pytest

from sak.evaluation.sources import fidelity_figure
from sak.research.probing import report
from sak.research.similarity.features import heat_maps
from sak.tasks import build

PAGE = 930  # pixels


def bars(figure):
    return {axis.get_ylabel(): axis.get_ylim() for axis in figure.axes if axis.get_label() == "<colorbar>"}


@pytest.mark.parametrize(("models", "levels"), [(12, 4), (4, 2)])
def test_likeness_is_as_wide_as_a_page_and_its_numbers_fit_their_cells(models, levels):
    names = [f"model {number}" for number in range(models)]
    square = [np.full((models, models), 1.0).tolist() for _ in range(levels)]
    figure = heat_maps({"models": names, "cka": square, "reconstruction": square})
    figure.draw_without_rendering()
    assert figure.bbox.width <= PAGE
    panels = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in panels[:2]] == [
        f"level 1 of {levels}: linear CKA",
        f"level 1 of {levels}: R² of the row from the column",
    ]
    assert len(panels) == 2 * levels
    for axis in panels:
        cell = axis.get_window_extent().width / models
        assert all(text.get_window_extent().width < 0.95 * cell for text in axis.texts)
        assert axis.images[0].get_clim() == (0, 100)
    assert bars(figure) == {"%": (0, 100)}


def test_fidelity_has_one_scale_that_is_shown():
    cell = {"token": 0.9, "token_spread": 0.02, "whole": 0.85, "whole_spread": 0.03, "constant": 0.4}
    figure = fidelity_figure({"clip": {1: cell, 3: cell}, "sam": {1: cell, 3: cell}})
    assert bars(figure) == {"cosine, mean ± spread over images": (0, 1)}
    assert {axis.images[0].get_clim() for axis in figure.axes if axis.images} == {(0, 1)}


@pytest.fixture
def probed():
    tasks = {name: build(name, "pascal_context") for name in ("semseg", "normals", "edge")}
    values = {"vit": (20.0, 30.0, 0.0), "clip": (30.0, 24.0, 40.0), "clip-s2": (32.0, 24.0, 42.0)}
    metrics = {
        model: {name: {task.headline()[0]: value} for (name, task), value in zip(tasks.items(), row, strict=True)}
        for model, row in values.items()
    }
    constants = {name: {task.headline()[0]: 5.0} for name, task in tasks.items()}
    return tasks, metrics, constants


def test_a_probe_without_a_reference_has_units_and_the_best_constant(probed):
    tasks, metrics, constants = probed
    axes = report.figure(tasks, metrics, {}, None, constants).axes
    assert [axis.get_title() for axis in axes] == [
        "semseg ↑\nmiou, %",
        "normals ↓\nmean_error, degrees",
        "edge ↑\nods_f, %",
    ]
    assert all(line.get_ydata()[0] == 5 for axis in axes for line in axis.lines)
    assert all(axis.lines for axis in axes)


def test_a_probe_says_where_there_is_no_gain_to_draw(probed):
    tasks, metrics, constants = probed
    gained = report.relative(tasks, metrics, "vit")
    (axis,) = report.figure(tasks, metrics, gained, "vit", constants).axes
    assert axis.get_ylabel() == "better than vit, in % of its metric"
    assert [label.get_text() for label in axis.get_xticklabels()] == [
        *("semseg\nmiou", "normals\nmean_error"),
        "edge\nods_f\n(0 by vit)",
    ]
    assert [patch.get_height() for patch in axis.containers[0]] == pytest.approx([50, 20, 0])
