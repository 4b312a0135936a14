"""Put a process under its budget: policy, shared verdicts, governor and herald, from ``prepare`` to ``stop``."""

from __future__ import annotations

import os
from time import monotonic

from otel_trading._backend import core
from otel_trading.budget import calibration, herald, policy
from otel_trading.errors import OtelTradingError
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading.config import Settings

_ASSUMED = {
    "flat": 0.2e-6,
    "span": 0.4e-6,
    "api": 0.7e-6,
    "attribute": 0.1e-6,
    "block": 0.5e-6,
    "value": 0.2e-6,
    "update": 0.1e-6,
    "market": 0.2e-6,
}
"""Seconds that a record costs where it could not be measured."""

_PURE_PERIOD = 0.1
"""Seconds between two ticks of the pure governor, at least: each takes half a millisecond of the interpreter."""

_LONGEST_STOP = 1.0  # seconds that the herald may take of an orderly end: a user's function may be at work in it


class Governing:
    """The budget of this process, one object a segment; a forked child makes its own."""

    def __init__(self, settings: Settings) -> None:
        """Measure what a record costs here, which takes some 25 ms once a process; no segment may be open."""
        self._settings = settings
        self._costs = _measured_costs()
        self._herald: herald.Herald | None = None
        self._directory = -1  # open, and so locked, for as long as we use the directory's shared file

    def prepare(self, path: str, base_memory: int) -> None:
        """Write the policy of the segment that has just been opened, and have verdicts in common with its neighbours.

        ``base_memory`` is what the package took of the process, bytes.  Raises OtelTradingError.
        """
        values = policy.values_of(self._settings.values)
        values.update(cost=tuple(self._costs.values()), base_memory=base_memory)
        if core.BACKEND == "pure":
            period = self._settings.values["engine.period"]
            values["period"] = max(period, _PURE_PERIOD) if isinstance(period, float) else _PURE_PERIOD
        self._share(os.path.dirname(path))
        with policy.Policy(path) as page:
            page.write(values)
            page.active = True

    def start(self, path: str) -> None:
        """Start the governor, and the herald that tells of its decisions."""
        self._herald = herald.Herald(path, self._settings)
        core.govern_start()
        self._herald.start()

    def _share(self, directory: str) -> None:
        from otel_trading.segment import shared

        try:
            self._directory = shared.join(directory, core.share)
        except (OtelTradingError, OSError, ValueError) as error:
            report(
                "budget:share",
                f"this process decides for itself which traces are kept, as it can not agree with others: {error}",
            )

    def note_exporters(self, path: str, taken: int) -> None:
        """Tell the policy how many bytes of memory the exporters' libraries took."""
        with policy.Policy(path) as page:
            page.write({"exporter_memory": max(taken, 0)})

    def attend(self) -> None:
        """Have the herald look at what there is to do: there may be more now."""
        if self._herald is not None:
            self._herald.attend()

    def put_away(self, path: str) -> None:
        """Remove what is shared with others in the directory of ``path``, where there are none; once all is closed."""
        if self._directory >= 0:
            from otel_trading.segment.shared import remove_shared_file

            self.forget()
            remove_shared_file(os.path.dirname(path))

    def forget(self) -> None:
        """Let the directory go; in a forked child, for which it is the parent's."""
        fd, self._directory = self._directory, -1
        if fd >= 0:
            os.close(fd)

    def stop(self, deadline: float) -> None:
        """Stop both, until ``deadline`` (of ``time.monotonic``) at the latest."""
        started, self._herald = self._herald, None
        if started is not None:
            started.stop(min(deadline, monotonic() + _LONGEST_STOP))
        core.govern_stop()


def _measured_costs() -> dict[str, float]:
    try:
        return calibration.costs(herald.decision_probe(), herald.decision_counter("mode", "cpu"))
    except Exception as error:  # noqa: BLE001  whatever it is, the budget has to do with an estimate
        report("budget:costs", f"what a record costs could not be measured ({error!r}); the budget assumes some 0.5 µs")
        return dict(_ASSUMED)
