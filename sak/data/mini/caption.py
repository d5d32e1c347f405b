"""A natural caption of a scene: what can be seen, the main object first, and where."""

from __future__ import annotations

import numpy as np

from sak.data.mini.classes import VOC
from sak.data.mini.render import Rendering
from sak.data.mini.scene import Scene
from sak.data.mini.thing import with_article

VISIBLE = 0.012  # share of the image below which an object is not mentioned
WORDS = {"diningtable": "dining table", "pottedplant": "plant", "tvmonitor": "tv"}  # where English differs from VOC
TEMPLATES = ("{} {}", "{} {}", "a photo of {} {}", "a picture of {} {}", "{} {}")
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


def plural(noun: str) -> str:
    if noun.startswith("person"):
        return "people" + noun[len("person") :]
    for ending, many in (("person", "people"), ("sheep", "sheep"), ("bus", "buses"), ("couch", "couches")):
        if noun.endswith(ending):
            return noun[: -len(ending)] + many
    return noun + "s"


def caption(scene: Scene, rendering: Rendering, rng: np.random.Generator) -> str:
    """One sentence without a full stop, such as "a red car and two people on a road under a blue sky"."""
    areas = np.bincount(rendering.instances.ravel(), minlength=len(scene.things) + 1)[1:] / rendering.instances.size
    seen = [i for i in np.argsort(-areas, kind="stable") if areas[i] > VISIBLE and scene.things[i].voc != "background"]
    groups: dict[str, list[str]] = {}
    for i in ([0] if areas[0] > VISIBLE else []) + [i for i in seen if i != 0]:
        groups.setdefault(scene.things[i].voc, []).append(scene.things[i].phrase)
    phrases = []
    for voc, same in list(groups.items())[:4]:
        if len(same) == 1:
            phrases.append(with_article(same[0]))
        else:
            phrases.append(f"{NUMBERS.get(len(same), 'several')} {plural(WORDS.get(voc, voc))}")
    extras = [
        scene.things[i] for i in np.argsort(-areas, kind="stable") if areas[i] > 0.03 and not scene.things[i].stuff
    ]
    extras = [thing.phrase for thing in extras if thing.voc == "background" and thing.name not in ("book", "rug")]
    if extras and rng.random() < 0.4 and len(phrases) < 3:
        phrases.append(with_article(extras[0]) if extras[0] != "shelves" else "shelves")
    if not phrases:
        phrases = ["nothing much"]
    listed = phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(listed, scene.place)


assert all(name in VOC for name in WORDS)
