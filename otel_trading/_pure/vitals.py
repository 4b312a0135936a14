"""Critical events: what the process knew of itself when something happened that matters.

The newest are in a ring of their own in the segment, so that whoever looks into the process's death finds them.
"""

from __future__ import annotations

import math
import struct
import time
from itertools import count

from otel_trading import _layout as at
from otel_trading._pure import condition
from otel_trading._pure.frames import NO_TRACE, top
from otel_trading._pure.instruments import number_of
from otel_trading._pure.names import names
from otel_trading._pure.queue_gauge import queue
from otel_trading._pure.recorder import recorder
from otel_trading._pure.writer import GATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.mapped import SegmentFile

_BODY = struct.Struct("<QBBBBIIIQQQQd16s40s").pack  # all but the sequence number
_COUNT = at.OFF_LIFE_VITAL_COUNT // 8
_OPEN_ORDERS = at.OFF_LIFE_OPEN_ORDERS // 8
_WORD = (1 << 64) - 1
_CONTINUATION = 0x80  # the first two bits of a byte that goes on with a character …
_FIRST_BITS = 0xC0  # … of these


class _Vitals:
    """Those of the present segment; made anew with it, so that a forked child needs no hook."""

    def __init__(self, file: SegmentFile) -> None:
        # One call takes a number, so no thread and no signal's handler can take the same.
        self.numbers = count(file.words[file.life // 8 + _COUNT])


_made: dict[SegmentFile, _Vitals] = {}  # the present ones, by their segment


def _made_for(file: SegmentFile) -> _Vitals:
    """Make those of a new segment, whoever else is about to."""
    vitals = _made.setdefault(file, _Vitals(file))
    for other in list(_made):
        if other is not file:
            _made.pop(other, None)
    return vitals


def beginning(key: str) -> bytes:
    """Give as much of a key as an event has room for, whole characters; lone surrogates as "?"."""
    data = key.encode(errors="replace")
    end = at.VITAL_KEY_BYTES
    if len(data) <= end:
        return data
    while data[end] & _FIRST_BITS == _CONTINUATION:
        end -= 1
    return data[:end]


def _note(
    file: SegmentFile, unix_ns: int, what: tuple[int, int, int], key: bytes, latency: float, trace: bytes
) -> None:
    """Write an event into the segment that is recorded into.

    ``what`` is its kind, the order's state, and the id of its name; ``trace`` as slots have it, high word first.
    """
    vitals = _made.get(file) or _made_for(file)
    queue.present(file)
    words, life = file.words, file.life // 8
    memory, cpu = condition.loads(file)
    kind, state, name = what
    body = _BODY(
        unix_ns,
        kind,
        state,
        len(key),
        0,
        name,
        min(words[life + _OPEN_ORDERS], 0xFFFFFFFF),
        condition.market_age(file, unix_ns),
        condition.queue_bits(file),
        memory,
        cpu,
        condition.resident(file),
        latency,
        trace,
        key,
    )
    number = next(vitals.numbers)
    place = file.vitals + number % at.VITALS * at.SIZE_VITAL
    words[place // 8] = 2 * number + 1 & _WORD
    file.map[place + 8 : place + at.SIZE_VITAL] = body
    words[place // 8] = 2 * number + 2 & _WORD
    if words[life + _COUNT] <= number:
        words[life + _COUNT] = number + 1


def critical(name: str, key: str, kind: int, state: int, latency: float, /) -> None:
    """Note a critical event with the state of the process.

    ``name`` is the symbol, the breach's kind, the event's name; ``key`` the client order id or ""; ``latency`` in
    seconds or NaN.  Raises TypeError, and ValueError for a kind or a state that there is not.
    """
    if not isinstance(name, str) or not isinstance(key, str):
        raise TypeError("critical() takes two str, two int and a float")
    if not at.VITAL_ORDER <= kind <= at.VITAL_CRITICAL or not 0 <= state <= at.ORDER_REJECTED:
        raise ValueError("an event's kind is 1 to 3, its state 0 to 6")
    seconds = number_of(latency)
    file = recorder.file
    if file is None:
        recorder.claim()  # in a forked child the first record makes the segment
        file = recorder.file
        if file is None:
            return
    if recorder.is_on(0, recorder.gate[GATE]) < 0:
        return
    above = top()
    trace = NO_TRACE if above is None else above.trace
    _note(file, time.time_ns(), (kind, state, names.name(name)), beginning(key), seconds, trace)


def order_changed(
    file: SegmentFile, state: int, symbol: int, key: bytes, times: tuple[int, int], trace_id: int
) -> None:
    """Write what has become of an order; ``times`` are when it was sent and when it changed, Unix ns."""
    if recorder.is_on(0, recorder.gate[GATE]) < 0:
        return
    sent, changed = times
    latency = math.nan if state == at.ORDER_SENT else max(changed - sent, 0) * 1e-9
    trace = (trace_id >> 64 & _WORD).to_bytes(8, "little") + (trace_id & _WORD).to_bytes(8, "little")
    _note(file, changed & _WORD, (at.VITAL_ORDER, state, symbol), beginning(key.decode()), latency, trace)
