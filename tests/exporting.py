"""For the tests of exporting: exporters of all characters, and exports over a segment without a name."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading import config, faults
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otel_trading.drain import exports

# A package with exporters of all characters, found by entry points as anybody's would be.
MODULE = '''
import threading
from opentelemetry import context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk.metrics import Counter, Histogram
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality, InMemoryMetricReader, MetricExporter, MetricExportResult)
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

release = threading.Event()
entered = threading.Event()
log = []
spans = []
metrics = []
outcomes = []

class Taking(SpanExporter):
    def export(self, batch):
        log.append(("export", type(self).__name__, len(batch), bool(context.get_value(_SUPPRESS_INSTRUMENTATION_KEY))))
        spans.extend(batch)
        return SpanExportResult.SUCCESS
    def shutdown(self):
        log.append(("shutdown", type(self).__name__))

class Moody(Taking):
    """Does what `outcomes` says, then takes."""
    def export(self, batch):
        outcome = outcomes.pop(0) if outcomes else "take"
        if outcome == "raise":
            raise OSError("no connection")
        if outcome == "fail":
            return SpanExportResult.FAILURE
        return super().export(batch)

class Blocking(Taking):
    def export(self, batch):
        entered.set()
        release.wait(60)
        return super().export(batch)

class SlowToLeave(Taking):
    def shutdown(self):
        entered.set()
        release.wait(60)

class RaisingAtTheEnd(Taking):
    def shutdown(self):
        raise RuntimeError("cannot close")

class Unmade(SpanExporter):
    def __init__(self):
        raise RuntimeError("no endpoint")

class Metrics(MetricExporter):
    def __init__(self):
        super().__init__(preferred_temporality={
            Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA})
    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        outcome = outcomes.pop(0) if outcomes else "take"
        if outcome == "fail":
            return MetricExportResult.FAILURE
        if outcome == "block":
            entered.set()
            release.wait(60)
        metrics.append(metrics_data)
        return MetricExportResult.SUCCESS
    def force_flush(self, timeout_millis=10_000):
        return True
    def shutdown(self, timeout_millis=30_000, **kwargs):
        log.append(("shutdown", "Metrics"))

class Reader(InMemoryMetricReader):
    pass
'''

ENTRY_POINTS = """
[opentelemetry_traces_exporter]
taking = characters:Taking
moody = characters:Moody
blocking = characters:Blocking
slow_to_leave = characters:SlowToLeave
raising_at_the_end = characters:RaisingAtTheEnd
unmade = characters:Unmade
missing_module = characters_that_are_not_there:Exporter

[opentelemetry_metrics_exporter]
metrics = characters:Metrics
reader = characters:Reader
"""

RESOURCE = b'{"service.name": "bot", "process.pid": 7}'


@pytest.fixture
def characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Install the package with the exporters, and give its module."""
    (tmp_path / "characters.py").write_text(MODULE, encoding="utf-8")
    information = tmp_path / "characters-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: characters\nVersion: 1.0\n", encoding="utf-8")
    (information / "entry_points.txt").write_text(ENTRY_POINTS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "characters", raising=False)
    import characters  # type: ignore[import-not-found]

    yield characters
    characters.release.set()
    sys.modules.pop("characters", None)


@pytest.fixture
def segment() -> Iterator[int]:
    """Record into a segment without a name, and give its file; the drain passes only when asked."""
    faults.forget()
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    core.open(
        descriptor, RESOURCE, 4096, 256, 256, 1 << 18, 2048, 64, (128, 128, 128, 128, 128, 0xFFFFFFFF, 0xFFFFFFFF)
    )
    yield descriptor
    core.close()
    os.close(descriptor)


@pytest.fixture
def start(segment: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., exports.Exports]]:
    """Give a function that starts exports; the threads wait for a flush, so that a test decides when they step."""
    del segment
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
    from otel_trading.drain import exports

    started: list[exports.Exports] = []

    def begin(**changes: Any) -> exports.Exports:
        settings = config.resolve("bot", None, {key.replace("__", "."): value for key, value in changes.items()})
        started.append(exports.start(settings, RESOURCE))
        return started[-1]

    yield begin
    for one in started:
        one.stop(time.monotonic() + 5)


def record(count: int, tier: int = ot.P1) -> None:
    """Record spans of one tier."""
    probe = core.Probe(f"work.{tier}", tier)
    for _ in range(count):
        with probe:
            pass


def soon(seconds: float = 20.0) -> float:
    """Return a deadline that nothing should need."""
    return time.monotonic() + seconds


def totals() -> dict[str, int]:
    """Return the accounts of all tiers together, which must be balanced."""
    accounts = core.accounts()
    for account in accounts:
        assert account["recorded"] == sum(value for key, value in account.items() if key != "recorded"), account
    return {key: sum(account[key] for account in accounts) for key in accounts[0]}


def accounted(recorded: int, **parts: int) -> dict[str, int]:
    """Return accounts with these parts, and nothing in the others."""
    none = dict.fromkeys(("exported", "sampled_out", "overwritten", "refused", "pending"), 0)
    return {"recorded": recorded, **none, **parts}


def ours() -> list[str]:
    """Return the names of our threads that are alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("otel-trading-")]
