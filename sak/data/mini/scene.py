"""What a scene is: things, a camera, lights and a sky.

World frame: the camera stands above the origin and looks along +y; z is up and the ground is z = 0; metres.
Camera frame: x right, y up, z towards the viewer. Image coordinates (u, v) lie in [-1, 1], v upwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sak.data.mini.primitives import rotation
from sak.data.mini.texture import Colour
from sak.data.mini.things.thing import Thing


@dataclass
class Camera:
    position: np.ndarray  # (3,)
    axes: np.ndarray  # (3, 3), rows: right, up, towards the viewer, in the world frame
    focal: float  # in half image widths


@dataclass
class Light:
    position: np.ndarray  # (3,), world
    colour: np.ndarray  # (3,), irradiance on a surface that faces it
    shadow: bool


@dataclass
class Scene:
    things: list[Thing]  # the main object first
    camera: Camera
    lights: list[Light]
    ambient: np.ndarray
    size: int  # pixels, height = width
    sky: tuple[Colour, Colour] = ((0.8, 0.8, 0.8), (0.5, 0.5, 0.5))  # sRGB at the horizon and overhead
    place: str = ""
    exposure: float = 1.0
    sensor_noise: float = 0.0
    seed: tuple[int, ...] = (0,)  # of the sensor noise and the clouds


def look_at(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """Camera axes for a view from `position` towards `target`."""
    back = position - target
    back = back / np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return (rotation(2, roll) @ np.stack([right, np.cross(back, right), back])).astype(np.float32)
