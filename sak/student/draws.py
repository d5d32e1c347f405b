"""Random weights that do not depend on company: each part of a student draws from a stream of its own."""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


class Draws:
    """One number of torch's stream, and from it a stream for each part's name.

    Students that are built from one seed so share what they have in common, whatever other teachers or tasks they have.
    """

    def __init__(self):
        self.origin = int(torch.randint(2**62, (), device="cpu"))  # not on `meta`, where a student may be sketched

    @contextlib.contextmanager
    def of(self, part: str) -> Iterator[None]:
        digest = hashlib.sha256(f"{self.origin}/{part}".encode()).digest()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            yield
