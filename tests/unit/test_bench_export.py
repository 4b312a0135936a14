"""The benchmarks of OpenTelemetry's API and of exporting: they measure what they say.  No figure is judged here."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from rich.console import Console

import otel_trading as ot
from otel_trading.bench import api_forms, children, export, export_task, measure, receiver, report, suite, tasks
from otel_trading.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make segments in the test's directory, in children too."""
    monkeypatch.setenv("OTEL_TRADING_DIR", str(tmp_path))


def rendered(tables: Any) -> str:
    """What a terminal would show."""
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    for table in tables:
        console.print(table)
    return shown.getvalue()


# ---- OpenTelemetry's API


def test_every_form_of_the_api_records_what_it_says() -> None:
    """Each form adds as many spans as its statement was run, sampled out ones included."""
    tasks.start_idle(4096)
    for one in api_forms.forms(ot.backend):
        run = measure.block(one.statement, one.names, one.around)
        before = ot.accounts()[1]["recorded"]
        run(2)
        recorded = ot.accounts()[1]["recorded"] - before
        assert recorded == 2 * measure.UNROLL + bool(one.around), one.key


def test_the_stock_sdk_has_the_same_forms() -> None:
    """Ours and the SDK's are compared form by form, and only ours have targets."""
    tasks.start_idle(4096)
    ours, theirs = api_forms.forms(ot.backend), api_forms.forms(api_forms.SDK)
    assert [(one.key, one.statement, one.around) for one in ours] == [
        (one.key, one.statement, one.around) for one in theirs
    ]
    assert set(api_forms.TARGETS["native"]) < {one.key for one in ours}
    assert all(one.target is None for one in theirs)


def timed(form_ns: float, target: float | None = None) -> dict[str, Any]:
    """One form's result: a floor has 40 ns."""
    timing = {"form_ns": [form_ns], "baseline_ns": [0.0], "floor_ns": [41.0], "empty_ns": [1.0]}
    return {"label": "start_as_current_span", "statement": "", "target": target, "timing": timing}


def test_api_table_and_checks_compare_with_the_sdk() -> None:
    """The SDK's cost is told in ours, and a target that is missed is named."""
    api = {"native": {"api_plain": timed(400.0, 9.0)}, "sdk": {"api_plain": timed(8_000.0)}}
    results = {"forms": {}, "api": api, "drain": {}, "footprint": {}, "missing": []}
    text = rendered(report.suite_tables(results))
    assert "10.00" in text
    assert "20.0" in text
    assert [(check.what, check.measured, check.met) for check in suite.checks(results)] == [
        ("API: start_as_current_span, floors", 10.0, False)
    ]


# ---- exporting


@given(st.lists(st.lists(st.lists(st.text(max_size=3), max_size=4), max_size=3), max_size=3))
def test_spans_are_counted_as_protobuf_would(request_: list[list[list[str]]]) -> None:
    """The receiver's cheap count is the number of spans of any request."""
    request = ExportTraceServiceRequest()
    for scopes in request_:
        resource = request.resource_spans.add(schema_url="https://s")
        resource.resource.attributes.add(key="k").value.int_value = 1
        for names in scopes:
            scope = resource.scope_spans.add(schema_url="x")
            scope.scope.name = "s" * 200
            for name in names:
                scope.spans.add(name=name, start_time_unix_nano=1)
    assert receiver.count_spans(request.SerializeToString()) == sum(len(names) for one in request_ for names in one)


@pytest.mark.parametrize("body", [b"\x0a", b"\x08\x01", b"\x0a\x80"])
def test_what_is_no_request_is_not_counted(body: bytes) -> None:
    """Half a message, or another one, is an error."""
    with pytest.raises(IndexError):
        receiver.count_spans(body)


def test_recording_for_export_makes_the_spans_that_it_says() -> None:
    """Portions are whole, every other span has attributes, and the thread's time is told."""
    tasks.start_idle(4096)
    tracer = api_forms.forms(ot.backend)[0].names["t"]
    done, cpu_ns = export_task.record(tracer, 50, 2_000)  # type: ignore[arg-type]
    assert done == 60
    assert cpu_ns > 0
    assert ot.accounts()[1]["recorded"] == 60
    assert {name: found["count"] for name, found in ot.stats().items() if found["count"]} == {
        "order.send": 30,
        "gateway.write": 30,
    }


def test_the_receiver_tells_what_it_took_so_far_and_what_was_no_trace() -> None:
    """Packed bodies are unpacked to be counted, metrics are bytes and no spans, and GET tells while it goes on."""
    import gzip
    import http.client
    from urllib.parse import urlsplit

    from otel_trading.bench.receiving import receiver as running

    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add().name = "one"
    body = request.SerializeToString()
    packed = gzip.compress(body)
    with running(None) as (endpoint, end):
        connection = http.client.HTTPConnection(urlsplit(endpoint).netloc)
        for path, content, headers in (
            ("/v1/traces", body, {}),
            ("/v1/traces", packed, {"Content-Encoding": "gzip"}),
            ("/v1/metrics", body, {}),
        ):
            connection.request("POST", path, content, headers)
            assert connection.getresponse().read() == b""
        connection.request("GET", "/totals")
        so_far = json.loads(connection.getresponse().read())
        connection.close()
        assert so_far["requests"] == 3
        assert so_far["bytes"] == 2 * len(body) + len(packed)
        assert so_far["headers"] > 0
        assert end() == {**so_far, "spans": 2}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A very short run of this backend and the SDK, over both protocols."""
    if not children.has_otlp():
        pytest.skip("the OTLP exporters are not installed (pip install otel-trading[otlp])")
    patch = pytest.MonkeyPatch()
    patch.setenv("OTEL_TRADING_DIR", str(tmp_path_factory.mktemp("export")))
    variants = [name for name, one in export.VARIANTS.items() if one.backend in (ot.backend, None)]
    with patch.context():
        found = export.run(seconds=0.02, rounds=1, seed=1, variants=variants)
    patch.undo()
    return found


def test_export_run_has_every_span_at_the_receiver(exported: dict[str, Any]) -> None:
    """Each variant sent what it recorded, flushed, and has a cost."""
    assert set(exported["runs"]) == {f"{who}-{how}" for who in (ot.backend, "sdk") for how in ("http", "grpc")}
    for (run,) in exported["runs"].values():
        assert run["flushed"] is True
        assert run["sent"] > run["spans"] > 0
        assert run["requests"] > 0
        assert run["cpu_ns"] > 0


def test_export_summary_compares_over_the_same_protocol(exported: dict[str, Any]) -> None:
    """The ratio is the SDK's cost to ours, and the table has every variant."""
    rows = export.summary(exported)
    mine, stock = (exported["runs"][f"{who}-grpc"][0] for who in (ot.backend, "sdk"))
    expected = stock["cpu_ns"] / stock["spans"] / (mine["cpu_ns"] / mine["spans"])
    assert rows[f"{ot.backend}-grpc"]["sdk_to_it"]["estimate"] == pytest.approx(expected)
    assert rows["sdk-grpc"]["sdk_to_it"] is None
    text = rendered(report.export_tables(exported))
    assert all(export.VARIANTS[name].label in text for name in rows)


def test_spans_that_do_not_arrive_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is lost would be cheap, so nothing is told of such a run."""
    lost = {"spans": 10, "sent": 20, "flushed": True, "cpu_ns": 1, "recording_ns": 1}
    monkeypatch.setattr(children, "task", lambda *_, **__: lost)
    with pytest.raises(children.BenchmarkError, match="sdk-http: 0 of 20 spans arrived"):
        export.run(seconds=0.01, rounds=1, seed=1, variants=["sdk-http"])


def test_export_check_holds_the_native_backend_to_its_target() -> None:
    """Over http at most 1.5 µs a span."""
    run = {"spans": 10, "sent": 20, "requests": 2, "bytes": 2_000, "cpu_ns": 16_000}
    results = {"rounds": 1, "seconds": 1.0, "runs": {"native-http": [run], "native-grpc": [run]}}
    (check,) = export.checks(results)
    assert (check.backend, check.measured, check.target, check.met) == ("native", 1_600.0, 1_500.0, False)
    assert export.summary(results)["native-http"]["spans_a_request"] == 10.0


def test_command_runs_the_export(capsys: pytest.CaptureFixture[str]) -> None:
    """``bench --export`` measures this backend alone where it is told to, and names the next command."""
    if not children.has_otlp():
        pytest.skip("the OTLP exporters are not installed (pip install otel-trading[otlp])")
    arguments = ["bench", "--export", "--quick", "--rounds", "1", "--backend", ot.backend, "--no-sdk", "--json", "-"]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert set(json.loads(shown.out)["runs"]) == {f"{ot.backend}-http", f"{ot.backend}-grpc"}
    assert shown.err.rstrip().endswith("otel-trading bench")
