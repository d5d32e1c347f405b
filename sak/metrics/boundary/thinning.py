"""Thinning of binary maps to lines of one pixel (Guo and Hall, Communications of the ACM 1989, algorithm A1).

A pixel's fate depends on its eight neighbours alone, so that two tables of 256 entries hold the whole algorithm, one
for each of the two passes that alternate until nothing changes. Legend: K maps, H, W image.
"""

import numpy as np

# (row, column) of the neighbours in the order of the paper's x1 ... x8: from the right, counterclockwise.
NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def deletion_tables() -> tuple[np.ndarray, np.ndarray]:
    """bool (256,) for each pass: whether a pixel is deleted whose neighbour x_i is set where bit i - 1 is."""
    x = {i + 1: (np.arange(256) >> i & 1).astype(bool) for i in range(8)}
    x[9] = x[1]
    crossings = sum((~x[2 * i - 1] & (x[2 * i] | x[2 * i + 1])).astype(int) for i in range(1, 5))
    first_pairs = sum((x[2 * i - 1] | x[2 * i]).astype(int) for i in range(1, 5))
    second_pairs = sum((x[2 * i] | x[2 * i + 1]).astype(int) for i in range(1, 5))
    pairs = np.minimum(first_pairs, second_pairs)
    removable = (crossings == 1) & (pairs >= 2) & (pairs <= 3)
    return removable & ~((x[2] | x[3] | ~x[8]) & x[1]), removable & ~((x[6] | x[7] | ~x[4]) & x[5])


TABLES = deletion_tables()


def thin(masks: np.ndarray) -> np.ndarray:
    """Thin bool (..., H, W), each map by itself, until nothing changes."""
    height, width = masks.shape[-2:]
    padded = np.zeros((*masks.shape[:-2], height + 2, width + 2), dtype=np.uint8)
    padded[..., 1:-1, 1:-1] = masks
    flat = padded.reshape(-1)  # a view: the passes below work on lists of pixels of all maps at once
    offsets = np.array([row * (width + 2) + column for row, column in NEIGHBOURS])

    pixels = np.flatnonzero(flat)
    # The neighbourhood of each pixel as 8 bits, kept up to date as pixels vanish.
    codes = np.zeros_like(flat)
    for bit, offset in enumerate(offsets):
        codes[pixels] |= flat[pixels + offset] << np.uint8(bit)

    def delete(candidates: np.ndarray, table: np.ndarray) -> np.ndarray:
        """Delete those of the candidates that a pass deletes, and return them."""
        gone = candidates[table[codes[candidates]]]
        flat[gone] = 0
        for bit, offset in enumerate(offsets):
            codes[gone - offset] &= np.uint8(255 ^ (1 << bit))
        return gone

    # After the first of each, a pass can only delete pixels that lost a neighbour since its last turn.
    last_but_one = delete(pixels, TABLES[0])
    last = delete(pixels[flat[pixels] == 1], TABLES[1])
    turn = 0
    while last.size or last_but_one.size:
        touched = (np.concatenate([last_but_one, last])[:, None] + offsets).reshape(-1)
        touched = touched[flat[touched] == 1]
        deleted = np.unique(touched[TABLES[turn][codes[touched]]])
        last_but_one, last = last, delete(deleted, TABLES[turn])
        turn = 1 - turn
    return padded[..., 1:-1, 1:-1].astype(bool)
