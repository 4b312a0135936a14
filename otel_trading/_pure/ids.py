"""Random ids, drawn from the operating system's seed in batches: a batch costs a few microseconds, an id almost nothing.

Ids are kept as they lie in the file: a trace's 16 bytes are two little-endian words, the high one first.
"""

from __future__ import annotations

import os
import struct

try:
    from _random import Random  # without what the module `random` loads
except ImportError:  # another interpreter
    from random import Random

_BATCH = 64
_ZERO = bytes(8)  # no word of an id is zero
_ROOTS = struct.Struct("24s" * _BATCH)
_SPANS = struct.Struct("8s" * 3 * _BATCH)
_BYTES = _ROOTS.size

_source = Random()
roots: list[bytes] = []
"""Ids of roots: the trace's 16 bytes and the span's 8; ``more_roots`` where the list is empty."""
spans: list[bytes] = []
"""Ids of spans, 8 bytes; ``more_spans`` where the list is empty."""


def _draw() -> bytes:
    data = _ZERO
    while _ZERO in data:
        data = _source.getrandbits(8 * _BYTES).to_bytes(_BYTES, "little")
    return data


def more_roots() -> bytes:
    """Refill ``roots``; gives one."""
    fresh = list(_ROOTS.unpack(_draw()))
    taken = fresh.pop()
    roots.extend(fresh)
    return taken


def more_spans() -> bytes:
    """Refill ``spans``; gives one."""
    fresh = list(_SPANS.unpack(_draw()))
    taken = fresh.pop()
    spans.extend(fresh)
    return taken


def span_id() -> bytes:
    """Give a fresh id of a span."""
    try:
        return spans.pop()
    except IndexError:
        return more_spans()


def trace_id() -> bytes:
    """Give a fresh id of a trace."""
    try:
        return roots.pop()[:16]
    except IndexError:
        return more_roots()[:16]


def reseed() -> None:
    """Start anew: a forked child must not make its parent's ids."""
    _source.seed(int.from_bytes(os.urandom(64), "little"))
    roots.clear()
    spans.clear()


reseed()
