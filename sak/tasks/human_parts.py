"""Human parts: background, head, torso, upper arm, lower arm, upper leg, lower leg.

Images without any part are ignored as a whole.
"""

from sak.tasks.description import TaskDescription
from sak.tasks.semseg import Segmentation

PARTS = ("background", "head", "torso", "upper arm", "lower arm", "upper leg", "lower leg")


class HumanParts(Segmentation):
    name = "human_parts"
    weight = 2.0
    default = TaskDescription.of_classes(PARTS, background=0, ignore_empty=True)
