"""What several processes of one job (torchrun's) have to say: what all of them would say is said once."""

import os
import warnings


def several() -> bool:
    """Whether this is one process of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def first_to_say(message: str) -> bool:
    """Whether no other process of the job has asked this of the same message before.

    The processes ask the store through which they find each other, so that the answer is to be had before they have,
    and after one of them has died. Where there is no such store any more, everybody may speak.
    """
    if not several():
        return True
    from datetime import timedelta

    from torch.distributed import TCPStore  # only now: it loads torch

    address, port = os.environ.get("MASTER_ADDR", "localhost"), int(os.environ.get("MASTER_PORT", "0"))
    try:
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))
        return store.add(f"sak/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{message}", 1) == 1
    except RuntimeError:
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
