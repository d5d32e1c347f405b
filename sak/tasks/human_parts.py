"""Human parts: background, head, torso, upper arm, lower arm, upper leg, lower leg.

Images without any part are ignored as a whole.
"""

from sak.tasks.classes import PARTS
from sak.tasks.semseg import Segmentation


class HumanParts(Segmentation):
    name = "human_parts"
    weight = 2.0
    channels_of = {"pascal_context": 7}
    classes_of = {"pascal_context": PARTS}
