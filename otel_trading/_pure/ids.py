"""Random ids, seeded by the operating system and drawn in batches: an id costs almost nothing.

Ids are kept as they lie in the file: a trace's 16 bytes are two little-endian words, the high one first.
"""

from __future__ import annotations

import os
import struct
from itertools import chain, filterfalse, repeat
from operator import methodcaller

try:
    from _random import Random  # without what the module `random` loads
except ImportError:  # another interpreter
    from random import Random  # type: ignore[assignment]  # the same, with more methods

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_BATCH = 64
_BYTES = 24 * _BATCH
_source = Random()  # noqa: S311  ids, not secrets


def _endless(unpack: Callable[[bytes], tuple[bytes, ...]]) -> Callable[[], bytes]:
    """Give what gives the next id; all of it is C, so that no thread comes in between."""
    numbers = map(_source.getrandbits, repeat(8 * _BYTES))
    batches = map(int.to_bytes, numbers, repeat(_BYTES), repeat("little"))  # type: ignore[arg-type]  # a literal
    # No word of an id is zero: a batch with eight zero bytes is not used.
    usable = filterfalse(methodcaller("count", bytes(8)), batches)
    return chain.from_iterable(map(unpack, usable)).__next__


_unpack_roots = struct.Struct("24s" * _BATCH).unpack
_unpack_spans = struct.Struct("8s" * 3 * _BATCH).unpack

next_root = _endless(_unpack_roots)
"""Give the ids of a root: the trace's 16 bytes and the span's 8.  StopIteration where it has to be
renewed: ``new_root`` does that.  Whoever takes it by name is one of ``users``."""
next_span = _endless(_unpack_spans)
"""Give the id of a span: 8 bytes; likewise."""

users: list[dict[str, Any]] = []
"""The namespaces that have taken the two by name."""


def _renew() -> None:
    """Begin anew after an error came into the drawing of a batch, as of a recursion too deep: a chain ends with it."""
    fresh = {"next_root": _endless(_unpack_roots), "next_span": _endless(_unpack_spans)}
    for namespace in (globals(), *users):
        namespace.update(fresh)


def new_root() -> bytes:
    """Give the ids of a root, in any case."""
    try:
        return next_root()
    except StopIteration:
        _renew()
        return next_root()


def new_span() -> bytes:
    """Give the id of a span, in any case."""
    try:
        return next_span()
    except StopIteration:
        _renew()
        return next_span()


def reseed() -> None:
    """Start anew: a forked child must not make its parent's ids."""
    _source.seed(int.from_bytes(os.urandom(64), "little"))
    _renew()


reseed()
