import numpy as np
import pytest

from sak.errors import UserError
from sak.vocabulary.prompts import around_image, box_string, detect, is_box, one_box, parse_boxes, refer


def test_the_papers_example():
    """Of Vary-toy's section 3.2: the padding, the commas between boxes, the ends of classes and of the answer."""
    objects = {"Person": [(0.535, 0.544, 0.568, 0.591), (0.001, 0.02, 0.3, 1.0)], "Dog": [(0.1, 0.2, 0.3, 0.4)]}
    assert box_string(objects) == ("Person: [535, 544, 568, 591], [001, 020, 300, 1000];\nDog: [100, 200, 300, 400].")
    assert one_box((0.0, 0.0, 0.5, 0.25)) == "[000, 000, 500, 250]."
    assert detect(["cat", "dog"]) == "Detect cat, dog in this image"
    assert refer("the red ball") == "Locate the red ball in this image"


def test_the_template():
    before, after = around_image("Read this.")
    assert f"{before}TOKENS{after}answer </s>" == "USER: <img>TOKENS</img> Read this. ASSISTANT: answer </s>"
    with pytest.raises(UserError, match="</img>"):
        around_image("ends </img> early")


def test_boxes_come_back_to_half_a_thousandth():
    rng = np.random.default_rng(0)
    for _ in range(200):
        objects = {}
        for name in rng.permutation(["dining table", "tv", "person", "x-1"])[: rng.integers(0, 5)].tolist():
            corners = np.sort(rng.uniform(0, 1, (int(rng.integers(1, 4)), 2, 2)), axis=1).reshape(-1, 4)
            corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 0.002).clip(0, 1)
            objects[name] = [tuple(box) for box in corners.tolist() if is_box(tuple(box))]
        objects = {name: boxes for name, boxes in objects.items() if boxes}
        found = parse_boxes(box_string(objects))
        assert found.malformed == 0
        assert list(found.objects) == list(objects)
        for name, boxes in objects.items():
            np.testing.assert_allclose(found.objects[name], boxes, atol=0.0005 + 1e-9)


@pytest.mark.parametrize("box", [(-0.1, 0, 0.5, 0.5), (0, 0, 1.01, 0.5), (0.5, 0, 0.5, 1), (0.2, 0.9, 0.4, 0.1)])
def test_a_box_that_is_none_in_the_image_is_refused(box):
    with pytest.raises(ValueError, match="no box in the image"):
        box_string({"dog": [box]})


A, B = (0.1, 0.2, 0.3, 0.4), (0.5, 0.6, 0.7, 0.8)


@pytest.mark.parametrize(
    ("text", "objects", "malformed"),
    [
        (".", {}, 0),
        ("", {}, 0),
        ("dog: [100,200,300,400]", {"dog": [A]}, 0),
        ("dog : [ 100, 200 ,300, 400 ] , [500, 600, 700, 800] ;\n\n", {"dog": [A, B]}, 0),
        ("dog: [100, 200, 300, 400]; dog: [500, 600, 700, 800].", {"dog": [A, B]}, 0),
        ("[100, 200, 300, 400].", {"": [A]}, 0),
        ("dog: [100, 200, 300, 400], [500, 600, 70", {"dog": [A]}, 1),  # cut off
        ("dog: [300, 200, 100, 400]", {}, 1),  # turned round
        ("dog: [100, 200, 300, 1400]", {}, 1),  # out of the image
        ("dog: [100, 200, 300]; cat: [500, 600, 700, 800].", {"cat": [B]}, 1),
        ("dog:", {}, 1),
        ("a dog and a cat", {}, 1),
        ("dog: [99999999999999999999999, 1, 2, 3]", {}, 1),
    ],
)
def test_whatever_a_model_writes_is_read_as_far_as_it_can_be(text, objects, malformed):
    found = parse_boxes(text)
    assert found.objects == objects
    assert found.malformed == malformed
