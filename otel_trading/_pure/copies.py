"""Copies of records out of a ring, sorted by what they have in common."""

from __future__ import annotations

from math import frexp

from otel_trading import _layout as at
from otel_trading._pure.aggregate import Batch
from otel_trading._pure.instruments import double
from otel_trading._pure.writer import FLAGS, HEAD, META, SPAN, STATE, TIER, VALUES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_trading._native import ExemplarState
    from otel_trading._pure.clock import Clock
    from otel_trading._pure.tables import Tables
    from otel_trading._pure.writer import Writer

SLOT = at.SIZE_SLOT // 8
_LOW = at.OFF_SLOT_TRACE_LO // 8
_PARENT = at.OFF_SLOT_PARENT_ID // 8
_START = at.OFF_SLOT_START // 8
_CAPACITY = at.OFF_RING_CAPACITY // 8
_HALF = (1 << 32) - 1
_END = at.OFF_SLOT_END // 8


def copied(writer: Writer, first: int, most: int) -> Copy:
    """Copy records from a ring, up to so many that lie one after another."""
    place = first & writer.mask
    count = min(most, writer.capacity - place)
    start = writer.slots_at + place * at.SIZE_SLOT
    copy = Copy(writer.piece.map[start : start + count * at.SIZE_SLOT], first)
    if writer.ring[HEAD] >= first + writer.capacity:  # another process may have been writing there meanwhile
        begin = start // 8
        copy.seqs = writer.piece.words[begin : begin + count * SLOT : SLOT].tolist()
    return copy


def is_moving(writer: Writer) -> bool:
    """Tell whether the writer has given the ring another size since the pass began; the next one follows it."""
    capacity: int = writer.ring[_CAPACITY] & _HALF
    return capacity != writer.capacity


class Copy:
    """A copy of slots that lie one after another, by columns: lists of numbers, which no collector has to see."""

    __slots__ = ("_kinds", "data", "ends", "first", "lows", "seqs", "starts", "states", "words")

    def __init__(self, data: bytes, first: int) -> None:
        self.data = data
        self._kinds: dict[int, list[int]] | None = None
        self.seqs: list[int] | None = None  # as they were after it was made, where they may have changed
        self.first = first
        self.words = words = memoryview(data).cast("Q")
        self.lows = words[_LOW::SLOT].tolist()
        self.states = words[META::SLOT].tolist()
        self.starts: list[int] = []
        self.ends: list[int] = []

    def time(self) -> None:
        """Read when the records began and ended."""
        self.starts = self.words[_START::SLOT].tolist()
        self.ends = self.words[_END::SLOT].tolist()

    def parents(self) -> list[int]:
        """Read who the parents are."""
        parents: list[int] = self.words[_PARENT::SLOT].tolist()
        return parents

    def highs(self) -> list[int]:
        """Read the other half of the traces' ids."""
        highs: list[int] = self.words[1::SLOT].tolist()
        return highs

    def kinds(self) -> dict[int, list[int]]:
        """Give the places of the records that are whole, by their last word: probe, outcome, tier."""
        if self._kinds is None:
            self._kinds = self._sorted()
        return self._kinds

    def only(self, kinds: dict[int, list[int]]) -> None:
        """Have it show these records alone."""
        self._kinds = kinds

    def _sorted(self) -> dict[int, list[int]]:
        seqs = self.words[::SLOT].tolist()
        if self.seqs is not None:
            seqs = [seq if seq == after else 0 for seq, after in zip(seqs, self.seqs)]  # noqa: B905  one each
        expected = range(2 * self.first + 2, 2 * (self.first + len(seqs)) + 2, 2)
        states = self.states
        if seqs == list(expected):
            if states.count(states[0]) == len(states):
                return {states[0]: list(range(len(states)))}
            whole: Iterable[int] = range(len(states))
        else:
            whole = [place for place, seq in enumerate(seqs) if seq == expected[place]]
        kinds: dict[int, list[int]] = {}
        for place in whole:
            state = states[place]
            if state in kinds:
                kinds[state].append(place)
            else:
                kinds[state] = [place]
        return kinds

    def slot(self, place: int) -> bytes:
        """Give a whole record."""
        return self.data[at.SIZE_SLOT * place : at.SIZE_SLOT * (place + 1)]


class Found:
    """Records of one kind: one probe, one outcome."""

    __slots__ = (
        "batch",
        "count",
        "durations",
        "exemplars",
        "is_span",
        "places",
        "probe",
        "roots",
        "sla_breaches",
        "state",
        "taken",
        "tier",
    )

    def __init__(
        self, copy: Copy, state: int, places: list[int], taken: list[int], clock: Clock, tables: Tables
    ) -> None:
        """Measure them; ``taken`` are the places of those that are sampled."""
        self.state = state
        self.is_span = state & STATE == SPAN
        self.count = len(places)
        self.places = places
        self.probe = state & 0xFFFF
        self.tier = state >> TIER & at.TIERS - 1
        self.taken = taken
        self.sla_breaches = 0
        self.roots = 0
        self.durations: list[int] = []
        if self.is_span:
            flags, probes = state >> FLAGS, tables.probes
            if clock.is_plain:
                ends, starts = copy.ends, copy.starts
                # Unix time minus ticks, where one is the one and the other the other.
                ahead = clock.epoch * ((not flags & at.FLAG_END_UNIX) - (not flags & at.FLAG_START_UNIX))
                self.durations = durations = [ends[place] - starts[place] + ahead for place in places]
            else:
                self.durations = durations = [
                    clock.unix(copy.ends[place], flags & at.FLAG_END_UNIX)
                    - clock.unix(copy.starts[place], flags & at.FLAG_START_UNIX)
                    for place in places
                ]
            self.batch = Batch.of_durations(durations)
            sla_ns = probes[self.probe].sla_ns if self.probe < len(probes) else 0
            if sla_ns:
                self.sla_breaches = sum(ns > sla_ns for ns in durations)
            values = [max(ns, 0) * 1e-9 for ns in durations]
        else:
            words = copy.words
            values = [double(words[SLOT * place + VALUES]) for place in places]
            self.batch = Batch.of_values(values)
        self.exemplars = self._exemplars(copy, dict(zip(places, values)), clock)  # noqa: B905  one each

    def _exemplars(self, copy: Copy, values: dict[int, float], clock: Clock) -> list[ExemplarState]:
        """Give the latest record of each power of two."""
        latest = {frexp(values[place])[1]: place for place in self.taken}
        is_unix = self.state >> FLAGS & at.FLAG_END_UNIX
        exemplars = []
        for place in latest.values():
            high, low, span = copy.words[SLOT * place + 1 : SLOT * place + 4].tolist()
            if span:
                exemplars.append((values[place], high << 64 | low, span, clock.unix(copy.ends[place], is_unix)))
        return exemplars

    def longer(self, ns: int) -> list[int]:
        """Give the places of those that took longer."""
        return [place for place, duration in zip(self.places, self.durations) if duration > ns]  # noqa: B905
