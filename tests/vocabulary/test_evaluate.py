"""Models that see, that do not, and that say one thing for all images, told apart by the blindness test."""

import numpy as np
import pytest
import torch

from sak.config.vocabulary import VocabularyDataConfig
from sak.vocabulary.data import build
from sak.vocabulary.evaluate import blind, evaluate, shuffle

KINDS = {"text": 1.0, "detection": 1.0, "expression": 1.0, "chart": 1.0}
HEADLINES = {"text": "anls", "detection": "f1", "expression": "accuracy", "chart": "relaxed_accuracy"}


@pytest.fixture(scope="module")
def data():
    return build(VocabularyDataConfig(kinds=KINDS, val=80, image_size=64), "val")


class Oracle:
    """Knows every image of a data set by its pixels, and answers what belongs to the image that it is shown."""

    device = torch.device("cpu")

    def __init__(self, data, wrong=0.0):
        self.known = {
            item["image"].numpy().tobytes(): item["answer"] for item in map(data.__getitem__, range(len(data)))
        }
        self.wrong, self.rng = wrong, np.random.default_rng(0)
        self.asked = 0

    def generate(self, images, prompts, beams=1, max_new_tokens=256):
        assert images.dtype == torch.float32
        assert len(images) == len(prompts)
        self.asked += len(prompts)
        answers = [self.known[image.numpy().tobytes()] for image in images]
        return ["?" if self.rng.random() < self.wrong else answer for answer in answers]


class Fluent:
    """Answers by heart what some other sample with such a prompt has, without a look."""

    device = torch.device("cpu")

    def __init__(self, data):
        items = [data[i] for i in range(len(data))]
        self.by_prompt = {}
        for item in items:
            self.by_prompt.setdefault(item["prompt"].split()[0], []).append(item["answer"])
        self.rng = np.random.default_rng(0)

    def generate(self, images, prompts, beams=1, max_new_tokens=256):
        return [str(self.rng.choice(self.by_prompt[prompt.split()[0]])) for prompt in prompts]


class Constant:
    device = torch.device("cpu")

    def generate(self, images, prompts, beams=1, max_new_tokens=256):
        return ["lemon 7"] * len(prompts)


def test_a_model_that_sees(data):
    model = Oracle(data)
    metrics = evaluate(model, data, batch_size=7)
    assert model.asked == 160
    assert blind(metrics) == []
    for kind, headline in HEADLINES.items():
        assert metrics[kind][headline] == 1
        assert metrics[f"{kind}_shuffled"][headline] < 0.5
        assert metrics[f"{kind}_unseen"][headline] < 0.6
        assert metrics[kind]["distinct"] == 1
    assert sum(metrics[kind]["samples"] for kind in KINDS) == 80
    assert all(np.isfinite(value) for found in metrics.values() for value in found.values())


@pytest.mark.parametrize("model", [Fluent, lambda data: Constant()])
def test_a_model_that_does_not_look_is_told_to_be_blind(data, model):
    metrics = evaluate(model(data), data)
    sentences = blind(metrics)
    assert {sentence.split(":")[0] for sentence in sentences} == set(KINDS)
    assert len(sentences) == 4
    assert "does not look at the images" in sentences[0]


def test_one_answer_for_all_images_shows(data):
    metrics = evaluate(Constant(), data)
    assert metrics["text"]["distinct"] < 0.1
    assert metrics["detection"]["malformed"] == 1
    assert metrics["text_unseen"]["score"] >= metrics["text"]["score"]


def test_a_model_that_is_mostly_wrong_still_sees(data):
    """Blindness is about looking, not about being right."""
    metrics = evaluate(Oracle(data, wrong=0.6), data)
    assert metrics["text"]["anls"] < 0.6
    assert not metrics["text"]["blind"]


def test_shuffled_alone_gives_the_shuffled_numbers(data):
    both, alone = evaluate(Oracle(data), data), evaluate(Oracle(data), data, shuffled=True)
    assert alone["text"]["anls"] == both["text_shuffled"]["anls"]
    assert alone == {kind: both[f"{kind}_shuffled"] for kind in KINDS}


def test_everyone_gets_the_image_of_another_one_of_its_kind(data):
    indices = list(range(0, 80, 2))
    wrong = shuffle(data, indices)
    assert sorted(wrong) == indices
    for index, other in zip(indices, wrong, strict=True):
        assert index != other
        assert data.kind_of[index] == data.kind_of[other]


def test_so_many_samples_are_asked(data):
    model = Oracle(data)
    evaluate(model, data, samples=12)
    assert model.asked == 24
