"""Counters, gauges and histograms."""

from __future__ import annotations

import math
import struct
from time import perf_counter_ns as clock

from otel_trading import _layout as at
from otel_trading._pure.frames import NO_ID, NO_TRACE, top
from otel_trading._pure.names import names
from otel_trading._pure.queue_gauge import queue
from otel_trading._pure.recorder import meta_word, recorder
from otel_trading._pure.writer import GATE, observe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.writer import Writer

_UPDATES = at.OFF_INSTRUMENT_UPDATES // 8
_SUM = at.OFF_INSTRUMENT_SUM_INT // 8
_VALUE = at.OFF_INSTRUMENT_VALUE // 8
_UPDATED = at.OFF_INSTRUMENT_UPDATED // 8
_OFF = at.OFF_INSTRUMENT_OFF
_MOST_PERCENT = 100
_INT_MAX = (1 << 63) - 1
_WORD = struct.Struct("<Q")
_DOUBLE = struct.Struct("<d")


def double(word: int) -> float:
    """Give the double whose bits a word holds."""
    number: float = _DOUBLE.unpack(_WORD.pack(word))[0]
    return number


def bits(number: float) -> int:
    """Give the word that holds a double."""
    word: int = _WORD.unpack(_DOUBLE.pack(number))[0]
    return word


NAN = bits(math.nan)


def number_of(value: float) -> float:
    """Convert as C does; NaN for what is too large.  Raises TypeError for what is no number."""
    if type(value) is float:
        return value
    try:
        return math.ldexp(value, 0)  # takes what has __float__ or __index__, and no text
    except OverflowError:
        return math.nan


class Instrument:
    """What the three have in common."""

    __slots__ = ("_known", "_words", "attributes", "description", "id", "kind", "name", "off_cpu", "tier", "unit")

    def __init__(
        self, name: str, tier: int = 1, unit: str = "", description: str = "", attributes: str = "", off_cpu: int = 0
    ) -> None:
        """Register it.

        Raises ValueError for a tier that there is not, an ``off_cpu`` that is no percentage, and any of P0; TypeError
        where a text is none.
        """
        if not all(isinstance(text, str) for text in (name, unit, description, attributes)):
            raise TypeError("an instrument's name, unit, description and attributes are text")
        if not 0 <= tier < at.TIERS:
            raise ValueError("tier is 0 to 3")
        if not 0 <= off_cpu <= _MOST_PERCENT:
            raise ValueError("off_cpu is a percentage of CPU load, 1 to 100, or 0 for none")
        if off_cpu and tier == 0:
            raise ValueError("an instrument of tier P0 can not be switched off, so it has no off_cpu")
        self.name = name
        self.tier = tier
        self.off_cpu = off_cpu
        self.unit = unit
        self.description = description
        self.attributes = attributes
        self.kind = _KINDS[type(self)]
        self._known: bytes | None = None  # what the gate shows when the tier is on
        self.id = names.register_instrument(self)
        if recorder.file is not None:
            queue.present(recorder.file)

    def _place(self) -> tuple[SegmentFile, int] | None:
        """Give the file and the index of the instrument's first word; None where nothing is recorded now."""
        state = recorder.gate[GATE]
        if state != self._known:
            if recorder.claim() is None:
                return None
            state = recorder.gate[GATE]
            if self.id < 0 or recorder.is_on(self.tier, state) < 0:
                return None
            self._known = state
        file = recorder.file
        if file is None:
            return None
        place = file.instruments + at.SIZE_INSTRUMENT * self.id
        return (file, place // 8) if not file.map[place + _OFF] or not self.tier else None


def _updated(words: memoryview, index: int) -> None:
    words[index + _UPDATED] = clock()
    words[index + _UPDATES] = words[index + _UPDATES] + 1


class Counter(Instrument):
    """A sum that rises."""

    __slots__ = ()

    def add(self, amount: float, /) -> None:
        """Raise the sum.  A negative amount, or one that is not finite, is a fault; what is no number a TypeError."""
        place = self._place()
        if place is None:
            return
        file, index = place
        words = file.words
        if type(amount) is int:
            # Without a call between reading and writing, no other thread comes in between.
            total = words[index + _SUM] + amount
            if amount >= 0 and total <= _INT_MAX:
                words[index + _SUM] = total
                _updated(words, index)
                return
        else:
            number = number_of(amount)
            if 0 <= number < math.inf:
                before = words[index + _VALUE]
                after = bits(double(before) + number)
                while words[index + _VALUE] != before:  # somebody was quicker
                    before = words[index + _VALUE]
                    after = bits(double(before) + number)
                words[index + _VALUE] = after
                _updated(words, index)
                return
        recorder.fault()


class Gauge(Instrument):
    """A value that goes up and down."""

    __slots__ = ()

    def set(self, value: float, /) -> None:
        """Replace the value.  One that is not finite is a fault; what is no number a TypeError."""
        number = number_of(value)
        place = self._place()
        if place is None:
            return
        if not math.isfinite(number):
            recorder.fault()
            return
        file, index = place
        file.words[index + _VALUE] = bits(number)
        _updated(file.words, index)


def queue_gauge(gauge: Gauge | None, /) -> None:
    """Say which gauge is the length of the program's queue; None: the one that is called so."""
    if gauge is not None and not isinstance(gauge, Gauge):
        raise TypeError("queue_gauge() takes a Gauge, or None")
    queue.ask(None if gauge is None else gauge.id)
    if recorder.file is not None:
        queue.present(recorder.file)


class Histogram(Instrument):
    """A distribution; each observation is a record of the thread's ring, so that the drain sorts it into buckets."""

    __slots__ = ()

    def record(self, value: float, /) -> None:
        """Add an observation.  One that is not finite is a fault; what is no number a TypeError."""
        number = number_of(value)
        place = self._place()
        writer = recorder.claim()
        if place is None or writer is None:
            return
        if math.isfinite(number):
            self._observe(place, writer, number)
        else:
            recorder.fault()

    def _observe(self, place: tuple[SegmentFile, int], writer: Writer, number: float) -> None:
        above = top()
        if above is None:
            trace, span, flags = NO_TRACE, NO_ID, 0
        else:
            trace, span, flags = above.trace, above.span, above.inherited()
        meta = meta_word(self.id, at.SLOT_VALUE << 16, flags, self.tier) | 1 << 48
        if observe(writer, trace, span, meta.to_bytes(8, "little"), number):
            _updated(place[0].words, place[1])

    def pause(self, began: int) -> None:
        """Record the time since ``began`` in seconds, where anything is recorded."""
        place = self._place()
        writer = recorder.claim()
        if place is not None and writer is not None:
            self._observe(place, writer, (clock() - began) * 1e-9)


_KINDS = {
    Counter: at.INSTRUMENT_COUNTER,
    Gauge: at.INSTRUMENT_GAUGE,
    Histogram: at.INSTRUMENT_HISTOGRAM,
}


class _Collections:
    """Times the garbage collector."""

    def __init__(self) -> None:
        self.pauses = Histogram("gc.pause", 3, "s", "Pause of the application by a garbage collection", off_cpu=60)
        self.began = 0

    def callback(self, phase: str, _info: object) -> None:
        """For ``gc.callbacks``: record each collection's pause."""
        if phase == "start":
            self.began = clock()
            return
        began, self.began = self.began, 0
        if began:
            self.pauses.pause(began)


gc_callback = _Collections().callback
