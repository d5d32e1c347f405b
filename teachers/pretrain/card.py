"""The card of a miniature: how it was made, what it is, and what it is worth."""

import textwrap
from pathlib import Path

from sak.files import write_text
from sak.plotting import save
from teachers.pretrain.evaluation import Evaluation

PARADIGMS = {
    "dinov2": "self-distillation of images and masked patches, as DINOv2 does",
    "clip": "contrast of images with captions, as CLIP does",
    "sam": "masks from a point, as SAM does",
    "vit": "labels of the things in the picture, as ImageNet's classifiers are",
}


def write(output: Path, name: str, command: str, made: dict[str, str], evaluation: Evaluation) -> None:
    """Write `<name>.md` and its figure `<name>.png` to `output`; `made` is a table of facts about the training."""
    save(evaluation.figure, output / f"{name}.png")
    facts = "\n".join(f"| {fact} | {value} |" for fact, value in made.items())
    rows = "\n".join(f"| {measure} | {ours:.1f} | {theirs:.1f} |" for measure, ours, theirs in evaluation.rows)
    about = textwrap.fill(
        f"A small vision transformer, trained by {PARADIGMS[name]}, on rendered scenes. It stands in for its big "
        "sister where nothing can be downloaded; it has never seen a photograph.",
        110,
    )
    notes = textwrap.fill(evaluation.notes, 110)
    write_text(
        output / f"{name}.md",
        f"""# The miniature {name} teacher

{about}

```
{command}
```

| | |
|---|---|
{facts}

Measured on held-out scenes (the val split):

| % | {name} | {evaluation.baseline} |
|---|---|---|
{rows}

{notes}

![Measures and examples]({name}.png)
""",
    )
