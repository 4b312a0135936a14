"""Spans on their way to the exporters: batches, accounts, and what a bad exporter can not do."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from exporting import accounted, record, soon, totals
from opentelemetry import context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext

import otel_trading as ot
from otel_trading._backend import core
from otel_trading.drain.spans import Converter

if TYPE_CHECKING:
    from collections.abc import Callable


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


def test_exporting_does_not_instrument_itself_under_another_runtime(
    start: Callable[..., Any], characters: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays suppressed where OpenTelemetry's context gets another runtime after the thread's start."""
    running = start(export__traces="taking")
    record(1)
    assert running.flush(soon())
    monkeypatch.setattr(context, "_RUNTIME_CONTEXT", ContextVarsRuntimeContext())
    record(1)
    assert running.flush(soon())
    assert characters.log == [("export", "Taking", 1, True)] * 2


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


def test_spans_that_are_left_are_the_next_drains(start: Callable[..., Any], characters: Any) -> None:
    """What is in hand or in the queue at a change of the drain is not settled, and sent by who takes over."""
    running = start(export__traces="blocking")
    record(600)
    assert not running.flush(time.monotonic() + 0.05)
    assert characters.entered.wait(20)
    assert not running.stop(time.monotonic() + 0.05, leave=True)
    assert totals()["pending"] == 600
    core.drain_give()
    characters.release.set()
    for thread in threading.enumerate():
        if thread.name == "otel-trading-spans":
            thread.join(20)
    assert totals()["pending"] == 600
    core.drain_take()
    core.keep(1000)
    core.drain()
    assert core.take(1000).settle() == ((0, 600, 0, 0), (0, 0, 0, 0))
    assert totals() == accounted(600, exported=600)


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
    assert len(characters.spans) == 88  # seven eighths are for P1
    assert totals() == {
        "recorded": 150,
        "exported": 88,
        "sampled_out": 0,
        "overwritten": 0,
        "refused": 62,
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
