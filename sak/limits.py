"""How large a number may be: beyond these are only slips of the finger, and what libraries cannot hold."""

MOST = 10**9  # of whatever is counted
MOST_PROCESSES = 1024  # and threads: what an operating system still starts
MOST_PIXELS = 16384  # on a side of an image
MOST_SEED = 2**63 - 1
LONGEST_NAME = 200  # bytes: file systems allow 255, of which what is written beside it needs some
