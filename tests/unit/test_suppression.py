"""Our own requests make no spans, and keeping them from it takes nothing that is not there."""

from __future__ import annotations

import contextvars
import subprocess
import sys
from typing import TYPE_CHECKING

from conftest import uncovered
from opentelemetry.context import _SUPPRESS_HTTP_INSTRUMENTATION_KEY, _SUPPRESS_INSTRUMENTATION_KEY, get_value

from otel_trading._suppression import suppress_instrumentation

if TYPE_CHECKING:
    from pathlib import Path

WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from otel_trading.alerts.lane import Lane

class Way:
    label = "way"
    def send(self, alert):
        print("sent", alert, flush=True)

lane = Lane(Way())
lane.put("it")
import time
print(lane.flush(time.monotonic() + 20.0))
"""


def test_it_is_suppressed() -> None:
    """Instrumentations are told to make no spans, those of http among them; twice is as good as once."""

    def suppressed() -> tuple[object, object]:
        suppress_instrumentation()
        suppress_instrumentation()
        return get_value(_SUPPRESS_INSTRUMENTATION_KEY), get_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY)

    assert contextvars.copy_context().run(suppressed) == (True, True)
    assert get_value(_SUPPRESS_INSTRUMENTATION_KEY) is None


def test_without_opentelemetry(tmp_path: Path) -> None:
    """An alert leaves a process that has no OpenTelemetry at all."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], env=uncovered(tmp_path), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "sent it\nTrue\n"
    assert done.stderr == ""
