"""Copies of records out of a ring, sorted by what they have in common."""

from __future__ import annotations

from math import frexp

from otel_trading import _layout as at
from otel_trading._pure.aggregate import Batch
from otel_trading._pure.instruments import double
from otel_trading._pure.names import probes
from otel_trading._pure.writer import FLAGS, META, SPAN, STATE, TIER, VALUES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_trading._native import ExemplarState

SLOT = at.SIZE_SLOT // 8
_LOW = at.OFF_SLOT_TRACE_LO // 8
_PARENT = at.OFF_SLOT_PARENT_ID // 8
_START = at.OFF_SLOT_START // 8
_END = at.OFF_SLOT_END // 8


class Copy:
    """A copy of slots that lie one after another, by columns: lists of numbers, which no collector has to see."""

    __slots__ = ("data", "ends", "first", "lows", "starts", "states", "words")

    def __init__(self, data: bytes, first: int) -> None:
        self.data = data
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
        seqs = self.words[::SLOT].tolist()
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

    def __init__(self, copy: Copy, state: int, places: list[int], taken: list[int], epoch: int) -> None:
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
            ends, starts = copy.ends, copy.starts
            flags = state >> FLAGS
            # Unix time minus ticks, where one is the one and the other the other.
            ahead = epoch * ((not flags & at.FLAG_END_UNIX) - (not flags & at.FLAG_START_UNIX))
            self.durations = durations = [ends[place] - starts[place] + ahead for place in places]
            self.batch = Batch.of_durations(durations)
            sla_ns = probes[self.probe].sla_ns if self.probe < len(probes) else 0
            if sla_ns:
                self.sla_breaches = sum(ns > sla_ns for ns in durations)
            values = [max(ns, 0) * 1e-9 for ns in durations]
        else:
            words = copy.words
            values = [double(words[SLOT * place + VALUES]) for place in places]
            self.batch = Batch.of_values(values)
        self.exemplars = self._exemplars(copy, dict(zip(places, values)), epoch)  # noqa: B905  one each

    def _exemplars(self, copy: Copy, values: dict[int, float], epoch: int) -> list[ExemplarState]:
        """Give the latest record of each power of two."""
        latest = {frexp(values[place])[1]: place for place in self.taken}
        epoch *= not self.state >> FLAGS & at.FLAG_END_UNIX
        exemplars = []
        for place in latest.values():
            high, low, span = copy.words[SLOT * place + 1 : SLOT * place + 4].tolist()
            if span:
                exemplars.append((values[place], high << 64 | low, span, max(0, epoch + copy.ends[place])))
        return exemplars

    def longer(self, ns: int) -> list[int]:
        """Give the places of those that took longer."""
        return [place for place, duration in zip(self.places, self.durations) if duration > ns]  # noqa: B905
