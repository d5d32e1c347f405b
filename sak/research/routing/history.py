"""How the mean weights of a run's routers changed while it trained, from its events."""

from collections.abc import Sequence

from sak.config.schema import STAGES
from sak.training.router_record import weight_tag
from sak.training.tracking import Scalars

History = dict[str, dict[int, dict[str, list[tuple[int, float]]]]]  # {task: {block: {source: [(step, weight)]}}}


def router_history(
    scalars: Scalars, tasks: Sequence[str], sources: Sequence[str], levels: Sequence[int], group: str
) -> History:
    """The router weights of a run, in the order of the second stage's steps.

    Args:
        scalars: of its events.
        group: ``router_record.VALIDATION`` or ``router_record.TRAINING``.

    Returns:
        what was found; a router without scalars is left out.
    """
    history: History = {}
    for task in tasks:
        for block in levels:
            tags = {source: f"{STAGES[-1]}/{group}/{weight_tag(task, block, source)}" for source in sources}
            series = {
                source: [(scalar.step, scalar.value) for scalar in scalars[tag]]
                for source, tag in tags.items()
                if tag in scalars
            }
            if series:
                history.setdefault(task, {})[block] = series
    return history
