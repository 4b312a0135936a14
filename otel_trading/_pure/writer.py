"""A ring's writing side: entries of the open-span table, and finished records.

Nothing here takes a lock.  A record is written between two stores of its slot's sequence number, and what makes it
one of the ring is a run of statements without a call, in which CPython neither switches threads nor handles signals.
``Writer.at`` tells who began to write last, by the number object that is the time of it: who finds another one there
after its last call has been overtaken, by another thread or by a signal's handler, and begins again.  (Not by an
object whose end runs code, which would be a call in between.  And the good case must be the one that does not jump:
Python 3.10 may switch at a jump.)
"""

from __future__ import annotations

import struct
import sys
from _thread import RLock
from collections import deque
from time import perf_counter_ns as clock
from weakref import ref

from otel_trading import _layout as at
from otel_trading._pure.mapped import CONTROL

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

    from otel_trading._pure.mapped import Geometry, Piece, SegmentFile
    from otel_trading._pure.probes import Probe
    from otel_trading._pure.spans import Span

GATE = slice(CONTROL + at.OFF_CONTROL_TIER_WORD, CONTROL + at.OFF_CONTROL_SWITCHES + 8)
"""The tier words and the switches, all that a record has to look at."""
GENERATION = (CONTROL + at.OFF_CONTROL_GENERATION) // 8
OFF = bytes(0)
"""What the gate of a writer without a segment shows."""
STOPPED = object()
"""The owner of a token that was stopped and then taken out of use."""

# A record's last word of the first line: probe, state, status, flags, count, extra, tier.
STATE = 0xFF << 16
OPEN = at.SLOT_OPEN << 16
SPAN = at.SLOT_SPAN << 16
TO_SPAN = OPEN ^ SPAN
FAILED = at.STATUS_ERROR << 24
FLAGS = 32
COUNT = 40
EXTRA = at.EXTRA_LINE << 48
IN_ARENA = at.EXTRA_ARENA << 48
TIER = 56

# Indices of an entry's words.
META = at.OFF_SLOT_PROBE // 8
KEYS = at.OFF_SLOT_KEY // 8
TYPES = at.OFF_SLOT_TYPE // 8  # the high half is the error's name
SPAN_ID = at.OFF_SLOT_SPAN_ID // 8
START = at.OFF_SLOT_START // 8
VALUES = at.OFF_SLOT_VALUE // 8
ARENA = at.OFF_SLOT_ARENA // 8
LAST = at.OFF_SLOT_TRACESTATE // 8  # the high half counts what was dropped

# Indices of a ring's words.
HEAD = at.OFF_RING_HEAD // 8
RECORDED = at.OFF_RING_RECORDED // 8
VALUES_WRITTEN = at.OFF_RING_VALUES // 8
ARENA_HEAD = at.OFF_RING_ARENA_HEAD // 8
ATTRIBUTES_DROPPED = at.OFF_RING_ATTRIBUTES_DROPPED // 8

ODD = b"\xff" * 8
"""The sequence number of an entry while it is filled.

An entry that is not open has state 0, so the number may be stored together with what it guards: who sees the new
state sees this or the number after it.
"""
begin_root = struct.Struct("8s24s8xQ8x8s").pack_into
begin_child = struct.Struct("8s16s8s8sQ8x8s").pack_into
fill = struct.Struct("40sQ8s").pack_into
_fill_wide = struct.Struct("40sQQ64s").pack_into
_fill_value = struct.Struct("16s8s8xQQ8s16xd").pack_into
_WORD = (1 << 64) - 1
_TURN = 1023
_BATCH = 32  # tokens that go round: enough not to meet one that the caller still holds, few enough to stay in the cache

getrefcount = getattr(sys, "getrefcount", lambda _: 0)


class Token:
    """What ``Probe.start`` gives and ``Probe.stop`` takes: an entry of the open-span table.

    Tokens go round: a stopped one is used again when nobody else holds it.  A span has one inside.
    """

    __slots__ = (
        "__weakref__",
        "counts",
        "depth",
        "head",
        "index",
        "map",
        "meta",
        "owner",
        "place",
        "probe",
        "second",
        "seq",
        "word",
        "words",
        "writer",
    )

    probe: Probe | None  # whose flat span is open in it, in the plain case
    owner: object  # likewise where it is not plain: with a tracestate, or flags
    writer: Writer | None  # None: the entry is no longer the token's
    map: mmap.mmap
    words: memoryview
    place: int  # of the entry, in bytes from the map's beginning
    word: int  # the same in words
    meta: int  # the word with the state
    head: slice  # ids and start, in bytes
    second: slice  # the second line
    seq: int  # the next even sequence number
    index: int  # of the entry, in its table
    depth: int  # blocks that the entry has in the arena; worth nothing before it has a second line
    counts: int  # events among them; from bit 16 on links

    def __del__(self) -> None:
        """Write what was dropped open as abandoned, and give the entry back."""
        try:
            writer = self.writer
            if writer is not None and writer.map:
                writer.abandoned(self)
        except (AttributeError, TypeError, ValueError):  # the interpreter is coming down, or it never was whole
            return


INERT = Token()
"""What ``start`` gives where nothing is recorded."""
INERT.probe = INERT.owner = INERT.writer = None


def _references_of_a_free_token() -> int:
    """Count, just as the code that takes tokens does."""
    pool = deque([object()])
    token = pool.popleft()
    return int(getrefcount(token))


FREE = _references_of_a_free_token()


class Writer:
    """The writing side of a ring; it belongs to one thread, and others may end there what began there."""

    __slots__ = (
        "arena",
        "arena_head",
        "arena_size",
        "at",
        "before",
        "body",
        "capacity",
        "counts",
        "file",
        "gate",
        "head",
        "index",
        "lock",
        "made",
        "map",
        "marks_at",
        "mask",
        "overwritten",
        "owner",
        "pending",
        "piece",
        "pool",
        "ring",
        "shared",
        "slots",
        "slots_at",
        "tables",
        "tokens",
        "turn",
        "values",
        "values_overwritten",
    )

    map: mmap.mmap | bytes
    gate: memoryview | tuple[None]  # [0] is the control page's generation: one look tells that nothing was steered

    def __init__(self, file: SegmentFile, index: int, piece: Piece, offset: int, geometry: Geometry) -> None:
        """Enter a ring at ``offset``, which lies in ``piece``, into the directory; the caller publishes it."""
        words, ring = file.words, (file.rings + at.SIZE_RING * index) // 8
        words[ring + at.OFF_RING_SLOTS_OFFSET // 8] = offset + geometry.slots_offset
        words[ring + at.OFF_RING_OPEN_OFFSET // 8] = offset
        words[ring + at.OFF_RING_ARENA_OFFSET // 8] = offset + geometry.arena_offset
        words[ring + at.OFF_RING_MARKS_OFFSET // 8] = offset + geometry.marks_offset
        words[ring + at.OFF_RING_ARENA_BYTES // 8] = geometry.arena_bytes
        words[ring + at.OFF_RING_CAPACITY // 8] = geometry.slots | geometry.open_spans << 32
        piece.populate(offset, geometry.bytes)
        base = offset - piece.start
        self._begin(file, index)
        self.piece = piece
        self.ring = words[ring : ring + at.SIZE_RING // 8]
        self.capacity = geometry.slots
        self.mask = geometry.slots - 1
        self.slots_at = base + geometry.slots_offset
        self.marks_at = base + geometry.marks_offset
        self.slots = piece.words[self.slots_at // 8 :]
        self.body = memoryview(piece.map)[self.slots_at + 8 :]
        self.arena = base + geometry.arena_offset
        self.arena_size = geometry.arena_bytes
        self.tables = [(piece, base, geometry.open_spans)]

    @classmethod
    def bare(cls, file: SegmentFile, index: int) -> Writer:
        """Make one for a ring that is there already; the caller says where everything is."""
        self = cls.__new__(cls)
        self._begin(file, index)
        return self

    def _begin(self, file: SegmentFile, index: int) -> None:
        self.file: SegmentFile | None = file
        self.index = index
        self.map = file.map  # the control page is in it
        self.gate = file.words[GENERATION : GENERATION + 1]
        self.arena_head = 0
        self.head = 0
        self.counts = [0] * at.TIERS
        self.values = 0
        self.at: object = None
        self.owner: object = None  # the thread that has the ring, or None
        self.shared = False  # by several threads
        self.pending: Span | None = None  # see probes.py
        self.pool: deque[Token] = deque()
        self.before = 0  # entries of the tables before the last one
        self.made = 0  # entries of that one that have got their tokens
        self.tokens: dict[int, ref[Token]] = {}  # by the entry's number
        self.lock = RLock()  # while tokens are made
        self.turn: Callable[[], None] | None = None  # called once in a while, where another process drains
        self.overwritten = [0] * at.TIERS  # the drain's, with its lock held
        self.values_overwritten = 0  # likewise

    # ---- entries ----

    def take(self) -> Token | None:
        """Give a free entry; None where there is none, nor room for more."""
        while True:
            try:
                token = self.pool.popleft()
            except IndexError:
                if not self._more():
                    return None
                continue
            if getrefcount(token) == FREE:
                return token
            self.replace(token)

    def _more(self) -> bool:
        """Make the tokens of some more entries; False where there are no more."""
        with self.lock:
            if not self.map:
                return False
            piece, start, count = self.tables[-1]
            if self.made >= count:
                if not self._extend():
                    return False
                piece, start, count = self.tables[-1]
            # A signal's handler may come in between and do the same: the entries are taken before anything is called.
            first = self.made
            self.made = first + _BATCH
            before = self.before
            words = piece.words
            for number in range(first, min(first + _BATCH, count)):
                place = start + number * at.SIZE_SLOT
                if not words[place // 8 + META]:  # else a process that has ended left it open
                    self.pool.append(
                        self.made_token(piece.map, words, place, before + number, next_even(words[place // 8]))
                    )
        return True

    def _extend(self) -> bool:
        """Begin one more table, at the file's end."""
        file = self.file
        appended = None if file is None else file.append_extent(self.index)
        if appended is None:
            return False
        piece, offset = appended
        self.before += self.tables[-1][2]
        self.made = 0
        self.tables.append((piece, offset - piece.start, at.EXTENT_ENTRIES))
        return True

    def made_token(self, piece: mmap.mmap, words: memoryview, place: int, index: int, seq: int) -> Token:
        """Make an entry's token; ``seq`` is its next even sequence number."""
        token = Token()
        token.probe = token.owner = None
        token.map = piece
        token.words = words
        token.place = place
        token.word = place // 8
        token.meta = token.word + META
        token.head = slice(place + 8, place + at.OFF_SLOT_END)
        token.second = slice(place + at.OFF_SLOT_KEY, place + at.SIZE_SLOT)
        token.seq = seq
        token.index = index
        token.writer = self
        self.tokens[index] = ref(token)
        return token

    def replace(self, token: Token) -> None:
        """Take a stopped token that somebody still holds out of use; its entry goes on with another."""
        token.owner = STOPPED
        self.renew(token)

    def renew(self, token: Token) -> None:
        """Part a token from its entry, which is free again."""
        token.writer = None
        token.probe = None
        token.words[token.meta] = 0
        self.pool.append(self.made_token(token.map, token.words, token.place, token.index, token.seq))

    def abandoned(self, token: Token) -> None:
        """Finish what a dropped token has left open, if anything."""
        if token.words[token.meta] & STATE == OPEN:
            flag(token, at.FLAG_ABANDONED)
            try:
                finish(token, clock())
            except BaseException:  # an interrupt came in between
                if token.words[token.meta] & STATE == OPEN:
                    finish(token, clock())
                self.renew(token)
                raise
        self.renew(token)

    # ---- the end ----

    def stop(self) -> None:
        """Record nothing from here on; what is being written is given up, and tokens are worth nothing."""
        self.map = OFF
        self.gate = (None,)
        self.at = None
        self.pending = None
        for reference in list(self.tokens.values()):
            token = reference()
            if token is not None:
                token.writer = token.probe = token.owner = None
        self.pool = deque()

    def drop(self) -> None:
        """Let the file go; the memory goes with the last token."""
        self.file = None


def next_even(seq: int) -> int:
    """Give the next even sequence number of an entry that nobody fills."""
    return seq + 2 & ~1 & _WORD


def flag(token: Token, flags: int) -> None:
    """Set flags of an entry."""
    words, meta = token.words, token.meta
    words[meta] = words[meta] | flags << FLAGS


def second_line(token: Token) -> None:
    """Make an entry's second line valid."""
    words, meta, word = token.words, token.meta, token.word
    if words[meta] & EXTRA:
        return
    words[word + KEYS] = words[word + TYPES] = words[word + ARENA] = words[word + LAST] = 0
    token.depth = token.counts = 0
    words[meta] = words[meta] | EXTRA


def finish(token: Token, end: int, done: bytes | None = None) -> None:
    """Copy a finished entry into the ring, and free it for readers; ``done`` is its state word where that is plain.

    The copy goes to the ring in which the span began, where its arena blocks are, whatever thread this is.
    """
    words, meta = token.words, token.meta
    writer = token.writer
    word = words[meta]
    tier = word >> TIER & at.TIERS - 1
    recorded = RECORDED + tier
    while writer is not None:
        n = writer.head
        i = (n & writer.mask) * 16
        slots = writer.slots
        writer.at = end  # this very object
        slots[i] = n + n + 1
        if done is not None:
            fill(writer.body, i * 8, token.map[token.head], end, done)
        else:
            # Also where there is no second line: who reads it would not believe it.
            _fill_wide(writer.body, i * 8, token.map[token.head], end, word ^ TO_SPAN, token.map[token.second])
        if writer.at is end:
            writer.head = n = n + 1
            slots[i] = n + n
            counts = writer.counts
            counts[tier] = count = counts[tier] + 1
            ring = writer.ring
            ring[recorded] = count
            ring[HEAD] = n
            words[meta] = 0
            if not n & _TURN and writer.turn is not None:
                writer.turn()
            return
        writer = token.writer  # None where it has been ended for us


def observe(writer: Writer, trace: bytes, span: bytes, meta: bytes, value: float) -> bool:
    """Write a histogram's observation; False where recording stopped meanwhile."""
    while writer.map:
        now = clock()  # the only call before the last one
        n = writer.head
        i = (n & writer.mask) * 16
        slots = writer.slots
        writer.at = now  # this very object
        slots[i] = n + n + 1
        _fill_value(writer.body, i * 8, trace, span, now, now, meta, value)
        if writer.at is now:
            writer.head = n = n + 1
            slots[i] = n + n
            writer.values = count = writer.values + 1
            ring = writer.ring
            ring[VALUES_WRITTEN] = count
            ring[HEAD] = n
            return True
    return False
