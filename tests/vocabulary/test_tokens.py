"""The curve of accuracy against vision tokens, by its tool."""

import json

from PIL import Image


def test_a_run_for_each_variant_and_one_table(reading, call_tool, tmp_path):
    reading()
    short = ["stages.vocabulary.steps=1", "stages.vocabulary.evaluate_every=null"]
    variants = ["--variant", "vocabulary.network.channels=[24,32]", "--variant", "vocabulary.network.channels=[32]"]
    command = (tmp_path / "reading.yaml", *short, *variants, "--output", tmp_path / "curve")
    code, out, errors = call_tool("vision_tokens", *command)
    assert (code, errors) == (0, [])
    rows = json.loads((tmp_path / "curve" / "tokens.json").read_text())
    assert [row["tokens"] for row in rows] == [4, 16]
    assert rows[0]["text tokens per token"] == 4 * rows[1]["text tokens per token"]
    assert {"text anls", "detection f1"} <= rows[0].keys()
    assert "channels=[32]" in (tmp_path / "curve" / "tokens.md").read_text()
    assert Image.open(tmp_path / "curve" / "tokens.png").size[0] > 300
    assert str(tmp_path / "curve" / "tokens.md") in out


def test_what_is_no_curve_is_refused(reading, call_tool, tiny, tmp_path):
    reading()
    variant = ("--variant", "vocabulary.data.image_size=64")
    for place, options, said in (
        (tiny, variant, "trains no vocabulary"),
        (tmp_path / "reading.yaml", variant * 2, "is given twice"),
        (tmp_path / "reading.yaml", ("--variant", "vocabulary.data.size=64"), "unknown key vocabulary.data.size"),
    ):
        code, _, errors = call_tool("vision_tokens", place, *options, "--output", tmp_path / "curve")
        assert code == 2
        assert len(errors) == 1
        assert said in errors[0]
    assert not (tmp_path / "curve").exists()
