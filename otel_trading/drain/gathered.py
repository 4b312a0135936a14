"""All metrics of a process at one moment, for every way out: stages, instruments, built-in metrics, the budget's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_trading import _layout as at
from otel_trading import faults
from otel_trading.drain import series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from otel_trading.drain.allowance import Allowance
    from otel_trading.drain.series import Family


class Gathered:
    """Puts the families together; one a process, for any thread."""

    def __init__(self, path: str | None, allowance: Allowance) -> None:
        """Take the path of this process's segment; None: it has no budget that could be told of."""
        self._allowance = allowance
        self._built_in: Any = None
        self._budget: Any = None
        if path is None:
            return
        from otel_trading.budget.collectors import Collectors
        from otel_trading.drain.budget_metrics import BudgetMetrics

        self._built_in = Collectors()
        try:
            self._budget = BudgetMetrics(path)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the file, the other metrics go out
            faults.report("metrics.budget", f"metrics of the budget are missing: {error}")

    def families(self, snapshot: Mapping[str, Any], accounts: Sequence[Mapping[str, int]]) -> list[Family]:
        """Return all families; in EMERGENCY those of tier P0 and of the budget alone."""
        if self._allowance.mode == at.MODE_EMERGENCY:
            found = series.families(_critical(snapshot), None)
        else:
            found = series.families(snapshot, accounts)
        if self._built_in is not None:
            from otel_trading.budget.collectors import join

            found = join(found, self._built_in.families(snapshot))
        if self._budget is not None:
            try:
                found += self._budget.families()
            except Exception as error:  # noqa: BLE001 - as above
                faults.report("metrics.budget", f"metrics of the budget are missing: {error}")
        return found

    def close(self) -> None:
        """Let the segment's file go.  Idempotent."""
        for part in (self._budget, self._built_in):
            if part is not None:
                part.close()
        self._budget = self._built_in = None


def _critical(snapshot: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what tier P0 has recorded."""
    return {
        **snapshot,
        "probes": [probe for probe in snapshot["probes"] if probe["tier"] == 0],
        "instruments": [instrument for instrument in snapshot["instruments"] if instrument["tier"] == 0],
    }
