"""The builder of each VOC class.

A builder takes dice and returns a Thing in its own frame (thing.py), about life-size, of one of its class's kinds.
"""

from __future__ import annotations

from collections.abc import Callable

from sak.data.mini.dice import Dice
from sak.data.mini.things.cattle import cow, horse, sheep
from sak.data.mini.things.furniture import chair, diningtable, sofa
from sak.data.mini.things.household import bottle, pottedplant, tvmonitor
from sak.data.mini.things.people import person
from sak.data.mini.things.pets import bird, cat, dog
from sak.data.mini.things.road import bicycle, bus, car, motorbike
from sak.data.mini.things.thing import Thing
from sak.data.mini.things.transport import aeroplane, boat, train

Builder = Callable[[Dice], Thing]

BUILDERS: dict[str, Builder] = {
    builder.__name__: builder
    for builder in (
        *(aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike),
        *(person, pottedplant, sheep, sofa, train, tvmonitor),
    )
}
