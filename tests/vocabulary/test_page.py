"""The page of a model that reads, without a browser: what its button does."""

from types import SimpleNamespace

import pytest
from PIL import Image

from sak.errors import UserError
from sak.vocabulary.prompts import parse_boxes
from sak.vocabulary.reading.reader import Answer, pixels_of

gradio = pytest.importorskip("gradio")

from sak.vocabulary.reading.page import answered, build, examples  # noqa: E402

TEXT = "dog: [100, 200, 300, 400]."


def reader(path, prompt, beams=1, stream=None):
    if not prompt:
        raise UserError(f"nothing is asked of {path}")
    for piece in ("dog: ", TEXT[5:]) if stream else ():
        stream(piece)
    return Answer(pixels_of(path), TEXT, parse_boxes(TEXT))


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (500, 600), "white").save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def test_the_answer_comes_in_pieces_and_then_with_its_boxes(picture):
    steps = list(answered(reader, picture, "Detect all objects in this image", 1))
    assert [text for text, _ in steps] == ["dog: ", TEXT, TEXT]
    assert [boxes is None for _, boxes in steps] == [True, True, False]
    assert steps[-1][1].shape == (600, 500, 3)
    assert [text for text, _ in answered(reader, picture, "Detect", 4)] == [TEXT]


def test_a_visitors_mistake_is_a_message_without_the_servers_paths(picture):
    with pytest.raises(gradio.Error, match="nothing is asked of the picture"):
        list(answered(reader, picture, "", 1))
    with pytest.raises(gradio.Error, match="does not exist"):
        list(answered(reader, f"{picture}.gone", "Detect", 1))


def test_the_page_is_built_with_examples_that_open():
    model = SimpleNamespace(image_size=(64, 64))
    assert build(SimpleNamespace(model=model), "what it reads").title == "what it reads"
    for path, prompt in examples(64):
        assert Image.open(path).size == (64, 64)
        assert prompt
