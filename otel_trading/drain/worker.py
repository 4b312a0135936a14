"""A daemon thread that does one thing again and again, can be asked to do it now, and can be waited for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otel_trading import faults
from otel_trading._backend import core
from otel_trading._real_threads import real_threading
from otel_trading._suppression import suppress_instrumentation

if TYPE_CHECKING:
    from collections.abc import Callable

threading = real_threading()


_WAKE_AGAIN = 0.01
"""Seconds after which a pause that should be over is ended once more: it may have begun just after the first try."""

_SHORT = 0.02
"""Seconds to wait after a pause that ended for no reason of ours, so that such a one can never keep a thread busy."""


class Worker:
    """Calls ``step`` every so often, and once more at the end, then ``finish``; all in its own daemon thread.

    ``step`` is told whether somebody asked for it, and returns whether all went well and how many seconds to wait
    until the next one.  Between two steps the thread waits, and wakes only when there is something to do: by ``pause``
    where that is given, which waits for so many seconds, or until a step is due (then it returns true), or until
    ``wake`` is called.  Instrumentation is suppressed in the thread, or the exporters' own requests would make spans
    that make requests, and its CPU time counts as monitoring's.
    """

    def __init__(
        self,
        name: str,
        first_wait: float,
        step: Callable[[bool], tuple[bool, float]],
        finish: Callable[[], None],
        pause: Callable[[float], bool] | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the parts; the first step will be ``first_wait`` seconds after ``start``."""
        self._name = name
        self._step = step
        self._finish = finish
        self._pause = pause
        self._wake = wake
        self._condition = threading.Condition()
        self._asked = 0
        self._done = 0
        self._well = True
        self._stopping = False
        self._pausing = False
        self._thread = threading.Thread(target=self._run, args=(first_wait,), name=f"otel-trading-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ask(self) -> int:
        """Ask for a step now; returns what ``wait`` takes."""
        with self._condition:
            self._asked += 1
            self._condition.notify_all()
            asked = self._asked
        self._end_pause()
        return asked

    def wait(self, asked: int, deadline: float) -> bool:
        """Wait for a step that began after it was asked for; whether it came before ``deadline`` and went well."""
        while True:
            rest = max(0.0, deadline - time.monotonic())
            with self._condition:
                if self._condition.wait_for(lambda: self._done >= asked, min(rest, self._patience())):
                    return self._well
            if rest <= 0.0:
                return False
            self._end_pause()

    def stop(self, deadline: float) -> bool:
        """Ask for the last step and the end; whether the thread was through with both before ``deadline``."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        while True:
            self._end_pause()
            rest = max(0.0, deadline - time.monotonic())
            self._thread.join(min(rest, self._patience()))
            if not self._thread.is_alive() or rest <= 0.0:
                return not self._thread.is_alive()

    def _patience(self) -> float:
        return threading.TIMEOUT_MAX if self._pause is None or not self._pausing else _WAKE_AGAIN

    def _end_pause(self) -> None:
        if self._pausing:
            self._wake()

    def _called(self, deadline: float) -> tuple[int, bool]:
        """Wait for the next step: asked for, due, or at ``deadline``; which one it is, and whether it is the last."""
        due = False
        while True:
            rest = max(0.0, deadline - time.monotonic())
            with self._condition:
                wait = rest if self._pause is None else 0.0
                called = self._condition.wait_for(lambda: self._stopping or self._asked > self._done, wait)
                if called or due or rest <= 0.0 or self._pause is None:
                    return self._asked, self._stopping
                # Whoever asks from here on ends the pause, however early he is.
                self._pausing = True
            began = time.monotonic()
            try:
                due = self._pause(rest)
            except Exception as error:  # noqa: BLE001 - whatever it is, by the clock alone it goes on
                self._pause = None
                faults.report(f"export.{self._name}.wait", f"{self._name} are exported by the clock alone: {error!r}")
            finally:
                self._pausing = False
            with self._condition:
                if not due and time.monotonic() - began < min(rest, _SHORT):
                    self._condition.wait_for(lambda: self._stopping or self._asked > self._done, min(rest, _SHORT))

    def _run(self, wait: float) -> None:
        core.count_thread(True)
        stopping = False
        while not stopping:
            well = False
            asked, stopping = self._called(time.monotonic() + wait)
            suppress_instrumentation()  # before each step: the runtime may be another one by then
            try:
                well, wait = self._step(stopping or asked > self._done)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next step may go well
                faults.report(f"export.{self._name}", f"exporting {self._name} failed: {type(error).__name__}: {error}")
            with self._condition:
                self._done, self._well = asked, well
                self._condition.notify_all()
        try:
            self._finish()
        except Exception as error:  # noqa: BLE001 - the end is the end
            faults.report(f"export.{self._name}.end", f"the end of exporting {self._name} failed: {error!r}")
        core.count_thread(False)
