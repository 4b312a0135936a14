"""Faults: told once, counted always, and never the application's trouble."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from otel_trading import faults

if TYPE_CHECKING:
    from conftest import Recorder


def test_each_key_is_told_once(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """A fault is logged the first time and counted every time."""
    for _ in range(3):
        faults.report("test.once", "it was so")
        faults.report("test.other", "it was otherwise")
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("otel_trading", "WARNING", "it was so"),
        ("otel_trading", "WARNING", "it was otherwise"),
    ]
    recorder.faults_expected = 6


def test_percent_signs_are_text(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """A message is not a format."""
    faults.report("test.percent", "100 % of %s")
    assert caplog.messages == ["100 % of %s"]
    recorder.faults_expected = 1


def test_a_program_that_makes_keys_without_end(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """Past some hundred keys faults are only counted: neither the log nor the memory fills."""
    for number in range(1000):
        faults.report(f"test.key{number}", "x")
    assert 100 <= len(caplog.records) <= 500
    recorder.faults_expected = 1000


def test_a_handler_that_raises(recorder: Recorder) -> None:
    """Whatever the application's logging does, a fault stays inside."""

    class Broken(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            raise RuntimeError("handler")

    logger, handler = logging.getLogger("otel_trading"), Broken()
    logger.addHandler(handler)
    try:
        faults.report("test.broken", "x")
    finally:
        logger.removeHandler(handler)
    recorder.faults_expected = 1


@pytest.mark.usefixtures("caplog")
def test_without_a_recorder() -> None:
    """A fault without a recorder is logged, and counted nowhere."""
    faults.report("test.unrecorded", "x")
