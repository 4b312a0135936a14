"""A daemon thread that does one thing again and again, can be asked to do it now, and can be waited for."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from opentelemetry.context import (
    _SUPPRESS_HTTP_INSTRUMENTATION_KEY,
    _SUPPRESS_INSTRUMENTATION_KEY,
    Context,
    attach,
    get_value,
)

from otel_trading import faults

if TYPE_CHECKING:
    from collections.abc import Callable


_LOOK_EVERY = 0.1
"""Seconds between two looks at whether a step is due."""

_SUPPRESSED = Context({_SUPPRESS_INSTRUMENTATION_KEY: True, _SUPPRESS_HTTP_INSTRUMENTATION_KEY: True})


def _suppress_instrumentation() -> None:
    """Keep this thread out of the traces; before each step, as OpenTelemetry's runtime may be another one by then."""
    if not get_value(_SUPPRESS_INSTRUMENTATION_KEY):
        attach(_SUPPRESSED)


class Worker:
    """Calls ``step`` every so often, and once more at the end, then ``finish``; all in its own daemon thread.

    ``step`` returns whether all went well and how many seconds to wait until the next one; it comes sooner where
    ``due``, which is asked every tenth of a second and must be cheap, says so.  Instrumentation is suppressed in the
    thread, or the exporters' own requests would make spans that make requests.
    """

    def __init__(
        self,
        name: str,
        first_wait: float,
        step: Callable[[], tuple[bool, float]],
        finish: Callable[[], None],
        due: Callable[[], bool] | None = None,
    ) -> None:
        """Take the parts; the first step will be ``first_wait`` seconds after ``start``."""
        self._name = name
        self._step = step
        self._finish = finish
        self._due = due
        self._condition = threading.Condition()
        self._asked = 0
        self._done = 0
        self._well = True
        self._stopping = False
        self._thread = threading.Thread(target=self._run, args=(first_wait,), name=f"otel-trading-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ask(self) -> int:
        """Ask for a step now; returns what ``wait`` takes."""
        with self._condition:
            self._asked += 1
            self._condition.notify_all()
            return self._asked

    def wait(self, asked: int, deadline: float) -> bool:
        """Wait for a step that began after it was asked for; whether it came before ``deadline`` and went well."""
        with self._condition:
            in_time = self._condition.wait_for(lambda: self._done >= asked, max(0.0, deadline - time.monotonic()))
            return in_time and self._well

    def stop(self, deadline: float) -> bool:
        """Ask for the last step and the end; whether the thread was through with both before ``deadline``."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _called(self, deadline: float) -> tuple[int, bool]:
        """Wait for the next step: asked for, due, or at ``deadline``; which one it is, and whether it is the last."""
        with self._condition:
            while True:
                rest = deadline - time.monotonic()
                wait = rest if self._due is None else min(rest, _LOOK_EVERY)
                called = self._condition.wait_for(lambda: self._stopping or self._asked > self._done, max(0.0, wait))
                if called or rest <= wait or (self._due is not None and self._due()):
                    return self._asked, self._stopping

    def _run(self, wait: float) -> None:
        stopping = False
        while not stopping:
            asked, stopping = self._called(time.monotonic() + wait)
            well = False
            _suppress_instrumentation()
            try:
                well, wait = self._step()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next step may go well
                faults.report(f"export.{self._name}", f"exporting {self._name} failed: {type(error).__name__}: {error}")
            with self._condition:
                self._done, self._well = asked, well
                self._condition.notify_all()
        try:
            self._finish()
        except Exception as error:  # noqa: BLE001 - the end is the end
            faults.report(f"export.{self._name}.end", f"the end of exporting {self._name} failed: {error!r}")
