"""The budget of an adopted segment: its policy is the program's, the governor and the verdicts are the drain host's."""

from __future__ import annotations

import os

from otel_trading._backend import core
from otel_trading.budget import decisions as texts
from otel_trading.budget.policy import Policy
from otel_trading.budget.readings import Readings
from otel_trading.errors import OtelTradingError
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading.config import Settings

_MOST = 20  # decisions that are told at one look


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
        """Log the decisions since the last look."""
        number = self._readings.read().decisions
        if number <= self._told:
            return
        first, self._told = max(self._told, number - _MOST), number
        import logging

        from otel_trading.budget.herald import level_of

        logger = logging.getLogger("otel_trading.budget")
        for decision in self._readings.decisions(first):
            logger.log(level_of(decision), "%s: %s", os.path.basename(self._path), texts.sentence(decision))

    def stop(self) -> None:
        """Stop the governor, and let the directory go; who is last in it removes what is shared."""
        if self.active:
            core.govern_stop()
        self._readings.close()
        fd, self._directory = self._directory, -1
        if fd >= 0:
            os.close(fd)
            from otel_trading.segment.shared import remove_shared_file

            remove_shared_file(os.path.dirname(self._path))
