"""In what condition a process is, as its segment tells: queue, market data, load.

For critical events, which the process writes itself, and for pulses, which whoever drains it writes.  The file may be
another process's, so no number in it is believed before it was compared with what there can be.
"""

from __future__ import annotations

from otel_trading import _layout as at
from otel_trading._pure.instruments import NAN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.mapped import SegmentFile

UNKNOWN_AGE = 0xFFFFFFFF
_QUEUE = at.OFF_LIFE_QUEUE // 8
_UPDATES, _VALUE = at.OFF_INSTRUMENT_UPDATES // 8, at.OFF_INSTRUMENT_VALUE // 8
_RECEIVED = at.OFF_MARKET_RECEIVED_NS // 8
_MARKET = at.SIZE_MARKET // 8
_TICKS, _CPU, _MEMORY = (
    at.OFF_READINGS_TICKS // 8,
    at.OFF_READINGS_CPU_LOAD // 8,
    at.OFF_READINGS_MEMORY_LOAD // 8,
)
_PULSES = at.OFF_LIFE_PULSE_COUNT // 8
_RESIDENT = at.OFF_PULSE_RESIDENT // 8
_NS_IN_MS = 1_000_000


def queue_bits(file: SegmentFile) -> int:
    """Give the double's bits of the queue's gauge; NaN where there is none, it was never set, or it is off."""
    number = file.words[file.life // 8 + _QUEUE]
    if not 0 < number <= min(file.halves[at.OFF_HEADER_INSTRUMENT_COUNT // 4], at.MAX_INSTRUMENTS):
        return NAN
    place = file.instruments + at.SIZE_INSTRUMENT * (number - 1)
    words, word = file.words, place // 8
    is_gauge = file.map[place + at.OFF_INSTRUMENT_KIND] == at.INSTRUMENT_GAUGE
    is_off = file.map[place + at.OFF_INSTRUMENT_OFF] and file.map[place + at.OFF_INSTRUMENT_TIER]
    return words[word + _VALUE] if is_gauge and words[word + _UPDATES] and not is_off else NAN


def market_age(file: SegmentFile, now: int) -> int:
    """Give how many ms before ``now``, Unix ns, market data of any symbol came last; UNKNOWN_AGE without any."""
    count = min(file.halves[at.OFF_HEADER_MARKET_COUNT // 4], at.MARKETS)
    first = file.markets // 8 + _RECEIVED
    newest = max(file.words[first : first + count * _MARKET : _MARKET], default=0)
    if not newest:
        return UNKNOWN_AGE
    return min(max(now - newest, 0) // _NS_IN_MS, UNKNOWN_AGE - 1)


def updates(file: SegmentFile) -> int:
    """Give how many updates of market data there have been, of all symbols."""
    count = min(file.halves[at.OFF_HEADER_MARKET_COUNT // 4], at.MARKETS)
    first = file.markets // 8 + at.OFF_MARKET_UPDATES // 8
    return sum(file.words[first : first + count * _MARKET : _MARKET])


def loads(file: SegmentFile) -> tuple[int, int]:
    """Give the doubles' bits of memory and CPU load as the governor has read them last; NaN where nobody has."""
    words, first = file.words, file.readings // 8
    return (words[first + _MEMORY], words[first + _CPU]) if words[first + _TICKS] else (NAN, NAN)


def resident(file: SegmentFile) -> int:
    """Give the resident bytes of the newest pulse, 0 without one."""
    words = file.words
    count = words[file.life // 8 + _PULSES]
    return words[(file.pulses + (count - 1) % at.PULSES * at.SIZE_PULSE) // 8 + _RESIDENT] if count else 0
