"""The metrics of one adopted segment, as text of Prometheus' format; in the drain host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest

from otel_trading import faults
from otel_trading._backend import core
from otel_trading.drain.allowance import Allowance
from otel_trading.drain.gathered import Gathered
from otel_trading.drain.prometheus import Collector

if TYPE_CHECKING:
    from collections.abc import Callable


def exposition_of(path: str) -> Callable[[], str]:
    """Give a function that makes the text anew each time.  What is asked of it is asked by one thread."""
    collector = Collector(core.snapshot, core.accounts, None, faults.report, Gathered(path, Allowance(path)).families)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return lambda: generate_latest(registry).decode("utf-8")
