"""Tracing and metrics for trading programs, at a cost that the trade does not notice."""

from otel_trading import _added_memory  # the first: what the others add is measured from here on
from otel_trading._backend import PureBackendWarning, SubinterpreterError, backend
from otel_trading._version import __version__
from otel_trading.budget.steering import mode, pin, set_mode
from otel_trading.business import pnl, risk_breach
from otel_trading.errors import BackendError, ConfigurationError, OtelTradingError
from otel_trading.flight import dump
from otel_trading.lifecycle import configure, enable, flush, shutdown
from otel_trading.market import market_condition, market_data
from otel_trading.orders import Order, order
from otel_trading.probes import P0, P1, P2, P3, counter, gauge, histogram, probe
from otel_trading.propagation import carry, current_trace_id, extract, inject
from otel_trading.totals import accounts, stats
from otel_trading.vitality import critical, heartbeat, queue

__all__ = [
    "P0",
    "P1",
    "P2",
    "P3",
    "BackendError",
    "ConfigurationError",
    "Order",
    "OtelTradingError",
    "PureBackendWarning",
    "SubinterpreterError",
    "__version__",
    "accounts",
    "backend",
    "carry",
    "configure",
    "counter",
    "critical",
    "current_trace_id",
    "dump",
    "enable",
    "extract",
    "flush",
    "gauge",
    "heartbeat",
    "histogram",
    "inject",
    "market_condition",
    "market_data",
    "mode",
    "order",
    "pin",
    "pnl",
    "probe",
    "queue",
    "risk_breach",
    "set_mode",
    "shutdown",
    "stats",
]

_added_memory.package.end("import")
