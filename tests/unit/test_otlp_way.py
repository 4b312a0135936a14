"""The standard variables say where OTLP goes, as they do to the stock exporters, and when plain http is not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from otel_trading.drain.otlp_way import plain_way
from otel_trading.drain.own_otlp import OwnMetrics, OwnSpans

if TYPE_CHECKING:
    from pathlib import Path

    from otel_trading.drain.otlp_way import Signal

ENDPOINTS = ("", "http://localhost:4318", "http://collector.example:80/base/", "http://127.0.0.1:1?tenant=7")
TIMEOUTS = ("", "3", "0.5", "1e2")
COMPRESSIONS = ("", "none", "gzip", "deflate", " GZIP ")
HEADERS = ("", "a=b", "Authorization=Bearer%20x,tenant=7", " a = b , c=")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give an environment without proxies, and a home without a netrc file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "NETRC"):
        monkeypatch.delenv(name, raising=False)


def variables(**of: tuple[str, ...]) -> st.SearchStrategy[dict[str, str]]:
    """Give general and special variables, each there or not."""
    names = {
        f"OTEL_EXPORTER_OTLP_{part}{name}": st.sampled_from(values)
        for part in ("", "TRACES_", "METRICS_")
        for name, values in of.items()
    }
    return st.fixed_dictionaries(names).map(lambda found: {name: value for name, value in found.items() if value})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(variables(ENDPOINT=ENDPOINTS, TIMEOUT=TIMEOUTS, COMPRESSION=COMPRESSIONS, HEADERS=HEADERS))
def test_as_the_stock_exporters(found: dict[str, str]) -> None:
    """Endpoint, headers, time limit and compression are those of the stock exporters, for each signal."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in found.items():
            patch.setenv(name, value)
        for signal, stock, own in (
            ("traces", OTLPSpanExporter(), OwnSpans),
            ("metrics", OTLPMetricExporter(), OwnMetrics),
        ):
            way = plain_way(signal)  # type: ignore[arg-type]
            assert way is not None
            made = own(way).client
            for part in ("_endpoint", "_headers", "_timeout", "_compression", "_kind", "_jitter"):
                assert getattr(made, part) == getattr(stock._client, part), part


@pytest.mark.parametrize("signal", ["traces", "metrics"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://me:secret@localhost"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http:///base"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:port"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:99999"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost/a b"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhöst"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost/\nHost: elsewhere"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli"),
        ("http_proxy", "http://proxy:3128"),
        ("ALL_PROXY", "socks5://proxy"),
        ("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "vault"),
        ("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "True"),
    ],
)
def test_what_takes_more(monkeypatch: pytest.MonkeyPatch, signal: Signal, name: str, value: str) -> None:
    """TLS, passwords, proxies, providers, and what can not be read are the stock exporters' affair."""
    assert plain_way(signal) is not None
    monkeypatch.setenv(name, value)
    assert plain_way(signal) is None


def test_credentials_of_one_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider for spans leaves metrics as they are."""
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_TRACES_CREDENTIAL_PROVIDER", "vault")
    assert plain_way("traces") is None
    assert plain_way("metrics") is not None


@pytest.mark.parametrize("where", [".netrc", "_netrc", "elsewhere"])
def test_a_netrc_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, where: str) -> None:
    """A file that may have a password for the host."""
    (tmp_path / where).write_text("machine localhost login me password secret\n")
    assert (plain_way("traces") is None) == (where != "elsewhere")
    monkeypatch.setenv("NETRC", str(tmp_path / where))
    assert plain_way("traces") is None
