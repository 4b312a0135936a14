"""What a rule on causes says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_trading.forensics.how_it_ended import End

SIGABRT = 6


class Finding:
    """What a rule says: ``cause``, ``confidence`` 0 to 1, ``evidence`` in sentences.

    ``certain``: the way that the process ended belongs to the cause, and needs no second opinion.
    """

    __slots__ = ("cause", "certain", "confidence", "evidence")

    def __init__(self, cause: str, confidence: float, evidence: list[str], *, certain: bool = False) -> None:
        """Say it."""
        self.cause = cause
        self.confidence = confidence
        self.evidence = evidence
        self.certain = certain

    def __repr__(self) -> str:
        return f"<Finding {self.cause} {self.confidence:.2f}>"

    def fits_abort(self, end: End) -> bool:
        """Tell whether SIGABRT fits: service managers end with it what hangs."""
        return end.signal == SIGABRT and self.cause in {"hang", "cpu_exhaustion"}
