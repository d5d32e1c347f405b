"""A trained model at work: one that has learnt nothing for the files, one that knows the answer for the rest."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sak.config.vocabulary import VocabularyDataConfig
from sak.errors import UserError
from sak.vocabulary.data import build
from sak.vocabulary.data.examination import contact_sheet, examine
from sak.vocabulary.prompts import READ, parse_boxes
from sak.vocabulary.reading import tesseract
from sak.vocabulary.reading.benchmark import compared, verdict
from sak.vocabulary.reading.reader import Answer, Reader, draw_boxes, reads

TEXT = "dog: [250, 500, 500, 1000];\ncat: [500, 000, 1000, 250]."


@pytest.fixture
def knowing():
    """A reader whose model answers `TEXT`, and keeps what it was shown."""
    seen = []

    def generate(images, prompts, beams=1, max_new_tokens=None, stream=None):
        seen.append((images, prompts, beams))
        for piece in ("dog: ", TEXT[5:]) if stream else ():
            stream(piece)
        return [TEXT] * len(prompts)

    reader = Reader.__new__(Reader)
    reader.device = torch.device("cpu")
    reader.model = SimpleNamespace(image_size=(32, 32), generate=generate)
    return reader, seen


def test_a_picture_is_seen_whole_and_in_its_colours(knowing):
    reader, seen = knowing
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 50:] = (255, 0, 51)
    pieces = []
    answer = reader(picture, "Detect all objects in this image", stream=pieces.append)
    images, prompts, _ = seen[0]
    assert images.shape == (1, 3, 32, 32)
    assert prompts == ["Detect all objects in this image"]
    np.testing.assert_allclose(images[0, :, 16, 30], [1, 0, 0.2], atol=0.01)
    np.testing.assert_allclose(images[0, :, 16, 2], 0, atol=0.01)
    assert "".join(pieces) == answer.text == TEXT
    assert answer.boxes.objects == {"dog": [(0.25, 0.5, 0.5, 1.0)], "cat": [(0.5, 0.0, 1.0, 0.25)]}


def test_an_empty_prompt_is_refused(knowing):
    with pytest.raises(UserError, match="the prompt is empty"):
        knowing[0](np.zeros((8, 8, 3), np.uint8), " ")


def test_boxes_are_drawn_where_they_are():
    white = np.full((800, 600, 3), 255, np.uint8)
    drawn = np.asarray(draw_boxes(Answer(white, TEXT, parse_boxes(TEXT)))).astype(int)
    assert drawn.shape == white.shape
    marked = (drawn.min(-1) < 200).nonzero()
    colours = {tuple(drawn[600, 151]), tuple(drawn[100, 301])}
    assert len(colours) == 2  # the left edges of the dog's and of the cat's box
    assert (drawn[600, 200] == 255).all()  # inside
    assert marked[1].min() == 150  # nothing lies left of the dog's box, whose label begins there
    small = draw_boxes(Answer(white[:20, :30], TEXT, parse_boxes(TEXT)))
    assert small.size == (720, 480)


def test_bundles_tell_what_they_are(read, trained, tmp_path):
    assert reads(read)
    assert reads(read / "student")
    assert not reads(trained)
    with pytest.raises(UserError, match="is no folder"):
        reads(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds a student"):
        Reader(trained)


def test_the_tool_reads_and_draws(read, call_tool, tmp_path):
    Image.new("RGB", (90, 50), "white").save(tmp_path / "a.png")
    Image.new("L", (30, 60)).save(tmp_path / "b.jpg")
    code, out, _ = call_tool("read", read, "a.png", "--max-new-tokens", 5, "--boxes", "boxes.png")
    assert code == 0
    assert out.endswith("\n")
    assert Image.open(tmp_path / "boxes.png").size == (864, 480)
    code, out, _ = call_tool("read", read, "a.png", "b.jpg", "--max-new-tokens", 3, "--beams", 2)
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("==")] == ["== a.png", "== b.jpg"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere", "a.png"], "nowhere is no folder"),
        (["{run}", "nowhere.png"], "there is no picture nowhere.png"),
        (["{run}", "text.png"], "text.png is corrupt, or an image of a kind that is not read"),
        (["{run}"], "required: image"),
        (["{run}", "a.png", "--prompt", ""], "the prompt is empty"),
        (["{run}", "a.png", "--prompt", "</img>"], "the prompt holds </img>"),
        (["{run}", "a.png", "--prompt", "long " * 300], "leave no room for an answer"),
        (["{run}", "a.png", "a.png", "--boxes", "x.png"], "--boxes x.png is one file, but there are 2 pictures"),
        (["{run}", "a.png", "--boxes", "folder"], "folder cannot be used"),
        (["{run}", "a.png", "--beams", "0"], "no whole number from 1"),
        (["{run}", "a.png", "--device", "abacus"], "the device abacus cannot be used here"),
        (["cut", "a.png"], "cut"),
        (["untold", "a.png"], "untold"),
    ],
)
def test_mistakes_are_one_line(read, call_tool, tmp_path, arguments, said):
    Image.new("RGB", (9, 5)).save(tmp_path / "a.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder").mkdir()
    for name, file in (("cut", "model.safetensors"), ("untold", "tokenizer.json")):
        shutil.copytree(read / "student", tmp_path / name)
        (tmp_path / name / file).write_bytes((tmp_path / name / file).read_bytes()[:500])
    before = sorted(tmp_path.rglob("*"))
    code, _, errors = call_tool("read", *(argument.format(run=read) for argument in arguments))
    assert code == 2
    assert len(errors) == 1
    assert said in errors[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_a_config_s_samples_are_examined(tmp_path):
    settings = VocabularyDataConfig(kinds={"text": 1.0, "detection": 1.0}, train=60, val=20, image_size=64)
    facts, problems = examine(settings, 10, progress=False)
    assert problems == []
    told = dict(facts[:1])
    assert told == {"train": "60 samples, of which 10 have been made"}
    sheet = contact_sheet(build(settings, "train"), 7)
    assert sum(len(axis.images) for axis in sheet.axes) == 7
    data = build(settings, "train")
    for number, axis in enumerate(sheet.axes[:7]):
        first = data.packed(number)["answer"].split("\n")[0]
        assert axis.texts[1].get_text().startswith(first[:4] or "(nothing)")


def test_the_doctor_draws_a_sheet_and_tells_faulty_samples(call_tool, tmp_path, reading):
    code, out, _ = call_tool("doctor", tmp_path / "reading.yaml", "--quick", 4, "--sheet", "sheet.png")
    assert code == 0
    assert "all is well" in out
    assert Image.open(tmp_path / "sheet.png").size[0] > 800
    (tmp_path / "boxes.json").write_text(
        '{"images": [{"id": 1, "file_name": "gone.png", "width": 9, "height": 9}], "annotations": [], "categories": []}'
    )
    overrides = ["vocabulary.data.objects=boxes.json", f"vocabulary.data.root={tmp_path}"]
    code, out, _ = call_tool("doctor", tmp_path / "reading.yaml", *overrides, "--quick", 4)
    assert code == 1
    assert "gone.png does not exist" in out


def test_the_table_of_an_evaluation():
    report = {
        "text": {"anls": 0.9, "score": 0.9, "blind": 0.0, "error": 0.01},
        "text_shuffled": {"anls": 0.1, "score": 0.1},
        "text_unseen": {"anls": 0.2, "score": 0.2},
        "text_tesseract": {"anls": 0.85, "score": 0.8},
    }
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in compared(report).splitlines()]
    assert rows[2] == ["text", "anls", "0.9", "0.1", "0.2", "0.85"]
    assert rows[4] == ["text", "blind", "0", "", "", ""]
    assert verdict(report) == "It looks at the images, whatever it is asked."
    report["text"]["blind"] = 1.0
    assert verdict(report).startswith("text: the model does not look")


def test_a_run_is_evaluated_once(read, call_tool, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(read, run)
    code, out, _ = call_tool("evaluate", run, "--workers", 0)
    assert code == 0
    assert "best constant answer" in out
    assert "does not look at the images" in (run / "evaluation" / "results.md").read_text()
    code, _, errors = call_tool("evaluate", run)
    assert code == 2
    assert "holds results already" in errors[0]
    code, _, errors = call_tool("evaluate", run, "--data", "x")
    assert code == 2
    assert "--data is of students" in errors[0]


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="needs tesseract")
def test_tesseract_reads_a_plain_page():
    data = build(VocabularyDataConfig(kinds={"text": 1.0}, val=3, image_size=128), "val")
    assert data[0]["prompt"] == READ
    assert tesseract.evaluate(data, range(3))["anls"] > 0.6


def test_without_tesseract_it_is_said(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="apt-get install tesseract-ocr"):
        tesseract.read(Image.new("RGB", (8, 8)))
