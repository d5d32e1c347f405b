"""How each miniature is trained: its objective, and the phases of its training."""

import dataclasses

from teachers.pretrain.contrastive import Contrastive
from teachers.pretrain.loop import Objective, Phase
from teachers.pretrain.promptable import Promptable
from teachers.pretrain.self_distillation import SelfDistillation
from teachers.pretrain.supervised import Supervised


@dataclasses.dataclass(frozen=True)
class Recipe:
    objective: type[Objective]
    phases: tuple[Phase, ...]

    def scaled(self, steps: int | None = None, batch_size: int | None = None) -> "Recipe":
        """With so many steps in all and so many images in the first phase's steps, the phases in proportion."""
        total = sum(phase.steps for phase in self.phases)
        longer = 1.0 if steps is None else steps / total
        larger = 1.0 if batch_size is None else batch_size / self.phases[0].batch_size
        phases = [
            dataclasses.replace(
                phase,
                steps=max(1, round(phase.steps * longer)),
                batch_size=max(2, round(phase.batch_size * larger)),
            )
            for phase in self.phases
        ]
        rest = (total if steps is None else steps) - sum(phase.steps for phase in phases[1:])
        return dataclasses.replace(self, phases=(dataclasses.replace(phases[0], steps=rest), *phases[1:]))


RECIPES = {
    "dinov2": Recipe(SelfDistillation, (Phase("small", 7000, 96, 1e-3), Phase("large", 800, 32, 3e-4))),
    "clip": Recipe(Contrastive, (Phase("few patches", 5000, 128, 1e-3), Phase("all patches", 600, 64, 2e-4))),
    "sam": Recipe(Promptable, (Phase("quarters", 5000, 24, 1e-3), Phase("wholes", 1500, 8, 4e-4))),
    "vit": Recipe(Supervised, (Phase("few patches", 6000, 128, 1e-3), Phase("all patches", 800, 64, 2e-4))),
}
