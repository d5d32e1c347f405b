"""What a data set says of itself: its tasks, their classes and colours, how many images it has, how it is evaluated."""

import dataclasses
from collections.abc import Mapping

from sak.errors import UserError
from sak.tasks import Task, TaskDescription, find_task


@dataclasses.dataclass(frozen=True)
class Description:
    """
    Attributes:
        title: what people call it.
        tasks: what it says of the labels of each task that it has.
        splits: {split: images that it has as it was published}; {} where nothing is known of that.
        benchmark: under which published baselines and checkpoints know it; None where none do.
    """

    title: str
    tasks: Mapping[str, TaskDescription]
    splits: Mapping[str, int] = dataclasses.field(default_factory=dict)
    benchmark: str | None = None

    def build(self, entry: str) -> Task:
        """The task that an entry of ``data.tasks`` names, on this data set's labels.

        A task of one's own describes its labels itself, unless the data set does.

        Raises:
            UserError: there is no such task, or the data set has no labels of it.
        """
        kind = find_task(entry)
        description = self.tasks.get(kind.name, kind.default if ":" in entry else None)
        if description is None:
            raise UserError(f"{self.title} has no task {kind.name!r}: it has {', '.join(self.tasks) or 'none'}.")
        return kind(description)

    def has(self, channels: Mapping[str, int]) -> bool:
        """Whether it has all of these tasks, with these output channels."""
        return all(name in self.tasks and self.tasks[name].channels == count for name, count in channels.items())
