"""The embedded data set `mini_context`: small ray-cast scenes whose labels are exact.

from sak.data.mini import ensure
root = ensure("data/mini_context")
"""

from sak.data.mini.archive import ensure

__all__ = ["ensure"]
