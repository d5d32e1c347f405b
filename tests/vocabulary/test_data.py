"""What each kind of sample shows is what its answer says, and is a function of seed and index."""

import dataclasses
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sak.config.vocabulary import PageConfig, VocabularyDataConfig
from sak.data.loading import load
from sak.errors import UserError
from sak.vocabulary.data import build
from sak.vocabulary.data.charts import Table, ask
from sak.vocabulary.data.detection import expressions
from sak.vocabulary.data.drawn import FIRST_SIZES, SIZES, DrawnScenes
from sak.vocabulary.data.objects import Object
from sak.vocabulary.data.pages import wrap
from sak.vocabulary.data.words import is_held_out
from sak.vocabulary.prompts import DETECT_ALL, MOST_BOXES, parse_boxes

DRAWN = {"text": 2.0, "detection": 1.0, "expression": 1.0, "chart": 1.0}


def made(kinds, split="train", **settings):
    return build(VocabularyDataConfig(kinds=kinds, **settings), split)


def test_items_are_as_the_training_expects_them():
    data = made(DRAWN, train=60, image_size=96)
    assert len(data) == 60
    kinds = set()
    for item in data:
        assert item["image"].shape == (3, 96, 96)
        assert item["image"].dtype == torch.float32
        assert 0 <= item["image"].min() < item["image"].max() <= 1
        assert all(isinstance(item[key], str) for key in ("prompt", "answer", "name", "kind"))
        kinds.add(item["kind"])
    assert kinds == set(DRAWN)
    assert len({data[i]["name"] for i in range(60)}) == 60
    with pytest.raises(IndexError):
        data[60]


def test_a_sample_depends_on_seed_and_index_alone():
    one, longer, other = made(DRAWN, train=30), made(DRAWN, train=30), made(DRAWN, train=30, seed=1)
    order = np.random.default_rng(0).permutation(30).tolist()
    again = {index: longer[index] for index in order}
    for index in range(30):
        assert torch.equal(one[index]["image"], again[index]["image"])
        assert one[index]["answer"] == again[index]["answer"]
    assert [one[i]["answer"] for i in range(30)] != [other[i]["answer"] for i in range(30)]


def told(data):
    """All that the samples are, in a number."""
    return zlib.crc32(
        repr([(i["pixels"].sum().item(), i["prompt"], i["answer"]) for i in map(data.packed, range(40))]).encode()
    )


@pytest.mark.slow  # libraries are imported in another process
def test_pythons_hash_seed_changes_nothing():
    script = f"import runpy\nm = runpy.run_path({__file__!r})\nprint(m['told'](m['made'](m['DRAWN'], train=40)))"
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    found = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert found.stdout == f"{told(made(DRAWN, train=40))}\n"


def test_workers_change_nothing():
    data = made(DRAWN, train=12)
    batches = list(load(data, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]], workers=2))
    assert [answer for batch in batches for answer in batch["answer"]] == [data[i]["answer"] for i in range(12)]
    assert torch.equal(torch.cat([batch["pixels"] for batch in batches])[5], data.packed(5)["pixels"])


def test_shares_are_kept():
    data = made({"text": 3.0, "chart": 1.0, "detection": 0.0}, train=4000)
    assert set(data.kinds) == {"text", "chart"}
    assert abs((data.kind_of == data.kinds.index("text")).mean() - 0.75) < 0.03


def test_no_line_of_val_is_in_train():
    """Not even of other seeds: which split a line belongs to is a property of the line."""
    train = {line for i in range(400) for line in made({"text": 1.0}, train=400)[i]["answer"].split("\n") if line}
    val = made({"text": 1.0}, "val", val=150, seed=5)
    lines = [line for i in range(150) for line in val[i]["answer"].split("\n") if line]
    assert len(lines) > 200
    assert not train & set(lines)
    assert all(is_held_out(line) for line in lines)
    assert not any(is_held_out(line) for line in train)


def test_lines_are_of_the_lengths_asked_for_and_whole_on_the_page():
    data = made({"text": 1.0}, train=150, pages=PageConfig(lines=[2, 3], characters=[8, 14], noise=0.0, empty=0.0))
    for index in range(150):
        item = data[index]
        lines = item["answer"].split("\n")
        assert 2 <= len(lines) <= 3
        assert max(map(len, lines)) <= 14
        dark = (item["image"].mean(0) < 0.45).numpy()
        assert dark.any()
        assert not any(edge.any() for edge in (dark[0], dark[-1], dark[:, 0], dark[:, -1]))
    straight = made({"text": 1.0}, train=60, pages=PageConfig(noise=0.0, rotation=0.0, empty=0.0, lines=[1, 3]))
    for index in range(60):
        item = straight[index]
        inked = (item["image"].mean(0) < 0.6).any(1).numpy().astype(int)
        # letters that hang below and stand above may touch: a band can hold two lines, but there are never more bands
        # than lines, dots of i and j aside
        assert 1 <= (np.diff(inked, prepend=0) == 1).sum() <= 2 * (item["answer"].count("\n") + 1)


def test_lines_and_scenes_grow():
    """From one or two characters and one thing to all, over the first samples; val has all from the start."""
    pages = PageConfig(lines=[1, 2], characters=[1, 8], font_size=[11, 40], empty=0.0)
    settings = {"image_size": 64, "pages": pages, "growth": [50, 300]}
    text = made({"text": 1.0}, train=600, **settings)
    lengths = [max(map(len, text.packed(k)["answer"].split("\n"))) for k in range(600)]
    assert max(lengths[:50]) == 2
    assert max(lengths[:150]) <= 5
    assert max(lengths[300:]) == 8
    assert "\n" not in "".join(text[k]["answer"] for k in range(300))
    assert any("\n" in text[k]["answer"] for k in range(300, 600))
    longer = made({"text": 1.0}, train=600, **{**settings, "pages": PageConfig(characters=[5, 8], empty=0.0)})
    assert {len(longer.packed(k)["answer"].partition("\n")[0]) for k in range(50)} == {1, 2}
    letters = {letter for k in range(100) for letter in text[k]["answer"]}
    assert len(letters & set("abcdefghijklmnopqrstuvwxyz")) > 15  # not digits alone, though no word is so short
    things = made({"detection": 1.0}, train=600, **settings)
    counts = [len(parse_boxes(things[k]["answer"]).boxes) for k in range(600)]
    assert max(counts[:130]) == 1
    assert max(counts[300:]) == 4
    wide = [max(x2 - x1 for x1, _, x2, _ in parse_boxes(things[k]["answer"]).boxes) for k in range(50)]
    assert min(wide) > 0.15
    assert max(wide) > 0.5
    val = made({"text": 1.0}, "val", val=30, **settings)
    assert max(len(line) for k in range(30) for line in val[k]["answer"].split("\n")) >= 7


def test_things_of_a_growing_scene_are_all_of_the_sizes_of_its_time():
    scenes = DrawnScenes(128, val=False, most=4, growth=(0, 100))
    least, most = ((first + last) / 2 for first, last in zip(FIRST_SIZES, SIZES, strict=True))
    longer = [
        max(x2 - x1, y2 - y1)
        for k in range(60)
        for _, (x1, y1, x2, y2), _ in scenes.scene(50, np.random.default_rng(k)).objects
    ]
    assert len(longer) > 80
    assert min(longer) >= least - 1 / 128
    assert max(longer) <= most + 1 / 128


def test_random_lines_hold_codes_and_begin_where_they_are_told_to():
    pages = PageConfig(
        lines=[1, 1], characters=[1, 6], font_size=[12, 12], empty=0.0, rotation=0.0, noise=0.0, moved=0.1
    )
    data = made({"text": 1.0}, train=80, image_size=64, pages=pages)
    anywhere = made({"text": 1.0}, train=80, image_size=64, pages=dataclasses.replace(pages, moved=1.0))
    assert max(int((anywhere[k]["image"].mean(0) < 0.5).any(1).nonzero()[0]) for k in range(80)) > 30
    mixed = 0
    for index in range(80):
        item = data[index]
        ink = item["image"].mean(0) < 0.5
        assert ink.any(0).nonzero()[0] < 20
        assert ink.any(1).nonzero()[0] < 20
        answer = item["answer"]
        mixed += answer.isalnum() and not answer.isalpha() and not answer.isdigit()
    assert mixed > 5  # letters and digits in one piece


def test_an_empty_page_has_an_empty_answer():
    data = made({"text": 1.0}, train=20, pages=PageConfig(empty=1.0, noise=0.0))
    for index in range(20):
        assert data[index]["answer"] == ""
        assert data[index]["image"].std(dim=(1, 2)).max() < 0.05  # nothing but light


def test_pages_of_a_folder_hold_out_passages(tmp_path):
    passages = [f"Passage number {k} says something about {k * k}, and äöü." for k in range(120)]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.txt").write_text("\n\n".join(passages[:60]) + "\n", encoding="utf-8")
    (tmp_path / "two.txt").write_bytes("\r\n \r\n".join(p.replace(" says", "\r\nsays") for p in passages[60:]).encode())
    pages = PageConfig(texts=str(tmp_path), lines=[1, 30], font_size=[8, 10], empty=0.0)
    found = {}
    for split in ("train", "val"):
        data = made({"text": 1.0}, split, train=120, val=120, image_size=256, pages=pages)
        found[split] = {" ".join(data[i]["answer"].split()) for i in range(120)}
    assert not found["train"] & found["val"]
    assert found["train"] | found["val"] <= {" ".join(p.split()[: len(f.split())]) for p in passages for f in [p]} | {
        " ".join(p.split()[:k]) for p in passages for k in range(1, 12)
    }
    assert len(found["train"]) > 60
    assert 3 <= len(found["val"]) <= 30


def test_wrapping_fills_lines_and_breaks_what_is_too_wide():
    assert wrap("aa bb cccc dddddddd e", lambda line: len(line) <= 5) == ["aa bb", "cccc", "ddddd", "ddd e"]


def test_columns_are_read_one_after_the_other():
    pages = PageConfig(
        columns=2, lines=[8, 8], characters=[3, 5], font_size=[10, 10], noise=0.0, rotation=0.0, empty=0.0
    )
    data = made({"text": 1.0}, train=12, image_size=160, pages=pages)
    two = [data[i] for i in range(12) if (data[i]["image"].mean(0) < 0.5).any(0).numpy()[78:82].sum() == 0]
    assert two  # pages with a gap in the middle
    assert all(item["answer"].count("\n") == 7 for item in two)


def ink(item):
    """Which pixels differ from the corner's, of a drawn scene without noise."""
    image = item["image"]
    ground = image.flatten(1).median(1).values
    return ((image - ground[:, None, None]).abs().amax(0) > 0.12).numpy()


def test_boxes_of_drawn_things_are_where_the_ink_is(monkeypatch):
    monkeypatch.setattr("sak.vocabulary.data.drawn.NOISE", 0.0)
    data = made({"detection": 1.0}, train=60)
    for index in range(60):
        item = data[index]
        assert item["prompt"] == DETECT_ALL
        boxes = parse_boxes(item["answer"]).boxes
        inked = ink(item)
        covered = np.zeros_like(inked)
        for box in boxes:
            x1, y1, x2, y2 = (round(value * 128) for value in box)
            covered[y1:y2, x1:x2] = True
            part = inked[y1:y2, x1:x2]
            assert min(part.any(1).mean(), part.any(0).mean()) > 0.9  # the thing fills its box from side to side
        assert not (inked & ~covered).any()


def test_more_than_thirty_objects_are_asked_for_by_class(tmp_path):
    folder = write_coco(tmp_path, {"a": 20, "b": 9, "c": 25})
    data = made({"detection": 1.0}, train=10, objects=str(folder / "boxes.json"), root=str(folder), least_object=0.0)
    for index in range(10):
        item = data[index]
        names = item["prompt"].removeprefix("Detect ").removesuffix(" in this image").split(", ")
        found = parse_boxes(item["answer"]).objects
        assert sorted(found) == names
        assert sum(map(len, found.values())) <= MOST_BOXES
        assert all(len(found[name]) == {"a": 20, "b": 9, "c": 25}[name] for name in names)


def write_coco(folder, counts, size=(200, 100), extra=()):
    Image.new("RGB", size).save(folder / "one.png")
    categories = [{"id": 10 + k, "name": name} for k, name in enumerate(counts)]
    boxes = [(c["id"], [3 * k, 5, 4, 20]) for c in categories for k in range(counts[c["name"]])]
    annotations = [
        {"id": k, "image_id": 7, "category_id": c, "bbox": b, "area": 80, "iscrowd": 0}
        for k, (c, b) in enumerate(boxes)
    ]
    image = {"id": 7, "file_name": "one.png", "width": size[0], "height": size[1]}
    content = {"images": [image], "categories": categories, "annotations": [*annotations, *extra]}
    (folder / "boxes.json").write_text(json.dumps(content))
    return folder


def test_coco_boxes_are_cut_at_the_image_and_crowds_left_out(tmp_path):
    extra = [
        {"id": 90, "image_id": 7, "category_id": 10, "bbox": [150, 50, 100, 100], "iscrowd": 0},
        {"id": 91, "image_id": 7, "category_id": 10, "bbox": [0, 0, 200, 100], "iscrowd": 1},
    ]
    folder = write_coco(tmp_path, {"dog": 0}, extra=extra)
    data = made({"detection": 1.0}, train=1, objects=str(folder / "boxes.json"), root=str(folder))
    assert data[0]["answer"] == "dog: [750, 500, 1000, 1000]."

    extra[0]["bbox"] = [250, 50, 10, 10]
    write_coco(tmp_path, {"dog": 0}, extra=extra)
    with pytest.raises(UserError, match=r"annotation 90\) lies outside of its image"):
        made({"detection": 1.0}, train=1, objects=str(folder / "boxes.json"), root=str(folder))


def test_objects_of_mini_context_are_its_instances(tmp_path):
    root = tmp_path / "mini"
    data = made({"detection": 1.0}, "val", val=4, objects="mini_context", root=str(root), scenes=4, image_size=64)
    answers = {data[i]["answer"] for i in range(4)}
    (only,) = (root / "ImageSets/Context/val.txt").read_text().split()
    instances = np.array(Image.open(root / "SegmentationObject" / f"{only}.png"))
    classes = np.array(Image.open(next((root / "semseg").glob(f"*/{only}.png"))))
    expected = []
    for number in np.unique(instances[(classes > 0) & (classes < 255)]):  # borders are no object
        rows, columns = np.nonzero(instances == number)
        if len(rows) >= 0.01 * 64 * 64:
            expected.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert len(answers) == 1
    found = parse_boxes(answers.pop()).boxes
    np.testing.assert_allclose(sorted(found), sorted((np.array(expected) / 64).tolist()), atol=0.0006)


RED_BALL = Object("ball", (0.1, 0.1, 0.3, 0.3), "red ball")
OTHER_RED_BALL = Object("ball", (0.7, 0.1, 0.8, 0.2), "red ball")
BLUE_BALL = Object("ball", (0.1, 0.7, 0.3, 0.9), "blue ball")
BOTTLE = Object("bottle", (0.45, 0.4, 0.55, 0.8), "green bottle")


def test_expressions_mean_one_object():
    said = set(expressions([RED_BALL, OTHER_RED_BALL, BLUE_BALL, BOTTLE]))
    assert (0, "the red ball left of the bottle") in said
    assert (1, "the red ball right of the green bottle") in said
    assert (0, "the leftmost red ball") in said
    assert (2, "the blue ball") in said
    assert (3, "the bottle") in said
    assert (1, "the rightmost ball") in said
    texts = [text for _, text in said]
    assert len(texts) == len(set(texts))  # none means two
    assert not {"the red ball", "the ball", "the leftmost ball", "the ball left of the bottle"} & set(texts)


def test_the_box_of_an_expression_is_that_of_the_things_colour():
    data = made({"expression": 1.0}, train=80)
    from sak.vocabulary.data.drawn import COLOURS

    checked = 0
    for index in range(80):
        item = data[index]
        words = item["prompt"].split()
        colour = next((word for word in words if word in COLOURS), None)
        if colour is None or "of" in words or "above" in words or "below" in words:
            continue
        ((x1, y1, x2, y2),) = parse_boxes(item["answer"]).boxes
        x, y = int((x1 + x2) * 64), int((0.25 * y1 + 0.75 * y2) * 128)
        patch = item["image"][:, y - 1 : y + 2, x - 1 : x + 2].mean((1, 2)).numpy() * 255
        nearest = min(COLOURS, key=lambda name: np.abs(patch - COLOURS[name]).sum())
        checked += 1
        if "house" not in words and "cup" not in words:
            assert nearest == colour or np.abs(patch - COLOURS[colour]).max() < 40
    assert checked > 20


def test_questions_about_a_table():
    rng = np.random.default_rng(0)
    table = Table(("oak", "pine", "fir"), (20, 75, 50))
    found = dict(ask(table, rng) for _ in range(200))
    assert found["Which has the highest value?"] == "pine"
    assert found["Which has the lowest value?"] == "oak"
    assert found["How many values are shown?"] == "3"
    assert found["What is the value of fir?"] == "50"
    assert found["What is the difference between oak and pine?"] == "55"


def write_pdf(path, lines, size=(210, 297)):
    """A PDF file with a text layer, written out by hand: one page a list of lines; an empty list for a scan."""
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    kids = " ".join(f"{4 + 2 * k} 0 R" for k in range(len(lines)))
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(lines)} >>", font]
    for k, page in enumerate(lines):
        drawn = "".join(f"BT /F1 20 Tf 20 {size[1] - 40 - 30 * n} Td ({line}) Tj ET\n" for n, line in enumerate(page))
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] /Contents {5 + 2 * k} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>",
            f"<< /Length {len(drawn)} >>\nstream\n{drawn}endstream",
        ]
    text, places = "%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(text))
        text += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    start = len(text)
    text += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    text += f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n"
    Path(path).write_bytes(text.encode("latin-1"))


def test_pdf_pages_come_with_their_text(tmp_path):
    pytest.importorskip("pypdfium2")
    pages = [[f"page {k}", f"of number {k * k}"] if k % 3 else [] for k in range(60)]
    write_pdf(tmp_path / "one.PDF", pages)
    found = {}
    for split in ("train", "val"):
        data = made({"pdf": 1.0}, split, train=60, val=60, image_size=150, pdfs=str(tmp_path))
        items = [data[i] for i in range(60)]
        found[split] = {item["answer"] for item in items}
        assert all((item["image"] < 0.5).any() and item["image"][:, 0, 0].min() > 0.99 for item in items)
    written = {"\n".join(page) for page in pages if page}
    assert found["train"] | found["val"] <= written
    assert len(found["train"]) > 10
    assert found["val"]
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(UserError, match=r"broken\.pdf is no PDF file"):
        made({"pdf": 1.0}, pdfs=str(tmp_path))


@pytest.mark.parametrize(
    ("kinds", "settings", "said"),
    [
        ({}, {}, "kinds is empty"),
        ({"text": 0.0}, {}, "kinds is empty"),
        ({"texts": 1.0}, {}, "did you mean text"),
        ({"pdf": 1.0}, {}, "pdfs is null"),
        ({"pdf": 1.0}, {"pdfs": "nowhere"}, "nowhere is no folder"),
        ({"text": 1.0}, {"pages": PageConfig(texts="nowhere")}, "nowhere is no folder"),
        ({"text": 1.0}, {"pages": PageConfig(fonts=["nowhere.ttf"])}, r"nowhere\.ttf is no font"),
        ({"text": 1.0}, {"pages": PageConfig(font_size=[60, 300])}, "font_size begins at 60"),
        ({"detection": 1.0}, {"objects": "mini_context"}, "root is null"),
        ({"detection": 1.0}, {"objects": "cocoo.json", "root": "."}, "there is none at cocoo.json"),
    ],
)
def test_mistakes_are_told(kinds, settings, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        made(kinds, **settings)
