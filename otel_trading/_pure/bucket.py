"""The bucket: bytes that may be kept, and the thresholds that divide among plain traces what the triggers leave.

Its numbers are in a page (struct ot_shared) that is this process's own, or that of all processes of a directory.  There
the last writer wins, as Python has no compare-and-exchange: where two processes write a number in the same moment, one
addition to it is lost, some bytes of a second, and the next plan finds it out.
"""

from __future__ import annotations

import math
import struct

from otel_trading import _layout as at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_TOKENS = at.OFF_SHARED_TOKENS // 8
_FILLED = at.OFF_SHARED_FILLED_NS // 8
_CANDIDATES = at.OFF_SHARED_CANDIDATES // 8
_PLANNED_NS = at.OFF_SHARED_PLANNED_NS // 8
_THRESHOLD = at.OFF_SHARED_THRESHOLD // 8
_PLANNED = at.OFF_SHARED_PLANNED // 8
_RATE = at.OFF_SHARED_RATE // 8
_COUNTERS = at.TIERS + 1  # candidates of each tier, triggered
_WORD = (1 << 64) - 1
_SIGN = 1 << 63
_MOST = float(1 << 50)
_OF_BUDGET = 0.85  # the exporters' pace stays that much below the limit, and metrics are sent too
PERIOD = 100_000_000
"""Between two plans, ns."""
SMOOTHING = 1.0
"""Of the rates that a plan goes by, seconds."""
_REFLOW = 10.0  # seconds in which the bucket gets back to half
_UNIT = 1 << at.SAMPLE_BITS - at.THRESHOLD_BITS
NEVER = 1 << at.SAMPLE_BITS
"""A threshold that no trace reaches."""
_OPEN_AGAIN = 1.05  # a tier is whole again where so many times its rate would fit
_STEADY = 0.95, 1.1  # a threshold stays while the share is between these parts of the one that it stands for
_FACTOR = 0.05, 4.0
_LEARN = 0.2
_pack = struct.Struct("<d").pack
_rates = struct.Struct(f"<{_COUNTERS}d")


def rounded(threshold: int) -> int:
    """Give the next threshold that a verdict can tell."""
    return min(-(-threshold // _UNIT) * _UNIT, NEVER)


def _threshold(share: float, before: int) -> int:
    """Give the threshold that leaves a share, or the one before where that is about the same."""
    if 0 < before < NEVER and _STEADY[0] <= share / (1 - before / NEVER) <= _STEADY[1]:
        return before
    return min(max(math.ceil((1 - share) * (1 << at.THRESHOLD_BITS)), 1) * _UNIT, NEVER)


def poured(rates: Sequence[float], free: float, before: Sequence[int]) -> list[int]:
    """Give what is free to the tiers, the best one first: a threshold each; ``before`` are those in force."""
    thresholds = [NEVER] * at.TIERS
    for tier, rate in enumerate(rates):
        known = min(before[tier], NEVER)
        if not 0 < free >= rate * (_OPEN_AGAIN if known else 1.0):
            if rate > 0:
                thresholds[tier] = _threshold(min(max(free, 0.0) / rate, 1.0), known)
            break
        free -= rate
        thresholds[tier] = 0
    return thresholds


class Bucket:
    """Tokens, rates and thresholds."""

    def __init__(self) -> None:
        self.words = memoryview(bytearray(at.PAGE)).cast("Q")
        self.network = math.inf  # bytes a second that traces may take
        self.room = math.inf  # bytes that may be saved up
        self.pending = 0.0  # bytes of traces that were let through and are not taken out yet
        self.factor = 1.0  # of the estimate
        self.taken = 1.0  # the factor that the batch which was taken last was charged by

    # ---- the bucket ----

    @property
    def tokens(self) -> int:
        """Bytes that may be kept; below zero what was kept too much."""
        word: int = self.words[_TOKENS]
        return (word ^ _SIGN) - _SIGN

    def take(self, size: float) -> None:
        """Take bytes out, whether there are so many or not."""
        self._set(self.tokens - round(size))

    def fill(self, now_ns: int, network: float, burst: float, normal: float) -> None:
        """Put in what has come since the last time; ``network`` is the mode's budget, ``normal`` that of NORMAL.

        With a budget of nothing the rest stays; without a limit there is no bucket.
        """
        self.network = network = network * _OF_BUDGET
        usual = network or normal * _OF_BUDGET
        self.room = room = min(usual * burst, _MOST) if usual < math.inf else _MOST
        filled = self.words[_FILLED]
        self.words[_FILLED] = now_ns
        if not filled:
            self._set(room)
        elif 0 < network < math.inf:
            came = network * max(now_ns - filled, 0) * 1e-9
            self._set(min(max(self.tokens, -room) + came, room))

    def _set(self, tokens: float) -> None:
        self.words[_TOKENS] = int(min(max(tokens, -_MOST), _MOST)) & _WORD

    def spare(self) -> float:
        """Give the bytes that plain traces may take at once; the last quarter is for those with a trigger."""
        return math.inf if self.network == math.inf else self.tokens - self.room / 4

    def lets(self, trigger: int) -> bool:
        """Tell whether there is enough for a trace with this trigger."""
        if self.network == math.inf:
            return True
        if trigger == at.TRIGGER_SLOW:
            return self.network > 0 and self.tokens - self.pending > self.room / 4
        return self.tokens - self.pending > 0

    # ---- the plan ----

    def count(self, number: int, size: float) -> None:
        """Count bytes of plain traces by tier, kept or not, or, past the tiers, of triggered ones that are kept."""
        words, place = self.words, _CANDIDATES + number
        words[place] = words[place] + round(size) & _WORD

    def thresholds(self) -> list[int]:
        """Give what is in force, a tier."""
        planned = self.words[_THRESHOLD : _THRESHOLD + at.TIERS].tolist()
        return [min(threshold // _UNIT * _UNIT, NEVER) for threshold in planned]  # whoever wrote it

    def plan(self, now_ns: int) -> None:
        """Set thresholds so that what passes fits, best tier first; after ``fill``, at most each 100 ms."""
        words = self.words
        before = words[_PLANNED_NS]
        if 0 <= now_ns - before < PERIOD:
            return
        counters = words[_CANDIDATES : _CANDIDATES + _COUNTERS].tolist()
        planned = words[_PLANNED : _PLANNED + _COUNTERS].tolist()
        words[_PLANNED_NS] = now_ns
        for number, counter in enumerate(counters):
            words[_PLANNED + number] = counter
        if not before or before > now_ns:
            return
        seconds = (now_ns - before) * 1e-9
        weight = 1 - math.exp(-seconds / SMOOTHING)
        rates = list(_rates.unpack(words[_RATE : _RATE + _COUNTERS].tobytes()))
        for number, (counter, past) in enumerate(zip(counters, planned)):  # noqa: B905  five each
            rate = rates[number] if 0 <= rates[number] < _MOST else 0.0
            rates[number] = rate = rate + weight * ((counter - past & _WORD) / seconds - rate)
            words[_RATE + number] = int.from_bytes(_pack(rate), "little")
        for tier, threshold in enumerate(self._divided(rates)):
            words[_THRESHOLD + tier] = threshold

    def _divided(self, rates: list[float]) -> list[int]:
        network = self.network
        if network == math.inf:
            return [0] * at.TIERS
        if network == 0:
            return [NEVER] * at.TIERS
        free = network - rates[at.TIERS] + (self.tokens - self.room / 2) / _REFLOW
        return poured(rates[: at.TIERS], free, self.words[_THRESHOLD : _THRESHOLD + at.TIERS].tolist())

    # ---- the estimate ----

    def charged(self, estimate: float) -> float:
        """Give what a span of so many bytes is charged."""
        return estimate * self.factor

    def took(self, raw: float, charged: float) -> None:
        """Remember by which factor a batch that goes out was charged."""
        if raw > 0:
            self.taken = charged / raw

    def learn(self, sent: int, charged: int) -> None:
        """Correct the estimate by what was sent; bytes that nothing was charged for are taken out now."""
        if charged <= 0:
            self.take(sent)
            return
        least, most = _FACTOR
        target = min(max(sent / charged * self.taken, least), most)
        self.factor += _LEARN * (target - self.factor)
