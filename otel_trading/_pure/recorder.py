"""The process's recorder: its segment, its rings, and which thread has which."""

from __future__ import annotations

import sys
from _thread import RLock, _local, get_native_id

from otel_trading import _layout as at
from otel_trading._pure.mapped import CONTROL, Piece, main_geometry, thread_geometry
from otel_trading._pure.names import names
from otel_trading._pure.ring_size import give_back, resize, slots_left
from otel_trading._pure.writer import OFF, TIER, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable
    from typing import Any

    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.writer import Token

MASK = (1 << at.SAMPLE_BITS) - 1
"""A trace's randomness in its low word."""
NO_LIMITS = (at.NO_LIMIT,) * 7
"""Attributes, events and links of a span, attributes of an event and of a link, characters of a text."""
_SWITCHES = at.OFF_CONTROL_SWITCHES
_BUFFERS_NOW = (CONTROL + at.OFF_CONTROL_BUFFERS_NOW) // 8


class _Here:
    """What each thread has for itself; all of it is missing before the first record."""

    writer: Writer
    keeper: _Keeper
    pending: Any  # see probes.py


class _Keeper:
    """Lets a ring go when its thread ends, and with it the thread's own variables."""

    __slots__ = ("mark", "writer")

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        writer.owner = self.mark = object()

    def __del__(self) -> None:
        if self.writer.owner is self.mark:
            self.writer.owner = None


class Recorder:
    """One a process."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.file: SegmentFile | None = None  # while it records
        self.gate: mmap.mmap | bytes = OFF  # the file's map, for what needs no ring
        self.adopted_file: SegmentFile | None = None  # of another process, while it is drained here
        self.writers: list[Writer] = []
        self.limits = NO_LIMITS
        self.longest: int | None = None  # characters of a text, by these limits
        self.event_longest: int | None = None  # of one in an event or a link
        self.epoch = 0  # Unix time of tick 0, as the drain has found it
        self.reopen: Callable[[], None] | None = None
        self.reopening = False
        self.claiming = False
        self.by_unix_time = False  # the segment's ticks are not of this backend's clock: another process made it
        self.left: list[Token] = []  # of spans that the process before left open
        self.turn: Callable[[], None] | None = None  # of each writer, while another process drains
        self.inherited = False  # in a forked child: the parent was recording

    # ---- rings ----

    def add_ring(self, file: SegmentFile, piece: Piece, offset: int, *, main: bool) -> Writer:
        """Put a ring, whose space is there, at the end of the directory."""
        geometry = main_geometry(file.settings) if main else thread_geometry(file.settings)
        writer = Writer(file, len(self.writers), piece, offset, geometry)
        shift = file.words[_BUFFERS_NOW]
        if shift:  # a ring is made as small as the others are now
            slots = slots_left(geometry.slots, shift)
            resize(writer, slots, 0)
            give_back(writer, slots, geometry.slots)
        writer.turn = self.turn
        self.writers.append(writer)
        file.halves[at.OFF_HEADER_RING_COUNT // 4] = len(self.writers)
        return writer

    def _find_ring(self, file: SegmentFile) -> Writer:
        for writer in self.writers:
            if writer.owner is None:
                return writer
        if len(self.writers) < at.MAX_RINGS:
            appended = file.append(thread_geometry(file.settings).bytes)
            if appended is not None:
                return self.add_ring(file, *appended, main=False)
        # No room for another: share the last one.
        writer = self.writers[-1]
        writer.shared = True
        return writer

    def claim(self) -> Writer | None:
        """Give the calling thread's ring, a new one if need be; None where nothing is recorded.

        In a forked child the first record makes the segment.
        """
        if self.file is None:
            reopen = self.reopen
            if reopen is None or self.reopening:
                return None
            self.reopen = None
            self.reopening = True
            try:
                reopen()
            except Exception:  # noqa: BLE001  it is not the caller's
                sys.excepthook(*sys.exc_info())
            finally:
                self.reopening = False
        try:
            writer = here.writer
        except AttributeError:
            pass
        else:
            if writer.map:
                return writer
        with self.lock:
            file = self.file
            if file is None or not self.writers:  # the latter: inherited, and damaged
                return None
            if self.claiming:
                # A signal's handler, or a garbage collection, in the middle of this: any ring will do for once.
                return self.writers[0]
            self.claiming = True
            try:
                writer = self._find_ring(file)
                if writer.owner is None:
                    thread, ring = get_native_id(), writer.ring
                    ring[at.OFF_RING_THREAD_ID // 8] = thread
                    ring[at.OFF_RING_GENERATION // 8] = ring[at.OFF_RING_GENERATION // 8] + 1
                    here.keeper = _Keeper(writer)
                here.writer = writer
            finally:
                self.claiming = False
        return writer

    def is_on(self, tier: int, state: bytes) -> int:
        """Tell from the gate's state whether a tier records: its sampling threshold, or -1."""
        switches = int.from_bytes(state[_SWITCHES : _SWITCHES + 8], "little")
        word = int.from_bytes(state[8 * tier : 8 * tier + 8], "little") if tier else at.TIER_ON  # nothing turns P0 off
        if not switches & at.SWITCH_RECORD or not word & at.TIER_ON:
            return -1
        return word >> 8

    # ---- counts ----

    def fault(self) -> None:
        """Count a misuse."""
        file = self.file
        if file is not None:
            file.count(at.OFF_HEADER_FAULTS)

    def span_refused(self, tier: int) -> None:
        """Count a span that found no entry."""
        file = self.file
        if file is not None:
            file.count(at.OFF_HEADER_SPANS_REFUSED + 8 * tier)

    # ---- the end ----

    def stop(self) -> None:
        """Record nothing from here on."""
        self.file = None
        self.gate = OFF
        for writer in self.writers:
            writer.stop()
        self.left = []
        self.turn = None

    def forget(self) -> None:
        """Let the segment's memory go."""
        for writer in self.writers:
            writer.drop()
        self.writers = []
        self.by_unix_time = False
        names.close()

    def after_fork_in_child(self) -> None:
        """From here on nothing in the child touches the parent's segment."""
        self.lock = RLock()
        self.claiming = False
        self.inherited = self.file is not None or self.reopen is not None
        file = self.file
        self.stop()
        self.forget()
        names.forked()
        if file is not None:
            file.close()


here: _Here = _local()  # type: ignore[assignment]  # a class of our own would be slower
recorder = Recorder()


def meta_word(number: int, state: int, flags: int, tier: int) -> int:
    """Give the last word of a record's first line."""
    return number | state | flags << 32 | tier << TIER
