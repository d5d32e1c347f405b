"""Random lines of words, numbers and codes, of which little can be guessed without looking at the page."""

import string
import zlib

import numpy as np

HELD_OUT = 10  # one text in so many belongs to val, and never occurs in train

LIST = """
able acid air amber anchor apple april arch arrow atlas autumn axis bacon badge bamboo banjo basin beacon berry
birch bishop blaze bloom board bonus border bottle branch brass bread brick bridge brook bucket buffalo bugle
butter button cabin cactus camel canal candle canyon carbon cargo carpet castle cedar cello chalk cherry chess
cider cinema circle citrus clay cliff clock cloud clover cobalt coffee comet copper coral cosmos cotton cradle
crane crisp crown crystal daisy dawn delta denim desert diary dolphin domino dragon drift drum dune eagle early
echo eight elbow ember engine equal even fable falcon feather fern fiddle field finch flame flax flint flora fog
forest fossil fox frost garden garlic gate gentle ginger glacier glass globe gold grain granite grape gravel
green guitar gull hammer harbor harp haven hazel helmet herb heron hill honey horizon humble ice igloo index ink
iris island ivory jacket jade jar jasmine jelly jewel jigsaw jockey joy jungle junior kayak kernel kettle kind
kiosk kitten kiwi knot koala label lagoon lamp lantern larch laser lava leaf lemon level lilac lime linen lion
lobby lotus lunar lynx magnet mango maple marble marsh meadow melon metal mint mirror mosaic moss motor mural
myth navy nectar needle nest night noble north novel oak oasis oat ocean olive onyx opal orbit orchid otter oval
owl oxide oyster paddle palm panda paper parade peach pearl pepper piano pilot pine planet plaza plum polar pond
poppy prairie prism pulse pumpkin quartz queen quick quiet quilt quiver radar radio rain raven reef relay ribbon
ridge river robin rocket rose ruby rust saddle saffron sail salt sand satin scarf seven shadow shell silk silver
siren six sketch sky slate snow solar sonnet spark spice spiral spring stone storm sugar summit sun swan table
tango teal temple thunder tiger timber toast topaz torch tower trail tulip tunnel turtle twin ultra umber under
unity upper urban valley vapor velvet verse vessel vine violet violin visor vivid volcano wagon walnut water
wave wax west whale wheat wheel willow window winter wolf wool xenon yacht yarn yellow yoga young zebra zenith
zero zest zigzag zinc zone
"""
WORDS = tuple(LIST.split())
SHORTEST = min(map(len, WORDS))
# Shares of the pieces of a line. Codes are letters and digits at random: who has learnt the words by heart, and looks
# at nothing, cannot write them.
NUMBERS, CODES = 0.2, 0.4
SIGNS = string.ascii_lowercase + string.digits


def is_held_out(text: str) -> bool:
    """Whether a line or a passage is one of val's: a property of the text, whatever the seed."""
    return zlib.crc32(text.encode("utf-8")) % HELD_OUT == 0


def random_line(rng: np.random.Generator, least: int, most: int, val: bool) -> str:
    """Pieces of `least` to `most` characters in all, as far as words come out so, of one of the splits."""
    while True:
        wanted = int(rng.integers(least, most + 1))
        pieces: list[str] = []
        length = -1
        for _ in range(4 * wanted):
            piece = _piece(rng, wanted if not pieces else SHORTEST)
            if length + 1 + len(piece) <= wanted:
                pieces.append(piece)
                length += 1 + len(piece)
            if length >= max(least, wanted - 2):
                break
        line = " ".join(pieces)
        if pieces and is_held_out(line) == val:
            return line


def _piece(rng: np.random.Generator, room: int) -> str:
    kind = rng.random()
    if kind < NUMBERS:
        return str(rng.integers(0, 10 ** rng.integers(1, 6)))
    if kind < NUMBERS + CODES:
        return "".join(SIGNS[place] for place in rng.integers(len(SIGNS), size=rng.integers(1, 7)))
    word = WORDS[rng.integers(len(WORDS))]
    if room < SHORTEST:  # no word is so short: some letters of one
        start = int(rng.integers(0, len(word) - room + 1))
        return word[start : start + room]
    return word
