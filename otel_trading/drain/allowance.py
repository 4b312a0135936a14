"""What the budget allows the exporters: how much they may send now, how often, and whether at all."""

from __future__ import annotations

import math
import struct
import time
from typing import TYPE_CHECKING

from otel_trading import _layout as at
from otel_trading import faults
from otel_trading._backend import core
from otel_trading._real_threads import real_threading
from otel_trading.errors import OtelTradingError

threading = real_threading()

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading.segment.pages import Page

SECONDS = 1.0
"""The limit of so many seconds is the most that leaves at once …"""

SPAN = 1.1
"""… and in any time as long as this, so that a meter whose window is up to a tenth late never sees more."""

METRICS_SHARE = 0.5
"""The most of it that metrics may take: the rest is the spans'."""

_SLOWER = 1.0 / 0.3  # the schedule's interval in STRESSED: exports at 0.3 of their frequency
_LOOK_AGAIN = 1.0  # seconds until the mode is looked at again where nothing may be sent
_MODE = at.OFF_CONTROL_MODE // 8
_WAITS = at.OFF_CONTROL_EXPORTS_WAIT // 8
_ACTIVE = at.OFF_POLICY_ACTIVE // 8
_LIMITS = at.OFF_POLICY_BUDGET // 8 + at.BUDGET_NETWORK * at.MODES
_WORD = struct.Struct("<Q")
_NUMBER = struct.Struct("<d")


class Allowance:
    """The network budget of a process's exporters, those of spans and those of metrics together.

    What is in force is read from the segment each time, some 2 µs; so a change of mode is in force at the next request.
    Where nothing is governed there is no limit.  For any thread.
    """

    def __init__(self, path: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Map the pages of the segment at ``path``; None, and what can not be mapped (said once): no limit."""
        self._clock = clock
        self._lock = threading.Lock()
        self._sent: list[tuple[float, int, bool]] = []  # until when a request counts, its bytes, whether of metrics
        self._claims = {False: 0.0, True: 0.0}  # bytes on their way or waiting: spans', and metrics'
        self._policy: Page | None = None
        self._control: Page | None = None
        if path is None:
            return
        from otel_trading.segment.pages import Page

        try:
            self._control = Page(path, "control page", at.OFF_HEADER_CONTROL_OFFSET, at.SIZE_CONTROL)
            self._policy = Page(path, "policy page", at.OFF_HEADER_POLICY_OFFSET, at.SIZE_POLICY)
        except (OtelTradingError, OSError) as error:
            self.close()
            faults.report("export.allowance", f"exports are not paced, the budget can not be read: {error}")

    def close(self) -> None:
        """Let the segment's file go: from here on there is no limit.  Idempotent."""
        with self._lock:
            policy, self._policy = self._policy, None
            control, self._control = self._control, None
        for page in (policy, control):
            if page is not None:
                page.close()

    @property
    def mode(self) -> int:
        """OT_MODE_*; NORMAL where nothing is governed."""
        with self._lock:
            return self._now()[0]

    @property
    def limit(self) -> float:
        """Bytes a second; infinite where there is none, 0 where nothing may be sent."""
        with self._lock:
            return self._now()[1]

    @property
    def slower(self) -> float:
        """By how much intervals between exports are longer than configured."""
        return _SLOWER if self.mode == at.MODE_STRESSED else 1.0

    def room(self, *, metrics: bool = False) -> float:
        """Bytes that may be sent now; infinite without a limit.  What the other signal has claimed is not in it."""
        with self._lock:
            return self._room(metrics, self._clock())

    def wait(self, size: float, *, metrics: bool = False) -> float:
        """Seconds until there may be room for ``size`` bytes; for more than there ever is, until all of it is free."""
        with self._lock:
            most = self._most(metrics)
            if most == math.inf:
                return 0.0
            if most <= 0.0:
                return _LOOK_AGAIN
            now = last = self._clock()
            for last in (now, *(until for until, _, _ in self._sent if until > now)):
                if self._room(metrics, last) >= min(size, most):
                    return last - now
            # The other signal has claimed it: come back when that has had the time to send.
            return last - now + SPAN / 4

    def claim(self, size: float, *, metrics: bool = False) -> bool:
        """Take room for a request, before it is sent; False where there is none.  ``spent`` gives it back.

        A request for more than there ever is needs all of it.
        """
        with self._lock:
            most = self._most(metrics)
            if most <= 0.0 or self._room(metrics, self._clock()) < min(size, most):
                return False
            self._claims[metrics] = size
            return True

    def reserve(self, size: float) -> None:
        """Keep room for ``size`` bytes of metrics, which would else never find any beside a queue full of spans."""
        with self._lock:
            self._claims[True] = max(0.0, size)

    def spent(
        self, network: int, disk: int, estimated: int = 0, *, metrics: bool = False, exempt: bool = False
    ) -> None:
        """Count a request: its bytes, its writes to disk, and what the keep rules had estimated it to take.

        ``exempt``: it counts, and does not hold later ones up.
        """
        core.count_io(network, disk, estimated)
        with self._lock:
            self._claims[metrics] = 0.0
            limit = self._now()[1]
            if network > 0 and not exempt and limit < math.inf:
                # What is more than a second's worth alone counts for as many seconds as it is worth.
                long = 1.0 if limit <= 0.0 else max(1.0, network / (limit * SECONDS))
                now = self._clock()
                self._sent = [entry for entry in self._sent if entry[0] > now]
                self._sent.append((now + SPAN * long, network, metrics))
                self._sent.sort()

    def _most(self, metrics: bool) -> float:  # noqa: FBT001 - with the lock held
        """The most that there is ever room for."""
        return self._now()[1] * SECONDS * (METRICS_SHARE if metrics else 1.0)

    def _room(self, metrics: bool, then: float) -> float:  # noqa: FBT001 - with the lock held
        limit = self._now()[1]
        if limit == math.inf:
            return math.inf
        counted = [(size, of_metrics) for until, size, of_metrics in self._sent if until > then]
        room = limit * SECONDS - sum(size for size, _ in counted) - self._claims[not metrics]
        if metrics:
            room = min(room, self._most(metrics) - sum(size for size, of_metrics in counted if of_metrics))
        return room

    def _now(self) -> tuple[int, float]:
        """Mode and limit; with the lock held, so that nobody closes the pages meanwhile."""
        if self._policy is None or self._control is None or self._policy.words[_ACTIVE] != 1:
            return at.MODE_NORMAL, math.inf
        mode = self._control.words[_MODE] % at.MODES
        if self._control.words[_WAITS]:
            return mode, 0.0  # the governor has seen more than is allowed
        (limit,) = _NUMBER.unpack(_WORD.pack(self._policy.words[_LIMITS + mode]))
        return mode, max(0.0, limit)
