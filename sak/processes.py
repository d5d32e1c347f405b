"""What several processes of one job (torchrun's) have to say: what all of them would say is said once."""

import os
import warnings

from sak.errors import UserError

NUMBERS, ADDRESS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"), "MASTER_ADDR"  # set by torchrun


def several() -> bool:
    """Whether this is one process of several."""
    return os.environ.get("WORLD_SIZE", "1") not in ("", "0", "1")


def check_launcher() -> None:
    """
    Raises:
        UserError: the environment is half that of a launcher, so that the processes would not find each other.
    """
    if not (several() or "LOCAL_RANK" in os.environ):
        return  # alone, whatever a scheduler says of ranks
    advice = "start through torchrun, or unset RANK, LOCAL_RANK and WORLD_SIZE"
    if lacking := [name for name in (*NUMBERS, ADDRESS) if not os.environ.get(name)]:
        there = "WORLD_SIZE" if several() else "LOCAL_RANK"
        raise UserError(f"{there} is set, as for one process of several, but {lacking[0]} is not: {advice}")
    if wrong := [name for name in NUMBERS if not os.environ[name].isdecimal()]:
        raise UserError(f"{wrong[0]} is {os.environ[wrong[0]]!r}, but must be a number: {advice}")
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank >= size:
        raise UserError(f"RANK is {rank}, but must be below WORLD_SIZE, which is {size}: {advice}")


def first_to_say(message: str) -> bool:
    """Whether no other process of the job has asked this of the same message before.

    The processes ask the store through which they find each other, so that the answer is to be had before they have,
    and after one of them has died. Where there is no such store any more, everybody may speak.
    """
    if not several():
        return True
    from datetime import timedelta

    from torch.distributed import TCPStore  # only now: it loads torch

    try:
        address, port = os.environ[ADDRESS], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))
        return store.add(f"sak/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{message}", 1) == 1
    except (RuntimeError, KeyError, ValueError):
        return True


def share_warnings() -> None:
    """From here on, a warning that several processes of the job would show is shown by one of them.

    Call it once in a process.
    """
    if not several():
        return
    show = warnings.showwarning

    def once(message, category, *where, **named):
        if first_to_say(f"{category.__name__}: {message}"):
            show(message, category, *where, **named)

    warnings.showwarning = once
