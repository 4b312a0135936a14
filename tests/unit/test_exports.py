"""The threads behind the exporters: who is loaded, what is settled, and what a bad exporter can not do."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest

import otel_trading as ot
from otel_trading import config, faults
from otel_trading._backend import core
from otel_trading.drain import exporters, exports
from otel_trading.drain.spans import Converter
from otel_trading.drain.worker import Worker
from otel_trading.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

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
def segment() -> Iterator[None]:
    """Record into a segment without a name; the drain passes only when asked."""
    faults.forget()
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    core.open(descriptor, RESOURCE, 4096, 256, 256, 1 << 18, 2048)
    os.close(descriptor)
    yield
    core.close()


@pytest.fixture
def start(segment: None) -> Iterator[Callable[..., exports.Exports]]:
    """Give a function that starts exports; the threads step only when asked."""
    del segment
    started: list[exports.Exports] = []

    def begin(**changes: Any) -> exports.Exports:
        settings = config.resolve("bot", None, {key.replace("__", "."): value for key, value in changes.items()})
        started.append(exports.start(settings, RESOURCE))
        return started[-1]

    yield begin
    for one in started:
        one.stop(time.monotonic() + 5)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the threads wait for a flush, so that a test decides when they step."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "3600000")


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


# ---- spans ------------------------------------------------------------------------------------------


def test_every_exporter_gets_every_span_and_the_accounts_say_so(start: Callable[..., Any], characters: Any) -> None:
    """Spans go to all exporters in batches, with the segment's resource, and count as exported by tier."""
    running = start(export__traces="taking,moody")
    record(700, ot.P1)
    record(50, ot.P0)
    assert running.flush(soon())
    assert [entry[:3] for entry in characters.log] == [
        ("export", "Taking", 512),
        ("export", "Moody", 512),
        ("export", "Taking", 238),
        ("export", "Moody", 238),
    ]
    assert len(characters.spans) == 1500
    assert len({span.context.span_id for span in characters.spans}) == 750
    assert dict(characters.spans[0].resource.attributes) == {"service.name": "bot", "process.pid": 7}
    assert {span.name for span in characters.spans} == {"work.0", "work.1"}
    assert core.accounts()[0]["exported"] == 50
    assert totals() == accounted(750, exported=750)


def test_exporting_does_not_instrument_itself(start: Callable[..., Any], characters: Any) -> None:
    """In the exporting thread instrumentation is suppressed."""
    running = start(export__traces="taking")
    record(1)
    assert running.flush(soon())
    assert characters.log == [("export", "Taking", 1, True)]


def test_the_batch_size_is_the_standard_variable(
    start: Callable[..., Any], characters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_BSP_MAX_EXPORT_BATCH_SIZE bounds a batch."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3")
    running = start(export__traces="taking")
    record(7)
    assert running.flush(soon())
    assert [entry[2] for entry in characters.log] == [3, 3, 1]


def test_spans_leave_by_themselves(
    start: Callable[..., Any], characters: Any, monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    """Without a flush the thread comes by at the standard variable's interval."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    start(export__traces="taking")
    record(10)
    until(lambda: len(characters.spans) == 10)
    until(lambda: totals()["exported"] == 10)


@pytest.mark.parametrize("outcome", ["raise", "fail"])
def test_a_failing_exporter_costs_its_batch_and_nothing_else(
    start: Callable[..., Any], characters: Any, caplog: pytest.LogCaptureFixture, outcome: str
) -> None:
    """What is not taken is refused, said once, and the next batch goes out."""
    characters.outcomes += [outcome, outcome]
    running = start(export__traces="moody")
    for expected in (False, False, True):
        record(5)
        assert running.flush(soon()) is expected
    assert totals()["refused"] == 10
    assert totals()["exported"] == 5
    (message,) = [entry.getMessage() for entry in caplog.records]
    assert "exporter 'moody' did not take spans" in message


def test_a_span_counts_as_exported_only_if_all_took_it(start: Callable[..., Any], characters: Any) -> None:
    """Where one of two exporters fails, the batch is refused, although the other has it."""
    characters.outcomes += ["fail"]
    running = start(export__traces=["moody", "taking"])
    record(5)
    assert not running.flush(soon())
    assert len(characters.spans) == 5
    assert totals()["refused"] == 5


def test_a_hanging_exporter_cannot_hold_up_the_end(
    start: Callable[..., Any], characters: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Flush and stop return at their deadlines; what was in hand and in the queue is refused, exactly once."""
    running = start(export__traces="blocking")
    record(600)
    assert not running.flush(time.monotonic() + 0.05)
    assert characters.entered.wait(20)
    assert totals()["pending"] == 600
    assert not running.stop(time.monotonic() + 0.05)
    assert totals() == {
        "recorded": 600,
        "exported": 0,
        "sampled_out": 0,
        "overwritten": 0,
        "refused": 600,
        "pending": 0,
    }
    assert "exporter 'blocking' was not through with the last spans in time: 600 are refused" in caplog.text
    # The thread comes back from the exporter and must not settle a second time.
    characters.release.set()
    for thread in threading.enumerate():
        if thread.name == "otel-trading-spans":
            thread.join(20)
    assert ("shutdown", "Blocking") in characters.log
    assert totals()["refused"] == 600


def test_after_the_end_spans_count_as_sampled_out(start: Callable[..., Any], characters: Any) -> None:
    """Once the exports have stopped, nothing is kept, so nothing stays pending."""
    running = start(export__traces="taking")
    record(3)
    assert running.stop(soon())
    record(4)
    core.drain()
    assert len(characters.spans) == 3
    assert totals() == accounted(7, exported=3, sampled_out=4)
    assert running.stop(soon())
    assert characters.log[-1] == ("shutdown", "Taking")


def test_an_exporter_that_does_not_shut_down_is_left_behind(start: Callable[..., Any], characters: Any) -> None:
    """A shutdown that hangs takes no more than the deadline, and no span with it."""
    running = start(export__traces="slow_to_leave")
    record(3)
    assert not running.stop(time.monotonic() + 0.2)
    assert totals()["pending"] == 0
    characters.release.set()


def test_an_exporter_that_fails_to_shut_down_is_reported(
    start: Callable[..., Any], characters: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception at the end is said, and the others are shut down all the same."""
    running = start(export__traces="raising_at_the_end,taking")
    assert running.stop(soon())
    assert characters.log == [("shutdown", "Taking")]
    assert "exporter 'raising_at_the_end' failed to shut down: RuntimeError('cannot close')" in caplog.text


def test_a_full_queue_refuses_and_counts(start: Callable[..., Any], characters: Any) -> None:
    """Spans beyond export.queue are refused by the backend; the others leave."""
    running = start(export__traces="taking", export__queue=100)
    record(150)
    core.drain()
    assert running.flush(soon())
    assert len(characters.spans) == 100
    assert totals() == {
        "recorded": 150,
        "exported": 100,
        "sampled_out": 0,
        "overwritten": 0,
        "refused": 50,
        "pending": 0,
    }


def test_a_span_that_cannot_be_converted_costs_its_batch(
    start: Callable[..., Any], characters: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error on our side is counted and said as an exporter's is, and the next batch goes out."""
    del characters
    running = start(export__traces="taking")
    record(3)
    with monkeypatch.context() as broken:
        broken.setattr(Converter, "_span", lambda _self, _state: 1 / 0)
        assert not running.flush(soon())
    record(2)
    assert running.flush(soon())
    assert totals() == accounted(5, exported=2, refused=3)
    assert "3 spans cannot be converted: ZeroDivisionError" in caplog.text


def test_a_step_that_raises_does_not_end_the_thread(segment: None, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong in a step or at the end is said, and a step that was asked for is over."""
    del segment
    outcomes = [True, False]

    def step() -> tuple[bool, float]:
        if not outcomes.pop():
            message = "no snapshot"
            raise RuntimeError(message)
        return True, 3_600.0

    def finish() -> None:
        message = "no end"
        raise RuntimeError(message)

    worker = Worker("trial", 3_600.0, step, finish)
    worker.start()
    assert not worker.wait(worker.ask(), soon())
    outcomes[:] = [True, True, True, True]
    assert worker.wait(worker.ask(), soon())
    assert worker.stop(soon())
    assert "exporting trial failed: RuntimeError: no snapshot" in caplog.text
    assert "the end of exporting trial failed: RuntimeError('no end')" in caplog.text


# ---- metrics ----------------------------------------------------------------------------------------


def values(characters: Any, name: str) -> list[Any]:
    """Return a metric's values in all exports, in order."""
    return [
        getattr(point, "value", None) if hasattr(point, "value") else point.count
        for data in characters.metrics
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def test_metrics_leave_with_the_exporters_temporality(start: Callable[..., Any], characters: Any) -> None:
    """Each flush sends a snapshot; for delta only what is new, and after a failure what was lost too."""
    running = start(export__metrics="metrics")
    orders = core.Counter("orders", 1)
    orders.add(2)
    record(10)
    assert running.flush(soon())
    orders.add(3)
    characters.outcomes.append("fail")
    assert not running.flush(soon())
    orders.add(4)
    record(5)
    assert running.stop(soon())
    assert values(characters, "trading.orders") == [2, 7]
    assert values(characters, "trading.stage.duration") == [10, 5]
    assert characters.log == [("shutdown", "Metrics")]


def test_the_last_metrics_know_what_became_of_the_last_spans(start: Callable[..., Any], characters: Any) -> None:
    """The final snapshot is taken after the spans were settled."""
    running = start(export__traces="taking", export__metrics="metrics")
    record(12)
    assert running.stop(soon())
    (last,) = characters.metrics
    exported = [
        point.value
        for metric in last.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "trading.telemetry.spans"
        for point in metric.data.data_points
        if point.attributes == {"trading.tier": "P1", "outcome": "exported"}
    ]
    assert exported == [12]


def test_a_hanging_metric_exporter_cannot_hold_up_the_end(start: Callable[..., Any], characters: Any) -> None:
    """Stop returns at its deadline."""
    characters.outcomes.append("block")
    running = start(export__metrics="metrics")
    assert not running.flush(time.monotonic() + 0.05)
    assert characters.entered.wait(20)
    assert not running.stop(time.monotonic() + 0.05)


# ---- who is loaded ----------------------------------------------------------------------------------


def test_an_unknown_exporter_is_said_with_the_known_ones(start: Callable[..., Any], characters: Any) -> None:
    """Every name that cannot be had is in one error, with what there is, and nothing is left running."""
    before = ours()
    with pytest.raises(ConfigurationError) as caught:
        start(export__traces="taking,nobody,unmade,missing_module")
    message = str(caught.value)
    assert "nobody: no installed package has it; there are " in message
    assert "console" in message
    assert "unmade: characters:Unmade failed: RuntimeError: no endpoint (from package characters)" in message
    assert "missing_module: " in message
    assert characters.log == [("shutdown", "Taking")]
    assert ours() == before


def test_a_missing_otlp_package_is_said_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OTLP's exporter is not installed, the error says what to install."""
    monkeypatch.setattr(exporters, "entry_points", lambda **_: ())
    from opentelemetry.sdk.trace.export import SpanExporter

    with pytest.raises(ConfigurationError, match="pip install opentelemetry-exporter-otlp-proto-grpc"):
        exporters.load(["otlp"], exporters.TRACES, SpanExporter)
    with pytest.raises(ConfigurationError, match="there are none, and to be had are otlp"):
        exporters.load(["nobody"], exporters.TRACES, SpanExporter)


def test_a_reader_of_the_sdk_cannot_be_pushed_to(start: Callable[..., Any], characters: Any) -> None:
    """A pull exporter under a push name is refused with the reason."""
    del characters
    with pytest.raises(ConfigurationError, match="characters:Reader is no MetricExporter"):
        start(export__metrics="reader")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "otlp_proto_grpc"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "otlp_proto_http"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "otlp_proto_grpc"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            "otlp_proto_http",
        ),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf"},
            "otlp_proto_grpc",
        ),
    ],
)
def test_otlp_is_resolved_by_the_protocol(
    environment: Mapping[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal's protocol wins over the common one; grpc is the default, as in the SDK."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert exporters.resolved("otlp", exporters.TRACES) == expected
    assert exporters.resolved("otlp_proto_http", exporters.TRACES) == "otlp_proto_http"
    assert exporters.resolved("console", exporters.TRACES) == "console"


def test_a_protocol_that_is_not_spoken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """http/json has no exporter in Python; the error names the variable and the choices."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json")
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_METRICS_PROTOCOL='http/json' is not spoken here"):
        exporters.resolved("otlp", exporters.METRICS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1.5"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "nan"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "0"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "99999"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "http"),
    ],
)
def test_variables_that_cannot_be_read_are_named(
    start: Callable[..., Any], characters: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The error has the variable and its value, and no thread was started."""
    del characters
    monkeypatch.setenv(name, value)
    before = ours()
    with pytest.raises(ConfigurationError, match=f"{name}='{value}'"):
        start(export__traces="taking", export__metrics="metrics,prometheus")
    assert ours() == before


# ---- /metrics ---------------------------------------------------------------------------------------


def scraped(url: str | None) -> str:
    """Return what is at an address that a server of ours gave."""
    assert url is not None
    assert url.startswith("http://")
    with urlopen(url) as answer:  # noqa: S310
        return str(answer.read(), "utf-8")


def test_a_free_port_can_be_asked_for_and_found(start: Callable[..., Any]) -> None:
    """Port 0 takes a free one; metrics_url says which; what is served is what was recorded."""
    running = start(metrics__port=0)
    record(3)
    text = scraped(running.metrics_url)
    assert 'trading_stage_duration_seconds_count{trading_stage="work.1",trading_tier="P1"} 3.0' in text
    assert 'target_info{process_pid="7",service_name="bot"} 1.0' in text
    assert running.stop(soon())
    assert running.metrics_url is None


def test_prometheus_as_an_exporter_uses_the_standard_variables(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_METRICS_EXPORTER=prometheus serves where the standard variables say."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "0")
    assert "trading_telemetry_spans_total" in scraped(start().metrics_url)


def test_a_taken_port_is_reported_and_the_rest_goes_on(
    start: Callable[..., Any], characters: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its port /metrics is missing, the remedy is in the log, and spans are exported."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = start(export__traces="taking", metrics__port=port)
        assert running.metrics_url is None
        assert f"/metrics cannot be served at 127.0.0.1:{port}" in caplog.text
        record(1)
        assert running.flush(soon())
        assert len(characters.spans) == 1


def test_a_forked_child_lets_go_of_the_port(start: Callable[..., Any]) -> None:
    """A child does not hold the parent's port: once the parent has closed it, it is free."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    running = start(metrics__port=0)
    url = running.metrics_url
    assert url is not None
    port = int(url.rpartition(":")[2].partition("/")[0])
    ready, end = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        # That a process with threads forks is what is tried here; newer Pythons warn of it.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.write(ready[1], b"x")
        os.close(end[1])
        os.read(end[0], 1)
        os._exit(0)
    try:
        assert os.read(ready[0], 1) == b"x"
        assert running.stop(soon())
        with socket.create_server(("127.0.0.1", port)):
            pass
    finally:
        for descriptor in (*ready, *end):
            os.close(descriptor)
        os.waitpid(child, 0)
