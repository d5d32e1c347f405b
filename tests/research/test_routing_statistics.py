"""Entropy and information at their limits and against sums written out; when warnings fire, and when not."""

import math

import pytest
import torch

from sak.research.routing.findings import headline_change
from sak.research.routing.images import main_classes
from sak.research.routing.statistics import (
    class_information,
    entropy,
    information_by_chance,
    router_statistics,
    warnings,
)
from sak.research.routing.tokens import TokenRecord
from sak.student import StudentOutput
from sak.tasks import TASKS

SOURCES = ("stem", "dinov2", "clip", "sam")


def random_weights(images=50, sources=4, scale=1.0, seed=0):
    return (scale * torch.randn(images, sources, generator=torch.Generator().manual_seed(seed))).softmax(1)


def test_entropy_is_0_of_one_source_and_log_s_of_all_alike():
    assert entropy(torch.tensor([0.0, 1.0, 0.0, 0.0])).item() == 0
    for count in (2, 3, 4, 7):
        assert entropy(torch.full((count,), 1 / count)).item() == pytest.approx(math.log2(count), abs=1e-6)
    p = [0.5, 0.25, 0.125, 0.125]
    assert entropy(torch.tensor(p)).item() == pytest.approx(1.75)


def test_numbers_of_a_router_against_their_sums():
    weights = random_weights()
    router = router_statistics(weights)
    torch.testing.assert_close(router.mean, weights.double().mean(0))
    torch.testing.assert_close(router.spread, (weights.double() - router.mean).square().mean(0).sqrt())
    assert router.leads.sum() == pytest.approx(1)
    assert router.leads[2].item() == pytest.approx(sum(row.argmax() == 2 for row in weights).item() / 50)
    by_hand = sum(-sum(w * math.log2(w) for w in row) for row in weights.tolist()) / 50
    assert router.entropy == pytest.approx(by_hand)
    # as a Kullback-Leibler divergence, the other way to write mutual information
    divergence = sum(
        sum(w * math.log2(w / m) for w, m in zip(row, router.mean.tolist(), strict=True)) for row in weights.tolist()
    )
    assert router.image_information == pytest.approx(divergence / 50)


def test_information_is_0_where_all_images_are_alike_and_log_s_where_each_has_its_source():
    assert router_statistics(torch.tensor([[0.7, 0.1, 0.1, 0.1]]).repeat(9, 1)).image_information == pytest.approx(0)
    assert router_statistics(torch.eye(4).repeat(5, 1)).image_information == pytest.approx(2)


def test_the_class_says_all_or_nothing():
    weights, classes = torch.eye(4).repeat(25, 1), torch.tensor([3, 15, 15 + 3, 8]).repeat(25)
    assert class_information(weights, classes) == pytest.approx(2)
    assert class_information(weights, torch.arange(25).repeat_interleave(4)) == pytest.approx(0, abs=1e-12)
    weights = random_weights(scale=2)
    assert class_information(weights, torch.arange(50)) == pytest.approx(router_statistics(weights).image_information)
    assert class_information(weights, torch.zeros(50, dtype=torch.long)) == pytest.approx(0, abs=1e-12)


def test_chance_is_told_from_what_the_class_says():
    weights = random_weights(images=60, scale=2)
    classes = torch.arange(60) % 10
    by_chance, of_class = information_by_chance(weights, classes), class_information(weights, classes)
    assert 0.5 < by_chance / of_class < 2  # classes that have nothing to do with the weights
    assert information_by_chance(weights, classes) == by_chance  # the same shuffles each time
    informed = torch.eye(4)[classes % 4] * 0.9 + 0.025
    assert class_information(informed, classes) > 3 * information_by_chance(informed, classes)


def named(**weights):
    return {task: {11: router_statistics(w)} for task, w in weights.items()}


def test_warnings_are_silent_over_a_router_that_chooses():
    assert warnings(named(edge=random_weights()), SOURCES) == []


def test_a_router_that_treats_all_images_alike_has_collapsed():
    same = torch.tensor([0.4, 0.3, 0.2, 0.1]) + 0.001 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    (sentence,) = warnings(named(edge=same, semseg=random_weights()), SOURCES)
    assert sentence.startswith("edge, block 11: collapsed: all images get nearly the same weights")


def test_a_router_that_gives_all_to_one_source_has_collapsed():
    weights = torch.cat([torch.eye(4)[2].repeat(48, 1), torch.eye(4)[:1], torch.eye(4)[3:]])
    found = warnings(named(edge=weights), SOURCES)
    assert found[0].startswith("edge, block 11: collapsed: clip takes 96.0%")
    assert found[1:] == [
        "dinov2 is dead in 1 of 1 routers, where no image gives it a weight of 0.05 (its largest in brackets): "
        "edge, block 11 (0.000)"
    ]


def test_a_source_is_dead_only_where_no_image_wants_it():
    weights = random_weights(sources=3)
    dead = torch.cat([weights * 0.98, torch.full((50, 1), 0.02)], dim=1)
    (sentence,) = warnings(named(edge=dead, semseg=random_weights(), normals=dead), SOURCES)
    assert sentence.startswith("sam is dead in 2 of 3 routers")
    assert "edge, block 11 (0.020); normals, block 11 (0.020)" in sentence
    dead[7] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert warnings(named(edge=dead), SOURCES) == []


def test_the_class_of_most_pixels_counts_and_background_only_without_others():
    labels = torch.zeros(3, 4, 4, dtype=torch.long)
    labels[0, 0, :3] = 7
    labels[0, 1, :2] = 5
    labels[2] = 255
    labels[2, 0, 0] = 3
    assert main_classes(labels, background=0).tolist() == [7, 0, 3]
    assert main_classes(labels, background=None).tolist() == [0, 0, 3]


def test_information_of_tokens_holds_that_of_images():
    """Four images whose tokens all choose the image's source: 2 bits; an image of four choices says as much."""

    class Student(torch.nn.Module):
        def forward(self, images):
            return StudentOutput({}, {}, {}, {"edge": [images]})

    across = torch.eye(4)[:, :, None, None].expand(4, 4, 2, 2)
    within = torch.eye(4).view(1, 4, 2, 2)
    for weights in (across, within):
        record = TokenRecord(Student())
        for batch in weights.split(2):
            record(batch)
        assert record.information("edge", 0) == pytest.approx(2)
        assert record.information("semseg", 0) is None
    assert router_statistics(within.mean((2, 3))).image_information == pytest.approx(0)


def test_a_change_is_below_0_where_it_is_for_the_worse():
    whole = {"semseg": {"miou": 60.0}, "normals": {"mean_error": 20.0}}
    without = {"semseg": {"miou": 50.0}, "normals": {"mean_error": 19.0}}
    assert headline_change(TASKS, whole, without) == {"semseg": -10.0, "normals": 1.0}
