"""The model card of a finished run: what it says, and that its snippet runs."""

import json
import re

import pytest
from PIL import Image

from sak.config.schema import TeacherSpec
from sak.deploy.card import UNKNOWN, licence


def test_the_card_of_a_run(trained, tmp_path, monkeypatch):
    text = (trained / "student/README.md").read_text()
    metrics = json.loads((trained / "metrics.json").read_text())
    assert text.startswith("---\nlibrary_name: sak\n")
    assert "- `semseg`: 21 classes: background, aeroplane, bicycle" in text
    assert re.search(rf"\| edge +\| ods_f +\| +{metrics['edge']['ods_f']:.2f} \|", text)
    assert re.search(r"\| dinov2 +\| dinov2: vit_small_patch14_dinov2 +\| untrained", text)
    for name in re.findall(r"!\[.*\]\((.*)\)", text):
        assert Image.open(trained / "student" / name).size[0] > 100
    assert len(re.findall(r"!\[", text)) == 2
    # Nothing of the machine: neither where the run lies, nor its data.
    assert str(trained.parent) not in text
    assert "/fixtures/" not in text
    assert "root: PASCALContext" in text
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(snippet.replace('Predictor(".")', f"Predictor({str(trained / 'student')!r}, longest_edge=96)"), {})
    assert Image.open("panel.png").size[0] > 500


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"family": "sam", "model": "vit_b"}, "Apache-2.0"),
        ({"family": "clip", "model": "ViT-B-16", "options": {"pretrained": "openai"}}, "MIT"),
        ({"family": "clip", "model": "ViT-B-16", "options": {"pretrained": "somebody"}}, UNKNOWN),
        ({"family": "dinov2", "model": "vit_base_patch14_dinov2.lvd142m"}, "apache-2.0"),
        ({"family": "my.module:Teacher", "model": "x"}, UNKNOWN),
        (
            {"family": "sam", "model": "vit_b", "weights": "teachers/mini/sam.safetensors"},
            "Apache-2.0, of this package",
        ),
        ({"family": "sam", "model": "vit_b", "weights": "/data/secret/sam.pth"}, "of the file sam.pth"),
        ({"family": "sam", "model": "vit_b", "weights": "random"}, "untrained"),
    ],
)
def test_licences(spec, expected):
    assert licence(TeacherSpec(**spec)) == expected
