"""The budget of an adopted segment: its policy is the program's, the governor and the verdicts are the drain host's."""

from __future__ import annotations

import os

from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.budget import decisions as texts
from otel_trading.budget.policy import Policy
from otel_trading.budget.readings import Readings
from otel_trading.draining import quietly
from otel_trading.errors import OtelTradingError
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading.budget.decisions import Decision
    from otel_trading.config import Settings

_MOST = 20  # decisions that are logged at one look; alerts are in any case


class Governed:
    """What a drain host does for the budget, from ``start`` to ``stop``; nothing where the program has none.

    Raises SegmentError where the pages can not be read.
    """

    def __init__(self, path: str, settings: Settings) -> None:
        """Have verdicts in common with the directory's other processes."""
        self._path = path
        self._settings = settings
        self._directory = -1
        with Policy(path) as policy:
            self.active = policy.active
        self._readings = Readings(path)
        self._told = self._readings.read().decisions
        if self.active:
            self._share(os.path.dirname(path))

    def _share(self, directory: str) -> None:
        from otel_trading.segment import shared

        try:
            self._directory = shared.join(directory, core.share)
        except (OtelTradingError, OSError, ValueError) as error:
            report("budget:share", f"verdicts on traces are not shared with the other processes: {error}")

    def start(self) -> None:
        """Start the governor, where the program has a budget."""
        if self.active:
            core.govern_start()

    def note_exporters(self, taken: int) -> None:
        """Tell the policy how many bytes of memory the exporters' libraries take here."""
        if self.active:
            with Policy(self._path) as policy:
                policy.write({"exporter_memory": max(taken, 0)})

    def tell(self) -> None:
        """Log the decisions since the last look, and raise the alerts among them."""
        number = self._readings.read().decisions
        if number <= self._told:
            return
        found = self._readings.decisions(self._told)
        self._told = number
        import logging

        logger = logging.getLogger("otel_trading.budget")
        for decision in found:
            alert = decision.kind == at.DECISION_ALERT
            if alert or decision.number >= number - _MOST:
                sentence = texts.sentence(decision)
                logger.log(texts.level_of(decision), "%s: %s", os.path.basename(self._path), sentence)
            if alert:
                self._alert(decision)

    def _alert(self, decision: Decision) -> None:
        from otel_trading import alerts
        from otel_trading.segment.files import find

        alerts.configure(self._settings)
        segment = find(self._path)
        texts.raise_alert(decision, segment.service if segment is not None else None)

    def stop(self) -> None:
        """Stop the governor, tell what it decided last, let the directory go; the last one removes what is shared."""
        if self.active:
            core.govern_stop()
            quietly("decisions", self.tell)
        self._readings.close()
        fd, self._directory = self._directory, -1
        if fd >= 0:
            os.close(fd)
            from otel_trading.segment.shared import remove_shared_file

            remove_shared_file(os.path.dirname(self._path))
