"""The recorder without a compiler: the interface of ``_native.pyi``, in Python.

It writes the same format and means the same; only its cost differs.
"""

from __future__ import annotations

from otel_trading._pure.batch import Batch
from otel_trading._pure.beats import beat
from otel_trading._pure.buffers import fit_buffers
from otel_trading._pure.decisions import await_decision
from otel_trading._pure.endings import ending, note_signals
from otel_trading._pure.frames import attach_context, current, detach_context, get_context
from otel_trading._pure.governor import govern, govern_start, govern_stop, mode, system_root
from otel_trading._pure.hooks import api_install
from otel_trading._pure.host import accounts, drain_start, drain_stop, keep, kept, take
from otel_trading._pure.host import drain_now as drain
from otel_trading._pure.hosts import adopt, adopted, ask_host, await_host, drain_give, drain_take, inherit, let_go
from otel_trading._pure.instruments import Counter, Gauge, Histogram, gc_callback, queue_gauge
from otel_trading._pure.life import close, fault, forked, interrupt_open, is_open, open  # noqa: A004  the interface
from otel_trading._pure.market import market, market_condition
from otel_trading._pure.meter import count_io, count_thread, hardware_cycles
from otel_trading._pure.orders import order_get, order_put, orders_open
from otel_trading._pure.picture import snapshot
from otel_trading._pure.probes import Probe, traced
from otel_trading._pure.reader import Reader
from otel_trading._pure.remote import remote
from otel_trading._pure.spans import Span
from otel_trading._pure.tracer import Scope, Tracer
from otel_trading._pure.verdicts import await_kept, pin, share, wake
from otel_trading._pure.vitals import critical
from otel_trading._pure.writer import Token

BACKEND = "pure"

__all__ = [
    "BACKEND",
    "Batch",
    "Counter",
    "Gauge",
    "Histogram",
    "Probe",
    "Reader",
    "Scope",
    "Span",
    "Token",
    "Tracer",
    "accounts",
    "adopt",
    "adopted",
    "api_install",
    "ask_host",
    "attach_context",
    "await_decision",
    "await_host",
    "await_kept",
    "beat",
    "close",
    "count_io",
    "count_thread",
    "critical",
    "current",
    "detach_context",
    "drain",
    "drain_give",
    "drain_start",
    "drain_stop",
    "drain_take",
    "ending",
    "fault",
    "fit_buffers",
    "forked",
    "gc_callback",
    "get_context",
    "govern",
    "govern_start",
    "govern_stop",
    "hardware_cycles",
    "inherit",
    "interrupt_open",
    "is_open",
    "keep",
    "kept",
    "let_go",
    "market",
    "market_condition",
    "mode",
    "note_signals",
    "open",
    "order_get",
    "order_put",
    "orders_open",
    "pin",
    "queue_gauge",
    "remote",
    "share",
    "snapshot",
    "system_root",
    "take",
    "traced",
    "wake",
]
