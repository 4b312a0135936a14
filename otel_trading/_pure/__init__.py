"""The recorder without a compiler: the interface of ``_native.pyi``, in Python.

It writes the same format and means the same; only its cost differs.
"""

from __future__ import annotations

from otel_trading._pure.host import accounts, drain_start, drain_stop, keep, settle, take
from otel_trading._pure.host import drain_now as drain
from otel_trading._pure.instruments import Counter, Gauge, Histogram, gc_callback
from otel_trading._pure.life import close, fault, forked, interrupt_open, is_open, open  # noqa: A004  the interface
from otel_trading._pure.picture import snapshot
from otel_trading._pure.probes import Probe, traced
from otel_trading._pure.reader import Reader
from otel_trading._pure.remote import remote
from otel_trading._pure.spans import Span, current
from otel_trading._pure.writer import Token

BACKEND = "pure"

__all__ = [
    "BACKEND",
    "Counter",
    "Gauge",
    "Histogram",
    "Probe",
    "Reader",
    "Span",
    "Token",
    "accounts",
    "close",
    "current",
    "drain",
    "drain_start",
    "drain_stop",
    "fault",
    "forked",
    "gc_callback",
    "interrupt_open",
    "is_open",
    "keep",
    "open",
    "remote",
    "settle",
    "snapshot",
    "take",
    "traced",
]
