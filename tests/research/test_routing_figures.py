"""The pictures of routers: scales that are shared are shared, and all of them say what they mean."""

import numpy as np
import pytest
import torch

from sak.research.routing.figures import history_figure, information_figure, knock_out_figure, token_figure
from sak.research.routing.findings import Inspection
from sak.tasks import build

SOURCES = ("stem", "clip", "sam", "dinov2")


def bars(figure):
    """{label: range} of the colour bars."""
    return {axis.get_ylabel(): axis.get_ylim() for axis in figure.axes if axis.get_label() == "<colorbar>"}


def test_knock_outs_have_one_scale_for_all_units():
    changes = np.array([[-6.0, 0.0, 3.0, 1.5], [-0.06, 0.0, 0.03, 0.015]])  # per cent, metres
    relative = np.array([[-20.0, 0.0, 10.0, 5.0], [-20.0, 0.0, 10.0, 5.0]])
    tasks = {name: build(name, "nyud") for name in ("semseg", "depth")}
    figure = knock_out_figure(np.full((2, 4), 0.25), changes, relative, tasks, SOURCES)
    (heat,) = figure.axes[1].images
    assert heat.get_clim() == (-20, 20)
    assert np.array_equal(heat.to_rgba(heat.get_array())[0], heat.to_rgba(heat.get_array())[1])
    assert [label.get_text() for label in figure.axes[1].get_yticklabels()] == ["semseg, %", "depth, metres"]
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert (texts[0], texts[4], texts[5]) == ("-6.00\n(-20.0 %)", "-0.0600\n(-20.0 %)", "+0.0000\n(+0.0 %)")
    assert bars(figure) == {
        "mean weight (1/4: all alike)": (0, 1),
        "% of the metric with all sources": (-20, 20),
    }


def test_a_knock_out_of_a_metric_that_is_0_has_no_colour_and_small_ones_stay_pale():
    relative = np.array([[np.nan] * 4, [0.1, -0.1, 0.0, 0.0]])
    tasks = {name: build(name, "nyud") for name in ("semseg", "edge")}
    figure = knock_out_figure(np.full((2, 4), 0.25), relative, relative, tasks, SOURCES)
    assert figure.axes[1].images[0].get_clim() == (-1, 1)
    assert figure.axes[1].texts[0].get_text() == "+nan"
    del tasks["edge"]
    nothing = knock_out_figure(np.full((1, 4), 0.25), np.ones((1, 4)), np.full((1, 4), np.nan), tasks, SOURCES)
    assert nothing.axes[1].texts[0].get_text() == "+1.00"


def test_the_change_relative_to_the_metric_with_all_sources():
    tasks = {name: build(name, "pascal_context") for name in ("semseg", "normals", "edge")}
    metrics = {"semseg": {"miou": 40.0}, "normals": {"mean_error": 20.0}, "edge": {"ods_f": 0.0}}
    without = {"clip": {"semseg": {"miou": 30.0}, "normals": {"mean_error": 25.0}, "edge": {"ods_f": 1.0}}}
    found = Inspection("", [], {}, {}, {}, [], {}, {}, tasks, metrics, without)
    assert [found.relative_change("clip", task) for task in ("semseg", "normals")] == [-25, -25]
    assert np.isnan(found.relative_change("clip", "edge"))


def test_information_has_one_scale_and_entropy_that_of_all_there_could_be():
    information = {"I(image; source)": np.array([[0.1, 0.02]]), "I(class; source)": np.array([[0.05, 0.01]])}
    figure = information_figure(np.array([[1.9, 1.2]]), information, 2.0, ["edge"], [1, 3])
    entropy, image, of_class = (axis.images[0].get_clim() for axis in figure.axes if axis.images)
    assert entropy == (0, 2)
    assert image == of_class == (0, 0.1)
    assert bars(figure) == {"bits, of at most 2.00": (0, 2), "bits": (0, 0.1)}


@pytest.mark.parametrize("training", [True, False])
def test_a_history_marks_the_even_share_and_says_what_dots_and_lines_are(training):
    history = {"edge": {3: {source: [(2, 0.3), (4, 0.2)] for source in SOURCES}}}
    figure = history_figure(history, history if training else {}, SOURCES)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [*SOURCES, "1/4: all alike"]
    assert ("dots: validation set" in figure.get_supylabel()) == training
    assert figure.axes[0].get_xlabel() == "step of the second stage"


def test_weights_of_tokens_are_drawn_as_they_are_a_block_for_each_image():
    weights = torch.rand(3, 4, 2, 2).softmax(1)
    figure = token_figure(torch.rand(3, 3, 16, 16), [weights, weights.flip(0)], SOURCES, (1, 3), "edge")
    drawn = [axis.images[0] for axis in figure.axes if axis.images and axis.get_label() != "<colorbar>"]
    heats = [image for image in drawn if image.get_array().ndim == 2]
    assert (len(drawn), len(heats)) == (3 + 3 * 2 * 4, 3 * 2 * 4)
    assert {image.get_clim() for image in heats} == {(-0.5, 1)}
    assert {image.get_alpha() for image in heats} == {None}
    shown = sorted(value for image in heats for value in image.get_array().data.ravel().tolist())
    assert shown == pytest.approx(sorted([*weights.flatten().tolist()] * 2))
    assert bars(figure) == {"weight (1/4: all alike)": (0, 1)}
