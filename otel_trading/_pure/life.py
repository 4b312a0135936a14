"""The segment's life in its own process: opened, closed, interrupted, forgotten in a forked child."""

from __future__ import annotations

import os
from time import perf_counter_ns as clock
from time import time_ns

from otel_trading import _layout as at
from otel_trading._pure import host, ids
from otel_trading._pure.attributes import failed
from otel_trading._pure.governor import governor
from otel_trading._pure.hosts import let_go
from otel_trading._pure.inheriting import disinherit
from otel_trading._pure.mapped import SegmentFile, Settings
from otel_trading._pure.names import names
from otel_trading._pure.orders import table as orders
from otel_trading._pure.passes import drain
from otel_trading._pure.recorder import recorder
from otel_trading._pure.writer import OPEN, STATE, finish, flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading._pure.writer import Writer


def open(  # noqa: A001  the backend's interface
    fd: int,
    resource: bytes,
    main_slots: int,
    thread_slots: int,
    open_spans: int,
    arena_bytes: int,
    max_names: int,
    max_orders: int,
    limits: tuple[int, int, int, int, int, int, int],
    /,
) -> None:
    """Lay a segment out in the empty file ``fd`` (which is duplicated), publish it, start recording.

    The calling thread gets the main ring.  Raises OSError (ENOSPC, ENOMEM, EINVAL …) with nothing left half done,
    and RuntimeError where a segment is open already.
    """
    with recorder.lock:
        if recorder.file is not None or recorder.writers or drain.adopted is not None:  # the second: being closed
            raise RuntimeError("a segment is open already")
        file = SegmentFile(
            fd,
            bytes(resource),
            Settings(main_slots, thread_slots, open_spans, arena_bytes, max_names, max_orders, limits),
        )
        try:
            recorder.add_ring(file, file.piece, file.size, main=True)
            names.open(file)
            host.open_drain(file)
            governor.open(file)
        except BaseException:
            recorder.forget()
            file.close()
            raise
        recorder.reopen = None
        recorder.inherited = False
        recorder.limits = limits
        recorder.longest, recorder.event_longest = (None if most == at.NO_LIMIT else most for most in limits[5:7])
        file.publish()
        recorder.file = file
        recorder.gate = file.map
        recorder.claim()  # the calling thread has the main ring


def close() -> None:
    """Stop recording, run a last pass of the drain, mark the segment closed, unmap it.  Idempotent.

    One that is only adopted is let go.
    """
    recorder.reopen = None
    if drain.adopted is not None:
        let_go()
        return
    if recorder.file is not None:
        governor.stop()
    with recorder.lock:
        file = recorder.file
        if file is None:
            return
        recorder.stop()  # nothing is recorded from here on
    host.close_drain()
    file.halves[at.OFF_HEADER_CLOSED // 4] = 1
    recorder.forget()
    disinherit()
    file.close()


def is_open() -> bool:
    """Tell whether there is a segment that is recorded into."""
    return recorder.file is not None


def fault() -> None:
    """Count a misuse that was caught outside the backend."""
    recorder.fault()


def forked(reopen: Callable[[], None], /) -> None:
    """In the child of a fork: forget the parent's segment; call ``reopen`` before the first record."""
    if recorder.inherited:
        recorder.reopen = reopen


def _after_fork_in_child() -> None:
    ids.reseed()
    recorder.after_fork_in_child()
    host.forked()
    governor.forked()
    orders.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def interrupt_open(reason: str, error: bool, /) -> int:  # noqa: FBT001  the backend's interface
    """Write every open span as ended now, flagged interrupted; returns how many.

    Where ``error``, with status ERROR and ``reason`` as the error.
    """
    if recorder.file is None:
        return 0
    name = names.name(reason) if error else at.NAME_NONE
    end = time_ns() if recorder.by_unix_time else clock()
    ended = sum(_interrupt(writer, name, end) for writer in list(recorder.writers))
    recorder.left = []
    return ended


def _interrupt(writer: Writer, name: int, end: int) -> int:
    """End the open entries of one ring; their tokens and spans find them gone."""
    ended = 0
    for reference in list(writer.tokens.values()):
        token = reference()
        if token is None or token.writer is None or token.words[token.meta] & STATE != OPEN:
            continue
        if name:
            failed(token, name)
        flag(token, at.FLAG_INTERRUPTED | (at.FLAG_END_UNIX if recorder.by_unix_time else 0))
        finish(token, end)
        writer.renew(token)
        token.owner = None
        ended += 1
    return ended
