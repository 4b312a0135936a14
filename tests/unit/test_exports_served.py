"""/metrics as one of the ways out: ports, variables, forks."""

from __future__ import annotations

import os
import socket
import warnings
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from exporting import record, soon

if TYPE_CHECKING:
    from collections.abc import Callable


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
