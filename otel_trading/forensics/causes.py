"""The likely cause: one rule each, with evidence in sentences and a confidence from 0 to 1.

A cause is told where its confidence is at least 0.5 and clearly ahead of the next; else it is ``unknown``, with what
speaks for what.  A process that is alive and of which nothing is seen has the cause ``none``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otel_trading.forensics import rules
from otel_trading.forensics.how_it_ended import ALIVE, EXIT, GONE, SIGNAL
from otel_trading.forensics.signs import Signs

if TYPE_CHECKING:
    from otel_trading.forensics.evidence import Evidence
    from otel_trading.forensics.finding import Finding
    from otel_trading.forensics.how_it_ended import End

TOLD = 0.5
"""The least confidence with which a cause is told."""
AHEAD = 0.2
"""By so much it has to be ahead of the next."""
_SURE = 0.85  # of a cause that belongs to the way it ended
_NOTHING = 0.05
UNKNOWN, NONE = "unknown", "none"

CAUSES = (
    "memory_leak",
    "oom_kill",
    "cpu_exhaustion",
    "queue_overflow",
    "market_data_disconnect",
    "hang",
    "order_reject_storm",
    "disk_full",
    "uncaught_exception",
    "fault",
    "killed",
    "terminated",
    "exit",
)


class Verdict(NamedTuple):
    """What is told."""

    cause: str
    """One of ``CAUSES``, "unknown", or "none"."""
    confidence: float
    """Of the cause; of "unknown" that of the best one that was not told."""
    evidence: list[str]
    """What speaks for it, or for all that were not told."""
    others: list[Finding]
    """What else was found, the likeliest first."""


def judge(evidence: Evidence, end: End) -> Verdict:
    """Say why a process ended, or what is wrong with one that lives; some ms."""
    signs = Signs(evidence, end)
    found = _weighed(signs)
    best = found[0] if found else None
    second = found[1].confidence if len(found) > 1 else 0.0
    if best is not None and best.confidence >= TOLD and best.confidence - second >= AHEAD - 1e-9:
        return Verdict(best.cause, round(best.confidence, 2), best.evidence, found[1:])
    if best is None and end.kind == ALIVE:
        return Verdict(NONE, 1.0, ["it is alive, and nothing is seen that would end it"], [])
    said = [f"{one.cause} ({one.confidence:.2f}): {sentence}" for one in found for sentence in one.evidence]
    if end.kind == GONE:
        said.append("neither the kernel nor the process says how it ended")
    return Verdict(UNKNOWN, round(best.confidence, 2) if best else 0.0, said or ["there is nothing to judge by"], found)


def _weighed(signs: Signs) -> list[Finding]:
    """Ask every rule, weigh what they say against each other, and sort."""
    found = {one.cause: one for rule in rules.CONDITIONS if (one := rule(signs)) is not None}
    for one in found.values():
        one.confidence *= _fits(signs.end, one)
    _explain(found)
    underlying = max((one.confidence for one in found.values()), default=0.0)
    ending = rules.ending(signs)
    if ending is not None:
        ending.confidence *= _left(ending.cause, underlying)
        found[ending.cause] = ending
    return sorted((one for one in found.values() if one.confidence >= _NOTHING), key=lambda one: -one.confidence)


def _fits(end: End, one: Finding) -> float:
    """Say how well what was seen before fits the way that the process ended."""
    if one.certain or end.kind in {ALIVE, GONE}:
        return 1.0
    if end.kind == SIGNAL:
        return 0.4 if end.signal in rules.FAULTS and not one.fits_abort(end) else 1.0
    if end.kind == EXIT and end.exception:
        return 0.5
    return 0.9 if end.code else 0.3


def _explain(found: dict[str, Finding]) -> None:
    """Where one condition brings another about, the effect speaks less for itself."""
    if any(one.certain and one.confidence >= _SURE for one in found.values()):
        for one in found.values():  # as a process does that the kernel lets wait for memory
            one.confidence *= 1.0 if one.certain else 0.6
    for cause, effects in rules.EXPLAINS.items():
        strong = found.get(cause)
        if strong is None or strong.confidence < TOLD:
            continue
        for effect in effects:
            weaker = found.get(effect)
            if weaker is not None and not weaker.certain and weaker.confidence <= strong.confidence + AHEAD:
                weaker.confidence *= 0.5


def _left(cause: str, underlying: float) -> float:
    """Say what is left of the plain word for the end, where a reason for it was found as well."""
    if cause == "killed":
        return 1.0 - underlying
    if cause in {"terminated", "exit"}:
        return 1.0 - 0.6 * underlying
    return 1.0 if underlying < TOLD else 0.7
