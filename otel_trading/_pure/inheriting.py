"""Becoming the writer of an adopted segment, when its process has ended."""

from __future__ import annotations

from operator import itemgetter

from otel_trading import _layout as at
from otel_trading._pure.names import instruments, names, probes
from otel_trading._pure.passes import drain
from otel_trading._pure.recorder import recorder
from otel_trading._pure.tables import OWN
from otel_trading._pure.writer import (
    ARENA_HEAD,
    HEAD,
    META,
    OPEN,
    SPAN_ID,
    START,
    STATE,
    VALUES_WRITTEN,
    Writer,
    next_even,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.adopted import AdoptedFile, AdoptedRing
    from otel_trading._pure.instruments import Instrument
    from otel_trading._pure.probes import Probe
    from otel_trading._pure.writer import Token

_WORDS = at.SIZE_SLOT // 8


def inherit_segment(file: AdoptedFile) -> None:
    """With the locks of recorder and drain held.  Into a damaged one without any ring nothing is recorded."""
    file.refresh(drain.cursors)
    rings = file.inherited()
    for ring in file.drained:
        drain.cursor(ring)  # what was there is taken over before anything is added
    tables = file.tables
    tables.refresh()
    # What the dead process registered keeps its numbers, and what this one has comes after it.
    own_probes, own_instruments = _Own.probes, _Own.instruments = list(probes), list(instruments)
    _Own.first_probe, _Own.first_instrument = len(tables.probes), len(tables.instruments)
    probes[:] = tables.probes  # type: ignore[assignment]  # they only stand there for their numbers
    instruments[:] = tables.instruments  # type: ignore[assignment]
    names.inherit(file, tables.texts())
    for probe in own_probes:
        probe.renumber()
    for instrument in own_instruments:
        instrument.id = names.register_instrument(instrument)
    recorder.limits = (*tables.limits, *(at.NO_LIMIT,) * 4)  # seven
    recorder.longest = recorder.event_longest = None
    recorder.epoch = drain.clock.epoch
    recorder.by_unix_time = not drain.clock.is_plain
    recorder.writers = [_writer(file, ring) for ring in rings]
    recorder.left = [token for writer in recorder.writers for token in _left_open(writer)]
    drain.adopted = recorder.adopted_file = None
    drain.use(OWN)
    recorder.file = file
    recorder.gate = file.map


def disinherit() -> None:
    """Give this process's probes and instruments their own numbers back; does nothing where nothing was inherited."""
    if _Own.probes is None or _Own.instruments is None:
        return
    drain.use(_Past(list(probes), list(instruments)))
    own_probes, own_instruments = _Own.probes + probes[_Own.first_probe :], _Own.instruments
    own_probes = list(dict.fromkeys(own_probes))
    own_instruments = list(dict.fromkeys(own_instruments + instruments[_Own.first_instrument :]))
    _Own.probes = _Own.instruments = None
    probes.clear()
    instruments.clear()
    for probe in own_probes:
        probe.renumber()
    for instrument in own_instruments:
        instrument.id = names.register_instrument(instrument)


class _Own:
    """What is this process's own while it goes on with another one's tables."""

    probes: list[Probe] | None = None
    instruments: list[Instrument] | None = None
    first_probe = first_instrument = 0  # among all of them


class _Past:
    """The tables of a segment that was inherited, as they were at its end."""

    def __init__(self, all_probes: list[Probe], all_instruments: list[Instrument]) -> None:
        self.probes = all_probes
        self.instruments = all_instruments
        self.limits = OWN.limits

    def name(self, number: int) -> str:
        return names.text(number)

    def refresh(self) -> None:
        """They do not change any more."""


def _writer(file: AdoptedFile, ring: AdoptedRing) -> Writer:
    """Give the writing side of a ring, where a process that has ended stopped."""
    writer = Writer.bare(file, ring.index)
    writer.piece = ring.piece
    writer.ring = ring.ring
    writer.capacity = ring.capacity
    writer.mask = ring.mask
    writer.slots_at = ring.slots_at
    writer.marks_at = ring.marks_at
    writer.slots = ring.piece.words[ring.slots_at // 8 :]
    writer.body = memoryview(ring.piece.map)[ring.slots_at + 8 :]
    writer.arena = ring.arena
    writer.arena_size = ring.arena_size
    writer.arena_head = writer.ring[ARENA_HEAD]
    writer.head, *writer.counts, writer.values = writer.ring[HEAD : VALUES_WRITTEN + 1].tolist()
    main, *extents = ring.tables
    writer.tables = [*extents, main]  # new entries are made in the last one
    writer.before = sum(count for _, _, count in writer.tables[:-1])
    writer.overwritten = ring.overwritten
    writer.values_overwritten = ring.values_overwritten
    n = writer.head
    # A kill may have come when a record was whole and counted, and not published yet.
    if sum(writer.counts) + writer.values == n + 1 and writer.slots[(n & writer.mask) * _WORDS] == 2 * n + 2:
        writer.head = writer.ring[HEAD] = n + 1
    return writer


def _left_open(writer: Writer) -> list[Token]:
    """Give tokens for the spans that the process has left open, the one that began first first."""
    newest = writer.slots[(writer.head - 1 & writer.mask) * _WORDS + SPAN_ID] if writer.head else 0
    entries = []
    first = 0
    for piece, start, count in writer.tables:
        for number in range(count):
            word = start // 8 + number * _WORDS
            if piece.words[word + META] & STATE != OPEN:
                continue
            if newest and piece.words[word + SPAN_ID] == newest:  # it is written, and its entry was not freed any more
                piece.words[word + META] = 0
                continue
            entries.append((piece.words[word + START], first + number, piece, word))
        first += count
    entries.sort(key=itemgetter(0, 1))
    return [
        writer.made_token(piece.map, piece.words, 8 * word, index, next_even(piece.words[word]))
        for _, index, piece, word in entries
    ]
