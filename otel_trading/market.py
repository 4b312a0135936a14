"""Market data as it comes in: how old it is, how much the market moves, and each tick while it moves much."""

from __future__ import annotations

from math import isfinite, nan
from time import time_ns

from otel_trading import lifecycle, probes
from otel_trading._backend import core
from otel_trading._layout import MODE_HIGH_VOLATILITY
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import SupportsFloat, TypeAlias

    from otel_trading._backend import Probe

    Number: TypeAlias = SupportsFloat | str
    Condition: TypeAlias = Callable[[], tuple[float, float]]

_NS_IN_MS = 1_000_000
_LATEST_MS = 2**63 // _NS_IN_MS

_note = core.market
_mode = core.mode


class _State:
    """What there is once a process; a forked child has it too."""

    def __init__(self) -> None:
        self.condition: Condition | None = None
        self.tick: Probe | None = None


_state = _State()


def market_data_in_python(
    symbol: str, exchange_ts_ms: float | None, price: Number | None = None, volume: Number | None = None
) -> None:
    """Note an update of a symbol's market data.

    ``exchange_ts_ms`` is the exchange's stamp, Unix time in milliseconds (None or 0: it has none), ``price`` the last
    or the mid price, ``volume`` what was traded in this update.  From the stamps comes the staleness of the data, from
    prices and volumes the market's volatility and volume, by which the budget's engine knows a moving market.  At most
    256 symbols are known; more are a fault.

    Takes less than a microsecond, recorded or not.  In the mode HIGH_VOLATILITY each update is also a span
    ``market_data.tick`` of no length, tier P1, with its symbol, stamp, price and volume.

    Never raises for a wrong value: that is a fault, and the value is left out.
    """
    stamp = exchange_ts_ms * _NS_IN_MS if type(exchange_ts_ms) is int else _stamp_ns(symbol, exchange_ts_ms)
    try:
        _note(
            symbol,
            stamp,
            nan if price is None else price,  # type: ignore[arg-type]  # what is no number is brought into form below
            nan if volume is None else volume,  # type: ignore[arg-type]
        )
    except Exception:  # noqa: BLE001  a foreign type's __float__ may raise anything
        if not isinstance(symbol, str):
            report("market:symbol", f"market_data: the symbol is of type {type(symbol).__name__}; give text")
            return
        stamp = _stamp_ns(symbol, exchange_ts_ms)
        price, volume = _number("price", price, symbol), _number("volume", volume, symbol)
        _note(symbol, stamp, price, volume)
    if _mode() == MODE_HIGH_VOLATILITY:
        _record_tick(symbol, stamp, price, volume)


if core.BACKEND == "native":  # the same in C, which comes here with what is not plain
    market_data = core.market_data
else:
    market_data = market_data_in_python
    market_data.__name__ = market_data.__qualname__ = "market_data"


def _stamp_ns(symbol: object, stamp: object) -> int:
    """Give a stamp in nanoseconds, 0 where there is none; what is no time is a fault, and none."""
    if stamp is None:
        return 0
    at = _number("exchange_ts_ms", stamp, symbol)
    if 0.0 <= at < _LATEST_MS:  # refuses NaN too
        return round(at * 1e3) * 1_000  # finer is no stamp's number as a float
    if isfinite(at):
        report("market:exchange_ts_ms", f"market_data {symbol!r:.100}: exchange_ts_ms {at!r} is no Unix time in ms")
    return 0


def _number(what: str, value: object, symbol: object) -> float:
    if value is None:
        return nan
    try:
        number = nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  whatever a foreign type's __float__ raises
        number = nan
    if not isfinite(number):
        report(
            f"market:{what}",
            f"market_data {symbol!r:.100}: {what} of type {type(value).__name__} is not a finite number",
        )
        return nan
    return number


def _record_tick(symbol: str, stamp: int, price: object, volume: object) -> None:
    probe = _state.tick
    if probe is None:
        probe = _state.tick = probes.probe("market_data.tick", probes.P1)
    attributes: dict[str, object] = {"trading.symbol": symbol}
    if stamp:
        attributes["trading.market_data.exchange_time"] = stamp / _NS_IN_MS
    for key, value in (("trading.market_data.price", price), ("trading.market_data.volume", volume)):
        if value is not None and value == value:  # noqa: PLR0124  not NaN
            attributes[key] = value if type(value) is float else float(value)  # type: ignore[arg-type]
    now = time_ns()
    probe.record(None, now, now, False, attributes)


def market_condition(function: Condition | None) -> None:
    """Have the engine ask ``function`` for the market's condition, not what ``market_data`` tells; None: no more.

    It is called without arguments, every 100 ms, in a thread of the recorder, and gives (volatility, volume): a year's
    volatility as a share (0.8 is 80 %), and the volume as a multiple of what is usual.  Above 0.8 and 2.0, unless
    configured otherwise, the mode is HIGH_VOLATILITY.  Each call takes the interpreter's lock, so it should be short.
    Where it raises, or gives something else, the mode stays as it is, and that is a fault.

    Works before ``configure`` as well.  What can not be called is a fault.
    """
    if function is not None and not callable(function):
        report("market:condition", f"market_condition: {type(function).__name__} can not be called; give a function")
        return
    _state.condition = function
    lifecycle.attend_to_budget()


def condition_function() -> Condition | None:
    """Give the function that ``market_condition`` was given."""
    return _state.condition
