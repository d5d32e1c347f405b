"""What is asked of a scene: all its objects, those of some classes, or the one that an expression means."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from sak.errors import UserError
from sak.vocabulary.data.objects import Object, Scenes
from sak.vocabulary.data.source import Drawn
from sak.vocabulary.prompts import DETECT_ALL, MOST_BOXES, Box, box_string, detect, one_box, refer

CLEARLY, HARDLY = 0.08, 0.0  # of the image's side: a relation holds from the first on, and fails up to the second
LARGER = 1.3  # times the area of any other of its class: the largest
RELATIONS = ("left of", "right of", "above", "below")


class Detection:
    """All objects where there are at most `MOST_BOXES`, else those of some classes (Vary-toy, section 3.2.2).

    Classes are in the order of their names, boxes from left to right: one answer is right, and no other.
    """

    def __init__(self, scenes: Scenes):
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def sample(self, number: int, rng: np.random.Generator) -> Drawn:
        image, objects = self.scenes.scene(number, rng)
        by_class: dict[str, list[Box]] = defaultdict(list)
        for thing in objects:
            by_class[thing.name].append(thing.box)
        prompt = DETECT_ALL
        if len(objects) > MOST_BOXES:
            classes = _some(by_class, rng)
            by_class, prompt = {name: by_class[name] for name in classes}, detect(classes)  # type: ignore[assignment]
        return Drawn(image, prompt, box_string({name: sorted(by_class[name]) for name in sorted(by_class)}))


def _some(by_class: dict[str, list[Box]], rng: np.random.Generator) -> list[str]:
    """Classes at random whose boxes are at most `MOST_BOXES`; the rarest where each alone has more."""
    chosen: list[str] = []
    total = 0
    for name in rng.permutation(sorted(by_class)).tolist():
        if total + len(by_class[name]) <= MOST_BOXES:
            chosen.append(name)
            total += len(by_class[name])
    return sorted(chosen) or [min(sorted(by_class), key=lambda name: len(by_class[name]))]


class Expressions:
    """The one object that an expression means; a scene of which nothing can be said so is passed over for the next."""

    def __init__(self, scenes: Scenes):
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def sample(self, number: int, rng: np.random.Generator) -> Drawn:
        for further in range(max(100, len(self.scenes))):
            image, objects = self.scenes.scene((number + further) % (len(self.scenes) or 1), rng)
            if said := list(expressions(objects)):
                # Each object as likely, and each way to mean it.
                target = sorted({index for index, _ in said})
                target_index = target[rng.integers(len(target))]
                ways = [expression for index, expression in said if index == target_index]
                return Drawn(image, refer(ways[rng.integers(len(ways))]), one_box(objects[target_index].box))
        raise UserError("no scene has an object that an expression can mean: take vocabulary.data.kinds.expression out")


def expressions(objects: Sequence[Object]) -> Iterator[tuple[int, str]]:
    """(index of an object, an expression that means it alone): by what it is, by its size and place among its like, and
    by where it is from another one."""
    names = [(thing.name, thing.phrase or thing.name) for thing in objects]
    for index, thing in enumerate(objects):
        for name in dict.fromkeys(names[index]):
            like = [k for k in range(len(objects)) if name in names[k]]
            if like == [index]:
                yield index, f"the {name}"
                continue
            others = [objects[k] for k in like if k != index]
            yield from ((index, f"the {word} {name}") for word in _superlatives(thing, others))
            for anchor_index, anchor in enumerate(objects):
                for anchor_name in dict.fromkeys(names[anchor_index]):
                    if anchor_index not in like and sum(anchor_name in known for known in names) == 1:
                        yield from (
                            (index, f"the {name} {relation} the {anchor_name}")
                            for relation, value in _relations(thing, anchor).items()
                            if value >= CLEARLY and all(_relations(k, anchor)[relation] <= HARDLY for k in others)
                        )


def _superlatives(thing: Object, others: Sequence[Object]) -> Iterator[str]:
    x = _centre(thing)[0]
    if all(x + CLEARLY <= _centre(other)[0] for other in others):
        yield "leftmost"
    if all(x - CLEARLY >= _centre(other)[0] for other in others):
        yield "rightmost"
    if all(_area(thing) >= LARGER * _area(other) for other in others):
        yield "largest"
    if all(_area(thing) * LARGER <= _area(other) for other in others):
        yield "smallest"


def _relations(thing: Object, anchor: Object) -> dict[str, float]:
    """How far the thing's centre is to each side of the anchor's, in shares of the image."""
    (x, y), (u, v) = _centre(thing), _centre(anchor)
    return dict(zip(RELATIONS, (u - x, x - u, v - y, y - v), strict=True))


def _centre(thing: Object) -> tuple[float, float]:
    x1, y1, x2, y2 = thing.box
    return (x1 + x2) / 2, (y1 + y2) / 2


def _area(thing: Object) -> float:
    x1, y1, x2, y2 = thing.box
    return (x2 - x1) * (y2 - y1)
