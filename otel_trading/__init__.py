"""Tracing and metrics for trading programs, at a cost that the trade does not notice."""

from otel_trading._backend import PureBackendWarning, SubinterpreterError, backend
from otel_trading._version import __version__
from otel_trading.errors import BackendError, ConfigurationError, OtelTradingError
from otel_trading.lifecycle import accounts, configure, enable, flush, shutdown, stats
from otel_trading.probes import P0, P1, P2, P3, counter, gauge, histogram, probe
from otel_trading.propagation import current_trace_id, extract, inject

__all__ = [
    "P0",
    "P1",
    "P2",
    "P3",
    "BackendError",
    "ConfigurationError",
    "OtelTradingError",
    "PureBackendWarning",
    "SubinterpreterError",
    "__version__",
    "accounts",
    "backend",
    "configure",
    "counter",
    "current_trace_id",
    "enable",
    "extract",
    "flush",
    "gauge",
    "histogram",
    "inject",
    "probe",
    "shutdown",
    "stats",
]
