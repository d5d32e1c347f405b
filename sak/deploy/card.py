"""The model card of a run's student: README.md of its bundle, with the pictures that it shows."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from sak import environment, tables
from sak.config.schema import LOCATIONS, TeacherSpec, teacher_spec
from sak.evaluation import metrics_table
from sak.files import replacing, write_text
from sak.metrics import Metrics
from sak.student import Student
from sak.tasks import Task

HEADER = """---
library_name: sak
pipeline_tag: image-segmentation
tags:
- multi-task
- distillation
- semantic-segmentation
---"""
USE = """```python
import sak
from skimage.data import astronaut

predictor = sak.Predictor(".")  # the folder of this file, or its id on the hub
prediction = predictor(astronaut())  # or a path, a Pillow image, an array
prediction["{task}"]  # a map of the picture's size
prediction.panel().savefig("panel.png")
```"""
UNKNOWN = "not known here: ask whoever published it"
LEFT_OUT = ("output", "probe", "cache")  # of the config: no part of the training
VERSIONS = ("python", "torch", "timm", "git")
OURS = "teachers/mini/"  # weights that come with this package


def write_card(
    bundle: Path,
    config: DictConfig,
    student: Student,
    tasks: Mapping[str, Task],
    metrics: Metrics,
    constants: Metrics,
    pictures: Mapping[str, Path],
) -> None:
    """Into a bundle that is there.

    Args:
        constants: the metrics of the best constant predictions.
        pictures: {title: file}; those that are there are copied beside the card.
    """
    shown = []
    for title, file in pictures.items():
        if file.is_file():
            name = f"{title.replace(' ', '_')}.png"
            with replacing(bundle / name) as partial:
                shutil.copyfile(file, partial)
            shown.append(f"![{title}]({name})")
    write_text(bundle / "README.md", card(config, student, tasks, metrics, constants, shown))


def card(
    config: DictConfig,
    student: Student,
    tasks: Mapping[str, Task],
    metrics: Metrics,
    constants: Metrics,
    pictures: list[str],
) -> str:
    """The text. It holds no path of the machine that the run was on."""
    height, width = student.image_size
    weights = sum(weight.numel() for weight in student.parameters()) / 1e6
    settings = OmegaConf.masked_copy(config, [str(key) for key in config if key not in LEFT_OUT])
    for key in LOCATIONS:
        if OmegaConf.select(settings, key) is not None:
            OmegaConf.update(settings, key, Path(OmegaConf.select(settings, key)).name)
    described = environment.describe()
    versions = ", ".join(f"{what} {described[what]}" for what in VERSIONS)
    sections = [
        HEADER,
        f"# {config.name}",
        f"A Swiss Army Knife student ([arXiv 2410.14633](https://arxiv.org/abs/2410.14633)) of {weights:.1f} M weights "
        f"with the stem `{config.student.stem}`: from RGB images in [0, 1], {height}x{width} in training, of any size "
        f"that {student.stem.patch_size} divides,",
        "\n".join(f"- `{name}`: {_what(task)}" for name, task in tasks.items()),
        USE.format(task=next(iter(tasks))),
        "## Metrics",
        tables.markdown(metrics_table.rows(tasks, {"student": metrics, "best constant": constants})),
        f"On the validation images of {config.data.dataset}. *Best constant*: what one and the same prediction for "
        "every pixel of every image can reach.",
        *pictures,
        "## Teachers",
        _teachers(config, student),
        "## Training",
        f"On {config.data.dataset}, by `python tools/train.py config.yaml` with the config below; {versions}.",
        f"<details><summary>config.yaml</summary>\n\n```yaml\n{OmegaConf.to_yaml(settings).rstrip()}\n```\n\n</details>",
    ]
    return "\n\n".join(sections) + "\n"


def _what(task: Task) -> str:
    if task.classes:
        return f"{len(task.classes)} classes: {', '.join(task.classes)}"
    return task.scale.label if task.scale else "unit vectors: x to the right, y up, z towards the viewer"


def _teachers(config: DictConfig, student: Student) -> str:
    if not student.paths:
        return "None."
    rows = [("teacher", "model", "licence of its weights")]
    for name in student.paths:
        if name in config.teachers:
            spec = teacher_spec(config.teachers[name])
            rows.append((name, f"{spec.family}: {spec.model}", licence(spec)))
        else:  # of the student that this one started from
            rows.append((name, "see the card of the student that this one started from", "–"))
    return tables.markdown(rows)


def licence(spec: TeacherSpec) -> str:
    """Of a teacher's published weights, as far as their families and timm tell it."""
    if spec.weights == "random":
        return "untrained"
    if spec.weights is not None:
        return "Apache-2.0, of this package" if OURS in spec.weights else f"of the file {Path(spec.weights).name}"
    if spec.family == "sam":
        return "Apache-2.0"
    if spec.family == "clip":
        return "MIT" if spec.options.get("pretrained") == "openai" else UNKNOWN
    if spec.family in ("dinov2", "timm"):
        import timm

        published = timm.models.get_pretrained_cfg(spec.model)
        return (published and published.license) or UNKNOWN
    return UNKNOWN
