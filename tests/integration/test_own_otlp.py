"""OTLP over plain http leaves without the stock exporters, and without the libraries that they need."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from otlp_receiver import OVER, Answer, Receiver, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEAVY = ("requests", "urllib3", "google.protobuf", "opentelemetry.sdk.trace", "opentelemetry.sdk.metrics", "grpc")

PROGRAM = """
import json, sys
import otel_trading as ot

ot.configure("bot")
with ot.probe("work").span(symbol="BTCUSDT"):
    ot.counter("orders").add(2)
    ot.histogram("slippage", unit="bps").record(1.5)
    ot.gauge("depth").set(3)
flushed = ot.flush(10.0)
ot.shutdown()
print(json.dumps({"flushed": flushed, "loaded": sorted(sys.modules), "accounts": ot.accounts()}))
"""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Run a receiver that the environment points to."""
    made = Receiver()
    with OVER["http/protobuf"](made) as endpoint:
        for name, value in environment("http/protobuf", endpoint).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "600000")
        yield made


def told(done: Any) -> dict[str, Any]:
    """Read what the program tells."""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("stock", [False, True])
def test_what_is_loaded(run_python: Callable[..., Any], receiver: Receiver, tmp_path: Any, *, stock: bool) -> None:
    """Spans and metrics arrive; of the heavy libraries none is loaded but where the stock exporters are asked for."""
    config = tmp_path / "stock.yaml"
    config.write_text(f"export: {{stock: {str(stock).lower()}}}\n", encoding="utf-8")
    found = told(run_python(PROGRAM, OTEL_TRADING_CONFIG=str(config)))
    assert found["flushed"]
    assert [span.name for span in receiver.spans()] == ["work"]
    for name in ("trading.orders", "trading.slippage", "trading.depth", "trading.stage.duration"):
        assert receiver.metrics(name), name
    assert bool(set(HEAVY).intersection(found["loaded"])) == stock


def test_it_is_tried_again(run_python: Callable[..., Any], receiver: Receiver) -> None:
    """A receiver that asks to be left alone for a moment gets the spans after it."""
    receiver.answers = [Answer(again_in=1)]
    found = told(run_python(PROGRAM, OTEL_METRICS_EXPORTER="none"))
    assert found["flushed"]
    assert [span.name for span in receiver.spans()] == ["work"]
    assert sum(tier["exported"] for tier in found["accounts"].values()) >= 1


def test_what_a_receiver_rejects_is_refused(run_python: Callable[..., Any], receiver: Receiver) -> None:
    """An answer that says that spans were rejected, and why, is read."""
    receiver.answers = [Answer(rejected=1, message="too many")]
    done = run_python(PROGRAM, OTEL_METRICS_EXPORTER="none")
    assert sum(tier["refused"] for tier in told(done)["accounts"].values()) == 1
    assert "rejected 1 (too many)" in done.stderr
