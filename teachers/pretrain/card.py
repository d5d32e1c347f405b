"""The card of a miniature: how it was made, what it is, and what it is worth."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from sak.files import write_text
from sak.plotting import save
from teachers.pretrain.evaluation import Evaluation
from teachers.pretrain.measures import MIDDLE

PARADIGMS = {
    "dinov2": "self-distillation of images and masked patches, as DINOv2 does",
    "clip": "contrast of images with captions, as CLIP does",
    "sam": "masks from a point, as SAM does",
    "vit": "labels of the things in the picture, as ImageNet's classifiers are",
}


def write(
    output: Path,
    name: str,
    command: str,
    made: Mapping[str, str],
    taught: Evaluation,
    ours: Mapping[str, float],
    pixels: Mapping[str, float],
) -> None:
    """Write `<name>.md` and its figure `<name>.png` to `output`.

    Args:
        made: facts about the training.
        taught: what it has learnt of what it was taught.
        ours, pixels: what its frozen features, and plain pixels, answer to the panel's questions.
    """
    save(taught.figure, output / f"{name}.png")
    facts = "\n".join(f"| {fact} | {value} |" for fact, value in made.items())
    about = textwrap.fill(
        f"A small vision transformer, trained by {PARADIGMS[name]}, on rendered scenes. It stands in for its big "
        "sister where nothing can be downloaded; it has never seen a photograph.",
        110,
    )
    notes = textwrap.fill(taught.notes, 110)
    panel = {
        question: (answer, pixels[question])
        for question, answer in ours.items()
        if question in pixels and question not in taught.rows
    }
    middle, last = ours[MIDDLE], ours["semseg, linear mIoU"]
    explained = textwrap.fill(
        "Normals are off by so many degrees, all else is in percent. Thumbnail: the better of 4 x 4 and 8 x 8 pixels "
        "of the image, and for cells of 4 pixels a side those in them and around them, with their place. Of the "
        "network the class token or image embedding (SAM: the mean patch), and the patches of the last level. The "
        f"segmentation of a middle level has {middle:.1f} %, of the last {last:.1f} %. Probes learn on train.",
        110,
    )
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

{table(taught.columns, taught.rows)}

{notes}

Its frozen features beside plain pixels:

{table((name, "thumbnail"), panel)}

{explained}

![Measures and examples]({name}.png)
""",
    )


def table(columns: tuple[str, ...], rows: Mapping[str, tuple[float, ...]]) -> str:
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for measure, values in rows.items():
        lines.append(f"| {measure} | {' | '.join(f'{value:.1f}' for value in values)} |")
    return "\n".join(lines)
