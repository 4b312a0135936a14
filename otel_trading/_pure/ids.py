"""Random ids, seeded by the operating system and drawn in batches: an id costs almost nothing.

Ids are kept as they lie in the file: a trace's 16 bytes are two little-endian words, the high one first.
"""

from __future__ import annotations

import os
import struct
from collections import deque

try:
    from _random import Random  # without what the module `random` loads
except ImportError:  # another interpreter
    from random import Random  # type: ignore[assignment]  # the same, with more methods

_BATCH = 256
_STOCK = 1024
_BYTES = 24 * _BATCH
_NO_WORD = bytes(8)
_source = Random()  # noqa: S311  ids, not secrets
_unpack_roots = struct.Struct("24s" * _BATCH).unpack
_unpack_spans = struct.Struct("8s" * 3 * _BATCH).unpack
_roots: deque[bytes] = deque()
_spans: deque[bytes] = deque()

next_root = _roots.popleft
"""Give the ids of a root: the trace's 16 bytes and the span's 8.  IndexError where ``new_root`` has to be asked."""
next_span = _spans.popleft
"""Give the id of a span: 8 bytes.  IndexError where ``new_span`` has to be asked."""

# No iterator gives them: one into which an error comes (of the recursion's depth, say) is at its end for ever.


def _batch() -> bytes:
    while True:
        batch = _source.getrandbits(8 * _BYTES).to_bytes(_BYTES, "little")
        if _NO_WORD not in batch:  # no word of an id is zero
            return batch


def new_root() -> bytes:
    """Give the ids of a root, in any case."""
    while True:
        try:
            return next_root()
        except IndexError:
            _roots.extend(_unpack_roots(_batch()))


def new_span() -> bytes:
    """Give the id of a span, in any case."""
    while True:
        try:
            return next_span()
        except IndexError:
            _spans.extend(_unpack_spans(_batch()))


def top_up() -> None:
    """Draw ids ahead, so that spans do not have to; the drain does it at each pass."""
    while len(_roots) < _STOCK:
        _roots.extend(_unpack_roots(_batch()))
    while len(_spans) < _STOCK:
        _spans.extend(_unpack_spans(_batch()))


def reseed() -> None:
    """Start anew: a forked child must not make its parent's ids."""
    _source.seed(int.from_bytes(os.urandom(64), "little"))
    _roots.clear()
    _spans.clear()


reseed()
