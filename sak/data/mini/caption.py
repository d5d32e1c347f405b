"""A natural caption of a scene: what can be seen, the main object first, and where."""

from __future__ import annotations

import numpy as np

from sak.data.mini.classes import VOC
from sak.data.mini.render import Rendering
from sak.data.mini.scene import Scene
from sak.data.mini.things.thing import with_article

VISIBLE, CLUTTER_VISIBLE = 0.012, 0.03  # share of the image below which an object, or clutter, is not mentioned
UNMENTIONED = ("book", "rug")  # clutter that captions leave out
# The words that captions have for each class, the one for several of a kind first.
NOUNS = {name: (name,) for name in VOC[1:]} | {
    "diningtable": ("dining table",),
    "person": ("person", "people"),
    "bird": ("bird", "duck", "heron"),
    "car": ("car", "van", "truck"),
    "dog": ("dog", "dachshund"),
    "motorbike": ("motorbike", "scooter"),
    "pottedplant": ("plant",),
    "sheep": ("sheep", "ram"),
    "sofa": ("sofa", "couch"),
    "tvmonitor": ("tv", "television", "monitor"),
}
TEMPLATES = ("{} {}", "{} {}", "a photo of {} {}", "a picture of {} {}", "{} {}")
PLURALS = {"person": "people", "sheep": "sheep", "bus": "buses"}  # of the others: with s
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


def caption(scene: Scene, rendering: Rendering, rng: np.random.Generator) -> str:
    """One sentence without a full stop, such as "a red car and two people on a road under a blue sky"."""
    areas = np.bincount(rendering.instances.ravel(), minlength=len(scene.things) + 1)[1:] / rendering.instances.size
    by_size = [(scene.things[i], areas[i]) for i in np.argsort(-areas, kind="stable")]
    objects = [thing for thing, area in by_size if thing.voc != "background" and area > VISIBLE]
    objects.sort(key=lambda thing: thing is not scene.things[0])  # stable: the main object first
    groups: dict[str, list[str]] = {}
    for thing in objects:
        groups.setdefault(thing.voc, []).append(thing.phrase)
    phrases = [name_group(voc, same) for voc, same in list(groups.items())[:4]]

    clutter = [thing for thing, area in by_size if thing.voc == "background" and area > CLUTTER_VISIBLE]
    clutter = [thing.phrase for thing in clutter if thing.name not in UNMENTIONED]
    if clutter and rng.random() < 0.4 and len(phrases) < 3:
        phrases.append(with_article(clutter[0]))
    phrases = phrases or ["nothing much"]
    listed = phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(listed, scene.place)


def name_group(voc: str, phrases: list[str]) -> str:
    """ "a red car", or "two cars"."""
    if len(phrases) == 1:
        return with_article(phrases[0])
    noun = NOUNS[voc][0]
    return f"{NUMBERS.get(len(phrases), 'several')} {PLURALS.get(noun, noun + 's')}"
