"""The market: what updates tell of it, and whether it is more volatile and busier than usual.

A second's log return of each symbol goes into an average of a minute, and its volume of ten seconds is compared with
an average of ten minutes.
"""

from __future__ import annotations

import math
import time
from _thread import RLock

from otel_trading import _layout as at
from otel_trading._pure.instruments import bits, double, number_of
from otel_trading._pure.names import names
from otel_trading._pure.recorder import recorder
from otel_trading._pure.writer import GATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading._pure.engine import Figures
    from otel_trading._pure.mapped import SegmentFile
    from otel_trading._pure.rules import Policy

_YEAR = 31_536_000.0  # seconds; markets that never close
_SECOND = 1.0  # between two samples
_RETURNS = 60.0  # seconds: the time constant of the variance
_USUAL = 600.0  # seconds: of the usual volume
_RECENT = 10  # samples that are the present volume
_LEAST_RETURNS = 10.0  # seconds of returns before a volatility is told
_LEAST_VOLUMES = 30  # samples before a volume is told

_EXCHANGE = at.OFF_MARKET_EXCHANGE_NS // 8
_RECEIVED = at.OFF_MARKET_RECEIVED_NS // 8
_UPDATES = at.OFF_MARKET_UPDATES // 8
_PRICE = at.OFF_MARKET_PRICE // 8
_VOLUME = at.OFF_MARKET_VOLUME // 8
_NAN = bits(math.nan)
_LAST_TIME = (1 << 63) - 1


class _Course:
    """What is remembered of a symbol from one sample to the next."""

    __slots__ = ("price", "rates", "returns", "samples", "usual", "usual_weight", "variance", "volume", "weight")

    def __init__(self, price: float, volume: float) -> None:
        self.price = price  # at the sample before; NaN = none yet
        self.volume = volume  # sum so far, likewise
        self.variance = self.weight = 0.0  # of a second's return, weighted; the weight nears 1
        self.returns = 0.0  # seconds of them so far
        self.rates = [0.0] * _RECENT  # volume a second
        self.samples = 0  # of it
        self.usual = self.usual_weight = 0.0  # volume a second, likewise

    def note_price(self, price: float, elapsed: float) -> None:
        if not price > 0:  # NaN too
            return
        if self.price > 0:
            change, alpha = math.log(price) - math.log(self.price), 1 - math.exp(-elapsed / _RETURNS)
            self.variance += (change * change / elapsed - self.variance) * alpha
            self.weight += (1 - self.weight) * alpha
            self.returns += elapsed
        self.price = price

    def note_volume(self, volume: float, elapsed: float) -> None:
        place = self.samples % _RECENT
        if self.samples >= _RECENT:  # what is usual is what was before the present
            alpha = 1 - math.exp(-elapsed / _USUAL)
            self.usual += (self.rates[place] - self.usual) * alpha
            self.usual_weight += (1 - self.usual_weight) * alpha
        self.rates[place] = (volume - self.volume) / elapsed if volume > self.volume else 0.0
        self.volume = volume
        self.samples += 1

    def volatility_now(self) -> float:
        if self.returns < _LEAST_RETURNS or self.weight <= 0:
            return 0.0
        return math.sqrt(self.variance / self.weight * _YEAR)

    def volume_now(self) -> float:
        if self.samples < _LEAST_VOLUMES or not self.usual > 0:
            return 1.0
        ratio = sum(self.rates) / _RECENT / (self.usual / self.usual_weight)
        return ratio if math.isfinite(ratio) else 1.0


class Market:
    """The table of market data of the present segment, and its watcher."""

    def __init__(self) -> None:
        self.lock = RLock()
        self._said: tuple[float, float] | None = None
        self.reset()

    def reset(self) -> None:
        """Begin with a new segment's table."""
        self.known: dict[str, int] = {}  # index of the entry's first word, by symbol
        self.newest_ns = 0  # when the newest update of any symbol came, Unix time
        self._courses: list[_Course] = []
        self._sampled = math.inf  # when; infinity = not yet

    def forked(self) -> None:
        """Forget, in a child, who held the lock in the parent."""
        self.lock = RLock()
        self.reset()

    # ---- what updates tell ----

    def note(self, symbol: str, exchange_ns: int, price: float, volume: float) -> None:
        """Enter an update."""
        file = recorder.file
        if file is None and recorder.claim() is not None:
            file = recorder.file
        if file is None or recorder.is_on(0, recorder.gate[GATE]) < 0:
            return
        index = self.known.get(symbol)
        if index is None:
            index = self._enter(file, symbol)
            if index is None:
                recorder.fault()
                return
        words = file.words
        if not 0 <= exchange_ns <= _LAST_TIME:
            recorder.fault()
            exchange_ns = 0
        words[index + _EXCHANGE] = exchange_ns
        words[index + _RECEIVED] = self.newest_ns = time.time_ns()
        if math.isfinite(price):
            words[index + _PRICE] = bits(price)
        elif not math.isnan(price):
            recorder.fault()
        if not math.isnan(volume) and (volume < 0.0 or not self._add(words, index + _VOLUME, volume)):
            recorder.fault()
        # Without a call between reading and writing, no other thread comes in between.
        words[index + _UPDATES] = words[index + _UPDATES] + 1

    def _add(self, words: memoryview, index: int, volume: float) -> bool:
        """Raise a sum, which stays as it is where it would be infinite: False."""
        while True:
            before = words[index]
            total = double(before) + volume
            after = bits(total)
            if not math.isfinite(total):
                return False
            if words[index] == before:  # else somebody was quicker
                words[index] = after
                return True

    def _enter(self, file: SegmentFile, symbol: str) -> int | None:
        name = names.name(symbol)
        with self.lock:
            index = self.known.get(symbol)
            if index is not None:
                return index
            number = len(self.known)
            if number >= at.MARKETS:
                return None
            index = (file.markets + at.SIZE_MARKET * number) // 8
            self.known[symbol] = index
            file.words[index + _PRICE] = _NAN
            file.halves[2 * index] = name
            file.halves[at.OFF_HEADER_MARKET_COUNT // 4] = number + 1
        return index

    def updates(self, file: SegmentFile) -> int:
        """Tell how many updates there have been, also in another process's segment."""
        words = file.words
        return sum(words[index + _UPDATES] for index in _places(file))

    def newest_in(self, file: SegmentFile) -> int:
        """Tell when the newest update of any symbol came, Unix ns, also in another process's segment; 0: none yet."""
        words = file.words
        return max((words[index + _RECEIVED] for index in _places(file)), default=0)

    # ---- what they tell of the market ----

    def say(self, volatility: float, volume: float) -> None:
        """Have the program's word for it from now on; both NaN: no longer."""
        self._said = None if math.isnan(volatility) and math.isnan(volume) else (volatility, volume)

    def look(self, file: SegmentFile, figures: Figures, policy: Policy) -> None:
        """Fill in the market's condition."""
        now = figures.now
        if now < self._sampled:  # the first look, or another clock
            self._sampled = now
            self._courses = []
            self._begin(file)
        elapsed = now - self._sampled
        if elapsed >= _SECOND:
            self._sampled = now
            for course, (price, volume) in zip(self._courses, self._table(file)):  # noqa: B905  new ones come after
                course.note_price(price, elapsed)
                course.note_volume(volume, elapsed)
            self._begin(file)
        if self._said is not None:  # one alone is no condition: it can not be told
            figures.volatility, figures.volume = self._said
            return
        best = (False, -1.0)
        figures.volatility, figures.volume = 0.0, 1.0
        for course in self._courses:
            volatility, volume = course.volatility_now(), course.volume_now()
            rank = (volatility > policy.volatility and volume > policy.volume, volatility)
            if rank > best:
                best = rank
                figures.volatility, figures.volume = volatility, volume

    def _table(self, file: SegmentFile) -> list[tuple[float, float]]:
        words = file.words
        return [(double(words[index + _PRICE]), double(words[index + _VOLUME])) for index in _places(file)]

    def _begin(self, file: SegmentFile) -> None:
        """Begin with the symbols that are new: their first sample is what the others are compared with."""
        self._courses += [_Course(*row) for row in self._table(file)[len(self._courses) :]]


def _places(file: SegmentFile) -> list[int]:
    """Give the indexes of the entries that there are."""
    count = min(file.halves[at.OFF_HEADER_MARKET_COUNT // 4], at.MARKETS)
    return [(file.markets + at.SIZE_MARKET * number) // 8 for number in range(count)]


watch = Market()


def market(symbol: str, exchange_ns: int, price: float, volume: float, /) -> None:
    """Note an update of a symbol's market data; NaN: it has no price, or volume.  Past MARKETS symbols: a fault."""
    if not isinstance(symbol, str) or not isinstance(exchange_ns, int):
        raise TypeError("market() takes a str, an int and two floats")
    if type(symbol) is not str:
        symbol = str.__str__(symbol)  # told by its text, whatever a kind of str makes of its own hash
    watch.note(symbol, exchange_ns, number_of(price), number_of(volume))


def market_condition(volatility: float, volume: float, /) -> None:
    """Have the engine use these in place of what ``market`` tells; both NaN: no longer."""
    watch.say(number_of(volatility), number_of(volume))
