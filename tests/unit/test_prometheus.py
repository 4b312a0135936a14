"""``/metrics``: families, names, exact buckets, both text formats, and the server's bounds."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import socket
import subprocess
import urllib.request
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics import exposition, parser
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from otel_trading import faults
from otel_trading.drain import http as our_http
from otel_trading.drain.histogram import ExponentialHistogram
from otel_trading.drain.http import MetricsServer
from otel_trading.drain.prometheus import Collector, label_name, prometheus_name
from otel_trading.drain.series import COUNTER, GAUGE, HISTOGRAM, families
from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

# prometheus_client leaves these without types.
generate_openmetrics: Any = exposition.generate_latest
parse_openmetrics: Any = parser.text_string_to_metric_families

# Only addresses that a server of ours gave are opened.
Request, urlopen = urllib.request.Request, urllib.request.urlopen

TRACE = 0x0123456789ABCDEF0123456789ABCDEF
SPAN = 0x0123456789ABCDEF


def probe(name: str, durations: list[float], **changes: Any) -> dict[str, Any]:
    """Return a probe as it is in a snapshot."""
    total = ExponentialHistogram.of(durations).state()
    return {
        "name": name,
        "tier": 0,
        "sla_ns": 0,
        "errors": 0,
        "sla_breaches": 0,
        "total": total,
        "exemplars": [],
        **changes,
    }


def instrument(name: str, kind: int, value: float | list[float] | None, **changes: Any) -> dict[str, Any]:
    """Return an instrument as it is in a snapshot."""
    found = {"name": name, "kind": kind, "value": value, "unit": "", "description": "", "attributes": "", **changes}
    if isinstance(value, list):
        found |= {"value": None, "total": ExponentialHistogram.of(value).state()}
    return found


def snapshot(*probes: dict[str, Any], instruments: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    """Return a snapshot."""
    return {
        "unix_ns": 1_800_000_100_000_000_000,
        "start_unix_ns": 1_800_000_000_000_000_000,
        "probes": list(probes),
        "instruments": list(instruments),
        "rings": [{"backlog": 2, "backlog_max": 5}, {"backlog": 1, "backlog_max": 9}],
        "drain": {"passes": 7, "cpu_ns": 1_500_000_000},
        "segment": {
            "bytes": 4096,
            "resident_bytes": 1024,
            "names_refused": 0,
            "faults": 3,
            "text_overwritten": 0,
            "values_overwritten": 0,
            "attributes_dropped": 0,
        },
    }


def accounts() -> list[dict[str, int]]:
    """Return the accounts of four tiers, all different."""
    names = ("recorded", "exported", "sampled_out", "overwritten", "refused", "pending")
    return [dict(zip(names, (15 + 5 * tier, *(n + tier for n in range(1, 6))), strict=True)) for tier in range(4)]


def exposed(taken: dict[str, Any], *, openmetrics: bool = False, **options: Any) -> dict[str, Metric]:
    """Return a snapshot's families, through the text format and its parser."""
    registry = CollectorRegistry()
    registry.register(Collector(lambda: taken, accounts, **options))
    if openmetrics:
        return {family.name: family for family in parse_openmetrics(generate_openmetrics(registry).decode())}
    return {family.name: family for family in parse_plain(generate_latest(registry).decode())}


def value(family: Metric, name: str, **labels: str) -> float:
    """Return the one sample with that name and those labels."""
    (sample,) = [
        sample
        for sample in family.samples
        if sample.name == name and all(sample.labels.get(key) == wanted for key, wanted in labels.items())
    ]
    return float(sample.value)


BUSY = snapshot(
    probe("order.execute", [2e-6] * 3 + [2.0**-10, 100.0], sla_ns=5_000_000, sla_breaches=1, errors=2),
    probe("idle", [], tier=3),
    instruments=(
        instrument("orders.rejected", COUNTER, 7, unit="{order}", attributes='{"venue":"gate"}'),
        instrument("orders.rejected", COUNTER, 8, unit="{order}", attributes='{"venue":"okx","retry":true}'),
        instrument("trading.pnl", GAUGE, -3.5, unit="USD", description='Profit, "so far".\nBackslash: \\'),
        instrument("unset", GAUGE, None),
        instrument("gc.pause", HISTOGRAM, [0.001], unit="s", exemplars=[]),
        instrument("slippage", HISTOGRAM, [1.5, -2.0, 0.0], unit="bps"),
        instrument("sent.bytes", COUNTER, 12.5, unit="By"),
    ),
)


@pytest.mark.parametrize("openmetrics", [False, True])
def test_everything_is_in_both_text_formats(openmetrics: bool) -> None:  # noqa: FBT001
    """Each family has its name, its labels, and its value, by each format's own parser."""
    found = exposed(BUSY, openmetrics=openmetrics, resource={"service.name": "bot"})
    stage = {"trading_stage": "order.execute", "trading_tier": "P0"}
    assert value(found["trading_stage_sla_breaches"], "trading_stage_sla_breaches_total", **stage) == 1
    assert value(found["trading_stage_errors"], "trading_stage_errors_total", **stage) == 2
    duration = found["trading_stage_duration_seconds"]
    assert value(duration, "trading_stage_duration_seconds_count", **stage) == 5
    assert value(duration, "trading_stage_duration_seconds_sum", **stage) == pytest.approx(100.0009825625)
    assert value(duration, "trading_stage_duration_seconds_count", trading_stage="idle", trading_tier="P3") == 0
    rejected = found["trading_orders_rejected"]
    assert value(rejected, "trading_orders_rejected_total", venue="gate") == 7
    assert value(rejected, "trading_orders_rejected_total", venue="okx", retry="true") == 8
    assert value(found["trading_pnl_USD"], "trading_pnl_USD") == -3.5
    assert found["trading_pnl_USD"].documentation == 'Profit, "so far".\nBackslash: \\'
    assert value(found["trading_gc_pause_seconds"], "trading_gc_pause_seconds_count") == 1
    assert value(found["trading_sent_bytes"], "trading_sent_bytes_total") == 12.5
    assert (
        value(found["trading_telemetry_spans"], "trading_telemetry_spans_total", trading_tier="P2", outcome="refused")
        == 6
    )
    assert (
        value(found["trading_telemetry_recorded_spans"], "trading_telemetry_recorded_spans_total", trading_tier="P1")
        == 20
    )
    assert value(found["trading_telemetry_pending_spans"], "trading_telemetry_pending_spans", trading_tier="P0") == 5
    assert value(found["trading_telemetry_backlog"], "trading_telemetry_backlog") == 3
    assert value(found["trading_telemetry_backlog_max"], "trading_telemetry_backlog_max") == 9
    assert (
        value(found["trading_telemetry_drain_cpu_time_seconds"], "trading_telemetry_drain_cpu_time_seconds_total")
        == 1.5
    )
    size = found["trading_telemetry_segment_size_bytes"]
    assert value(size, "trading_telemetry_segment_size_bytes", state="resident") == 1024
    assert value(found["trading_telemetry_losses"], "trading_telemetry_losses_total", kind="faults") == 3
    assert "trading_unset" not in found
    target = found["target" if openmetrics else "target_info"]
    assert value(target, "target_info", service_name="bot") == 1


def test_classic_buckets_are_exact_and_start_and_end_where_promised() -> None:
    """Buckets are powers of two from 2^-20 to 2^4 s, each with the exact count of values up to it."""
    samples = exposed(BUSY)["trading_stage_duration_seconds"].samples
    buckets = {
        float(sample.labels["le"]): sample.value
        for sample in samples
        if sample.name.endswith("_bucket") and sample.labels["trading_stage"] == "order.execute"
    }
    assert sorted(buckets) == [*(2.0**power for power in range(-20, 5)), float("inf")]
    assert (buckets[2.0**-20], buckets[2.0**-18], buckets[2.0**-11], buckets[2.0**-10]) == (0, 3, 3, 4)
    assert (buckets[16.0], buckets[float("inf")]) == (4, 5)


def test_negative_observations_leave_the_sum_out() -> None:
    """A histogram that has seen a negative value has its buckets, and no sum that could fall."""
    family = exposed(BUSY, openmetrics=True)["trading_slippage_bps"]
    assert value(family, "trading_slippage_bps_bucket", le="0.0") == 2
    assert value(family, "trading_slippage_bps_bucket", le="+Inf") == 3
    assert {sample.name for sample in family.samples} == {"trading_slippage_bps_bucket"}


def test_exemplars_are_the_newest_of_their_buckets() -> None:
    """OpenMetrics has each bucket's newest exemplar, with ids as in traces and a time to the nanosecond."""
    exemplars = [
        (3e-7, TRACE, 1, 1_800_000_000_000_000_001),
        (2e-7, TRACE, SPAN, 1_800_000_000_123_456_789),
        (2.0**-18, TRACE, 3, 1_800_000_001_000_000_000),
        (99.0, TRACE, 4, 1_800_000_002_000_000_000),
    ]
    taken = snapshot(probe("a", [3e-7, 2e-7, 2.0**-18, 99.0], exemplars=exemplars))
    registry = CollectorRegistry()
    registry.register(Collector(lambda: taken, accounts))
    text = generate_openmetrics(registry).decode()
    first = f'# {{span_id="{SPAN:016x}",trace_id="{TRACE:032x}"}} 2e-07 1800000000.123456789'
    assert first in text
    found = {
        sample.labels["le"]: sample.exemplar.value
        for family in parse_openmetrics(text)
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert found == {"9.5367431640625e-07": 2e-07, "3.814697265625e-06": 2.0**-18, "+Inf": 99.0}
    assert "span_id" not in generate_latest(registry).decode()


def test_a_name_that_prometheus_would_confuse_is_left_out_and_said() -> None:
    """Of two instruments that become one series the first is shown, and the other is reported."""
    told: list[str] = []
    taken = snapshot(
        instruments=(
            instrument("orders", COUNTER, 1),
            instrument("orders", GAUGE, 2.0),
            instrument("a.b", GAUGE, 1.0),
            instrument("a_b", GAUGE, 2.0),
            instrument("stage.duration", HISTOGRAM, [5.0], unit="s"),
        )
    )
    found = exposed(taken, refused=lambda key, message: told.append(f"{key}: {message}"))
    assert value(found["trading_orders"], "trading_orders_total") == 1
    assert value(found["trading_a_b"], "trading_a_b") == 1.0
    keys = [message.partition(": ")[0] for message in told]
    assert sorted(keys) == ["prometheus.trading.a_b", "prometheus.trading.orders", "prometheus.trading.stage.duration"]
    assert all("is missing from /metrics" in message for message in told)
    assert len(found["trading_stage_duration_seconds"].samples) == 0


def test_attributes_that_become_one_label_share_it() -> None:
    """Attributes whose names differ in what Prometheus does not allow are joined, as OpenTelemetry's rules say."""
    taken = snapshot(instruments=(instrument("x", GAUGE, 1.0, attributes='{"a.b":"1","a_b":"2","__c":3,"9":"n"}'),))
    (sample,) = exposed(taken)["trading_x"].samples
    assert sample.labels == {"a_b": "1;2", "key__c": "3", "key_9": "n"}


def test_series_that_only_prometheus_cannot_tell_apart_come_once() -> None:
    """Two points whose labels become the same are one series, not a broken exposition."""
    taken = snapshot(
        instruments=(
            instrument("x", GAUGE, 1.0, attributes='{"a.b":"1"}'),
            instrument("x", GAUGE, 2.0, attributes='{"a_b":"1"}'),
        )
    )
    assert [sample.value for sample in exposed(taken, openmetrics=True)["trading_x"].samples] == [1.0]


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("trading.stage.duration", "s", HISTOGRAM, ("trading_stage_duration_seconds", "seconds")),
        ("trading.wait.seconds", "s", GAUGE, ("trading_wait_seconds", "seconds")),
        ("trading.orders.total", "{order}", COUNTER, ("trading_orders", "")),
        ("trading.fill.ratio", "1", GAUGE, ("trading_fill_ratio", "ratio")),
        ("trading.fills", "1", COUNTER, ("trading_fills", "")),
        ("trading.rate", "By/s", GAUGE, ("trading_rate_bytes_per_second", "bytes_per_second")),
        ("trading.rate", "{order}/min", GAUGE, ("trading_rate_per_minute", "per_minute")),
        ("trading.price", "USD/BTC", GAUGE, ("trading_price_USD_per_BTC", "USD_per_BTC")),
        ("trading.used", "%", GAUGE, ("trading_used_percent", "percent")),
        ("trading.b\u00f6rse..x-y", "", GAUGE, ("trading_b_rse_x_y", "")),
        ("9lives", "", GAUGE, ("_9lives", "")),
        ("\u00b5", "", GAUGE, ("_", "")),
    ],
)
def test_names_follow_the_rules_of_opentelemetry_and_prometheus(
    name: str, unit: str, kind: int, expected: tuple[str, str]
) -> None:
    """Dots become underscores, units become words at the end, and no suffix comes twice."""
    assert prometheus_name(name, unit, kind) == expected


@given(
    st.text(), st.text(max_size=20), st.sampled_from([COUNTER, GAUGE, HISTOGRAM]), st.dictionaries(st.text(), st.text())
)
def test_any_name_unit_and_attributes_make_a_valid_exposition(
    name: str, unit: str, kind: int, attributes: dict[str, str]
) -> None:
    """Whatever a program calls its instruments, both formats can be parsed."""
    one = instrument(
        name, kind, [1.0] if kind == HISTOGRAM else 1, unit=unit, description=unit, attributes=json.dumps(attributes)
    )
    for openmetrics in (False, True):
        exposed(snapshot(instruments=(one,)), openmetrics=openmetrics)


def test_le_stays_the_buckets_own_label() -> None:
    """An attribute called le does not overwrite a bucket's bound."""
    assert label_name("le", ("le",)) == "le_"
    assert label_name("le") == "le"


def test_attributes_that_are_no_flat_object_are_ignored() -> None:
    """A segment from elsewhere may hold any text; then the series has no labels."""
    for text in ("[1]", "{", '{"a":{"b":1}}', '{"a":null}'):
        (found,) = [
            family
            for family in families(snapshot(instruments=(instrument("x", GAUGE, 1.0, attributes=text),)), accounts())
            if family.name == "trading.x"
        ]
        assert found.points[0].attributes == {}


def test_one_series_from_two_sources_is_merged() -> None:
    """Two probes or instruments with one identity are one series: summed, merged, or the later value."""
    taken = snapshot(
        probe("a", [1.0], sla_ns=1, sla_breaches=1),
        probe("a", [2.0], sla_ns=1, sla_breaches=2),
        instruments=(
            instrument("c", COUNTER, 1),
            instrument("c", COUNTER, 2),
            instrument("g", GAUGE, 1.0),
            instrument("g", GAUGE, 2.0),
        ),
    )
    by_name = {family.name: [point.value for point in family.points] for family in families(taken, accounts())}
    assert by_name["trading.stage.duration"] == [ExponentialHistogram.of([1.0, 2.0])]
    assert by_name["trading.stage.sla_breaches"] == [3]
    assert by_name["trading.c"] == [3]
    assert by_name["trading.g"] == [2.0]


def test_promtool_finds_nothing_to_complain_about() -> None:
    """Prometheus' own linter accepts the exposition."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH (Debian: apt-get install prometheus)")
    for taken, resource, allowed in (
        (snapshot(probe("order.execute", [1e-6])), {"service.name": "bot"}, {0}),
        # Exit 3 is a remark on style: the units and names of a program's own are the program's choice.
        (BUSY, {}, {0, 3}),
    ):
        registry = CollectorRegistry()
        registry.register(Collector(partial(dict, taken), accounts, resource))
        done = subprocess.run(
            [promtool, "check", "metrics"], input=generate_latest(registry), capture_output=True, check=False
        )
        said = (done.stdout + done.stderr).decode()
        assert done.returncode in allowed, said
        assert all("trading_stage" not in line and "trading_telemetry" not in line for line in said.splitlines()), said


# ---- the server -------------------------------------------------------------------------------------


@pytest.fixture
def serve() -> Iterator[Callable[..., MetricsServer]]:
    """Give a function that starts a server on a free loopback port."""
    servers: list[MetricsServer] = []

    def start(taken: Callable[[], dict[str, Any]] = lambda: BUSY, **options: Any) -> MetricsServer:
        servers.append(MetricsServer("127.0.0.1", 0, [Collector(taken, accounts)], **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def raw(server: MetricsServer, request: bytes) -> bytes:
    """Send bytes and return all that comes back."""
    with socket.create_connection((server.host, server.port), timeout=20) as connection:
        connection.sendall(request)
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
        return b"".join(pieces)


def status(answer: bytes) -> int:
    """Return an answer's status."""
    return int(answer.split(b" ", 2)[1])


def test_the_accept_header_chooses_the_format(serve: Callable[..., MetricsServer]) -> None:
    """Prometheus gets OpenMetrics where it asks for it, and version 0.0.4 otherwise; gzip where it is accepted."""
    server = serve()
    with urlopen(server.url) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert list(parse_plain(answer.read().decode()))
    wanted = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    request = Request(server.url, headers={"Accept": wanted, "Accept-Encoding": "gzip"})
    with urlopen(request) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert answer.headers["Content-Encoding"] == "gzip"
        text = gzip.decompress(answer.read()).decode()
    assert text.endswith("# EOF\n")
    assert list(parse_openmetrics(text))


def test_nonsense_in_the_accept_header_gives_plain_text(serve: Callable[..., MetricsServer]) -> None:
    """A version that is no number is no reason to fail a scrape."""
    request = Request(serve().url, headers={"Accept": "application/openmetrics-text;version=banana"})
    with urlopen(request) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == choose_encoder("")[1]


def test_head_has_the_headers_and_no_body(serve: Callable[..., MetricsServer]) -> None:
    """HEAD tells the length that GET would send."""
    answer = raw(serve(), b"HEAD /metrics HTTP/1.0\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: " in head
    assert body == b""


def test_health_follows_the_recorder(serve: Callable[..., MetricsServer]) -> None:
    """/healthz is 200 while the process records, and 503 when it does not."""
    healthy = True
    server = serve(healthy=lambda: healthy)
    assert status(raw(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")) == 200
    healthy = False
    assert status(raw(server, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")) == 503


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/../etc HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics?name=x HTTP/1.1\r\n\r\n", 200),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", 405),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"NONSENSE /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics HTTP/9.9\r\n\r\n", 505),
        (b"GET\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\n" + b"".join(b"h%d: v\r\n" % n for n in range(200)) + b"\r\n", 431),
        (b"GET /metrics HTTP/1.1\r\nlong: " + b"x" * our_http.MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET /" + b"x" * our_http.MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n", 431),
    ],
)
def test_other_requests_are_answered_and_bounded(
    serve: Callable[..., MetricsServer], request_bytes: bytes, expected: int
) -> None:
    """Unknown paths, other methods, and heads beyond the bounds get an error and nothing else."""
    server = serve()
    assert status(raw(server, request_bytes)) == expected
    assert status(raw(server, b"GET /healthz HTTP/1.0\r\n\r\n")) == 200


def test_a_slow_client_is_cut_off(serve: Callable[..., MetricsServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not finish its request is closed when its time is over, and others are served meanwhile."""
    monkeypatch.setattr(our_http, "REQUEST_SECONDS", 0.2)
    server = serve()
    with socket.create_connection((server.host, server.port), timeout=20) as slow:
        slow.sendall(b"GET /metrics HT")
        assert status(raw(server, b"GET /healthz HTTP/1.0\r\n\r\n")) == 200
        assert slow.recv(100) == b""


def test_more_than_the_allowed_connections_are_closed(serve: Callable[..., MetricsServer]) -> None:
    """The ninth client at once is closed unanswered; when one goes, there is a place again."""
    server = serve()
    idle = [socket.create_connection((server.host, server.port), timeout=20) for _ in range(our_http.MAX_AT_ONCE)]
    try:
        for connection in idle:
            connection.sendall(b"G")
        # The server takes connections in order, so those before are in their places by now.
        with socket.create_connection((server.host, server.port), timeout=20) as ninth:
            assert ninth.recv(100) == b""
    finally:
        for connection in idle:
            connection.close()


def test_a_port_that_is_taken_is_said_with_a_remedy(serve: Callable[..., MetricsServer]) -> None:
    """The error names the address and what to set."""
    server = serve()
    with pytest.raises(OtelTradingError, match=r"metrics\.port") as caught:
        MetricsServer("127.0.0.1", server.port, [])
    assert str(server.port) in str(caught.value)


def test_a_host_that_does_not_exist_is_said(serve: Callable[..., MetricsServer]) -> None:
    """A host that cannot be resolved is an error of ours, not a socket's."""
    del serve
    with pytest.raises(OtelTradingError, match="cannot be served"):
        MetricsServer("256.0.0.1", 0, [])


def test_a_snapshot_that_fails_is_a_500_and_is_reported(
    serve: Callable[..., MetricsServer], caplog: pytest.LogCaptureFixture
) -> None:
    """A scrape that cannot be made says so to the client and, once, to the log."""
    faults.forget()

    def broken() -> dict[str, Any]:
        message = "no snapshot"
        raise RuntimeError(message)

    server = serve(broken)
    for _ in range(2):
        assert status(raw(server, b"GET /metrics HTTP/1.0\r\n\r\n")) == 500
    assert [record.getMessage() for record in caplog.records] == [
        "/metrics could not be made (RuntimeError: no snapshot)"
    ]


def test_closing_does_not_wait_for_a_client(serve: Callable[..., MetricsServer]) -> None:
    """A connection that hangs does not keep the server from closing, and the port is free again."""
    server = serve()
    port = server.port
    with socket.create_connection((server.host, port), timeout=20):
        server.close()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", port, timeout=20).connect()


def test_ipv6_and_names_are_served() -> None:
    """The host may be a name, and an IPv6 address has brackets in the URL."""
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        server = MetricsServer("::1", 0, [])
    except OtelTradingError:
        pytest.skip("this machine has no IPv6 loopback")
    try:
        assert server.url.startswith("http://[::1]:")
        with urlopen(server.url) as answer:
            assert answer.status == 200
    finally:
        server.close()


def test_nothing_is_imported_that_was_not_asked_for(run_python: Callable[..., Any]) -> None:
    """Without exporters and /metrics, recording, stats, and summaries load neither prometheus_client nor the SDK."""
    run_python(
        "import sys\n"
        "import otel_trading as ot\n"
        "ot.configure('bot')\n"
        "with ot.probe('work'):\n"
        "    pass\n"
        "from otel_trading.drain import summary\n"
        "assert ot.stats()['work']['count'] == 1\n"
        "ot.shutdown()\n"
        "loaded = [name for name in sys.modules if name.startswith(('prometheus_client', 'opentelemetry'))]\n"
        "assert not loaded, loaded\n"
    )
