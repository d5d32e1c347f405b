"""Progress of long work on the terminal: how much is done, at what rate, and the time left."""

from tqdm import tqdm

# The rate always by the second: by itself the bar changes to seconds per piece where it falls below one.
LINE = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


def progress_bar(
    total: int, title: str, unit: str = "img", done: int = 0, shown: bool = True, leave: bool = True
) -> tqdm:
    """A bar to be updated by hand, inside a ``with`` block.

    Args:
        done: what was done at an earlier start, which is not taken for speed.
        shown: draw it; of several processes that work together, only one does.
        leave: keep the line when all is done.
    """
    return tqdm(
        total=total,
        initial=done,
        desc=title,
        unit=unit,
        disable=not shown,
        leave=leave,
        mininterval=1,
        dynamic_ncols=True,
        bar_format=LINE,
    )
