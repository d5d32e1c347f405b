"""How the mean weights of a run's routers changed while it trained, from its events."""

from collections.abc import Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sak.training.router_record import weight_tag

History = dict[str, dict[int, dict[str, list[tuple[int, float]]]]]  # {task: {block: {source: [(step, weight)]}}}


def read_history(
    events: Path, tasks: Sequence[str], sources: Sequence[str], levels: Sequence[int], group: str
) -> History:
    """The scalars ``GROUP/TASK/blockN/SOURCE`` of a run, in the order of their steps.

    Args:
        events: the folder of the run's events; one that is not there holds none.
        group: ``tags.VALIDATION`` or ``tags.TRAINING``.

    Returns:
        what was found; a router without scalars is left out.
    """
    if not events.is_dir():
        return {}
    # All scalars are kept; of images and histograms, which are large, none is looked at.
    recorded = EventAccumulator(str(events), size_guidance={"scalars": 0, "images": 1, "histograms": 1})
    recorded.Reload()
    known = set(recorded.Tags()["scalars"])
    history: History = {}
    for task in tasks:
        for block in levels:
            tags = {source: f"{group}/{weight_tag(task, block, source)}" for source in sources}
            series = {
                source: sorted({event.step: event.value for event in recorded.Scalars(tag)}.items())
                for source, tag in tags.items()
                if tag in known
            }
            if series:
                history.setdefault(task, {})[block] = series
    return history
