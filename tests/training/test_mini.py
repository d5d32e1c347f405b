"""The miniature of the main job, made smaller still: its own config, renderer and committee."""

import json
from pathlib import Path

from sak import Student, config
from sak.training.train import train

ROOT = Path(__file__).parents[2]


def test_the_mini_config_from_rendering_to_results(tmp_path, pictures):
    settings = config.load(
        ROOT / "configs" / "sak_pascal_mini.yaml",
        [
            f"output={tmp_path}",
            f"data.root={tmp_path}/mini_context",
            "data.renderer={train: 8, val: 4, unlabelled: 6}",
            "data.workers=0",
            "stages.distill={steps: 2, batch_size: 4}",
            "stages.multitask={steps: 2, batch_size: 4}",
        ],
    )
    run = train(settings)
    student = Student.from_pretrained(run.student)
    assert student.sources == ("stem", "dinov2", "clip", "sam")
    assert set(json.loads(run.metrics.read_text())) == {"semseg", "human_parts", "saliency", "normals", "edge"}
    assert (tmp_path / "mini_context" / "mini_context.json").is_file()
