"""Which exporters are loaded, and how one that cannot be had is told."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

import pytest
from exporting import ours

from otel_trading.drain import exporters
from otel_trading.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


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
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: ())

    with pytest.raises(ConfigurationError, match="pip install opentelemetry-exporter-otlp-proto-grpc"):
        exporters.load(["otlp"], exporters.TRACES)
    with pytest.raises(ConfigurationError, match="there are none, and to be had are otlp"):
        exporters.load(["nobody"], exporters.TRACES)


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
