"""The figures that the rules on causes look at: series up to the end, and what they come to.

Time in a series is in seconds before the end, so the newest points have times near 0.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from otel_trading import _layout as at
from otel_trading.forensics import trends

if TYPE_CHECKING:
    from otel_trading.forensics.evidence import Evidence, Span
    from otel_trading.forensics.how_it_ended import End

    Series = list[tuple[float, float]]

EVENTS = 100
"""Critical events that are looked at: the newest."""
MINUTES = 300.0
"""Seconds of pulses that are looked at."""
_ENDED = {at.ORDER_ACKED, at.ORDER_FILLED, at.ORDER_PARTLY_FILLED, at.ORDER_REJECTED}
_NO_SPACE = ("No space left on device", "[Errno 28]", "Disk quota exceeded", "[Errno 122]", "disk is full", "ENOSPC")
_MINUTE = 60.0
_BUSY = 0.85  # of a core: by one look, one of a second that need not begin with it


class Signs:
    """What can be seen of a process's last minutes; some ms."""

    def __init__(self, evidence: Evidence, end: End) -> None:
        """Take the figures out of what was gathered."""
        self.evidence = evidence
        self.end = end
        known = end.unix_ns if end.kind != "alive" and end.unix_ns else 0
        self.end_ns = max(known, evidence.seen_ns)
        self.vitals = evidence.vitals[-EVENTS:]
        self.pulses = [pulse for pulse in evidence.pulses if self.ago(pulse["unix_ns"]) >= -MINUTES]
        self.lived = max(0.0, (self.end_ns - evidence.created_ns) / 1e9) if evidence.created_ns else 0.0
        self.resident = self._of_pulses("resident")
        self.process_cpu = self._of_pulses("process_cpu")
        self.cpu_load = self._of_pulses("cpu_load")
        self.memory_load = self._of_both("memory_load")
        self.queue = self._of_both("queue")
        self.updates = trends.rates(self._of_pulses("updates"))
        self.spans = trends.rates(self._of_pulses("spans"))
        self.market_age = self._of_both("market_age_ms", 1e-3)

    def ago(self, unix_ns: int) -> float:
        """Give a time as seconds before the end, negative."""
        return (unix_ns - self.end_ns) / 1e9

    def _of_pulses(self, name: str) -> Series:
        return trends.finite((self.ago(pulse["unix_ns"]), pulse.get(name)) for pulse in self.pulses)

    def _of_both(self, name: str, factor: float = 1.0) -> Series:
        """Join what pulses and critical events say of the same thing."""
        found = [
            (self.ago(one["unix_ns"]), one[name] * factor)
            for one in (*self.pulses, *self.vitals)
            if isinstance(one.get(name), (int, float))
        ]
        return [point for point in trends.finite(found) if point[0] >= -MINUTES]

    # ---- market data ----

    def data_age(self) -> float | None:
        """Give the age of the newest market data at the end, s; None where there never was any."""
        received = [one["received_ns"] for one in self.evidence.markets if one.get("received_ns")]
        if received:
            return float(max(0.0, (self.end_ns - max(received)) / 1e9))
        if not self.market_age:
            return None
        t, age = self.market_age[-1]
        return float(age - t)

    def usual_gap(self, silent_since: float) -> float | None:
        """Give the longest time without market data before it fell silent, s; None where nothing is known of that.

        ``silent_since``: seconds before the end, negative.
        """
        before = [age for t, age in self.market_age if t <= silent_since + 0.5]
        return max(before) if before else None

    # ---- what went on ----

    def active_after(self, since: float) -> float:
        """Give for how many seconds after ``since`` the program still did something: ended a span, noted an event."""
        last = [self.ago(span.end) for span in self.evidence.spans[-1:]]
        last += [self.ago(one["unix_ns"]) for one in self.vitals[-1:]]
        last += [t for t, rate in self.spans if rate > 0.0][-1:]
        return max((t - since for t in last), default=0.0)

    def busy(self, seconds: float = 10.0) -> tuple[int, int]:
        """Give (looks of the last seconds that found a core in use, looks)."""
        last = [value for t, value in self.process_cpu if t >= -seconds]
        return sum(value >= _BUSY for value in last), len(last)

    def usual_cpu(self, before: float) -> float | None:
        """Give the cores that the process used as a rule until ``before``; None of fewer than two looks."""
        values = [value for t, value in self.process_cpu if t < before]
        return trends.median(values) if len(values) > 1 else None

    def fell(self, series: Series, since: float) -> bool | None:
        """Tell whether a rate is less than half of what it was before; None where nothing is known of that."""
        early = [value for t, value in series if t < since]
        late = [value for t, value in series if t >= since]
        if not early or not late or trends.median(early) <= 0.0:
            return None
        return trends.median(late) < 0.5 * trends.median(early)

    def late_beats(self) -> tuple[list[str], int, float]:
        """Give (loops whose heartbeat was late at the end, looks in a row that found one so, seconds late at most).

        Of a process that is alive its heartbeats themselves are asked.
        """
        beats = self.evidence.life.get("beats") or []
        if self.evidence.alive:
            late = [one for one in beats if one.get("late")]
            ages = [(one.get("age_ns") or 0) / 1e9 for one in late]
            return [str(one.get("name")) for one in late], self._late_looks(), max(ages, default=0.0)
        looks = self._late_looks()
        if not looks:
            return [], 0, 0.0
        bits = self.pulses[-1]["late_beats"]
        names = [str(one.get("name")) for number, one in enumerate(beats) if bits >> number & 1]
        first = self.pulses[-looks]["unix_ns"]
        return names or ["?"], looks, -self.ago(first)

    def _late_looks(self) -> int:
        looks = 0
        for pulse in reversed(self.pulses):
            if not pulse.get("late_beats"):
                break
            looks += 1
        return looks

    def stuck(self) -> tuple[Span, float, float] | None:
        """Give the open span that takes far longer than its like, how long, and the longest that one took before.

        It is one without open children; None where nothing finished compares.
        """
        parents = {span.parent_id for span in self.evidence.open_spans}
        longest: dict[str, float] = {}
        for span in self.evidence.spans:
            longest[span.name] = max(longest.get(span.name, 0.0), span.seconds)
        found = None
        for span in self.evidence.open_spans:
            took = -self.ago(span.start)
            usual = longest.get(span.name)
            if span.span_id in parents or usual is None or took < max(5.0, 10.0 * usual):
                continue
            if found is None or took > found[1]:
                found = span, took, usual
        return found

    # ---- orders and errors ----

    def verdicts(self, seconds: float = 30.0) -> Counter[int]:
        """Count the acks, fills and rejects among the critical events looked at, those of the last seconds."""
        return Counter(
            int(one.get("state") or 0)
            for one in self.vitals
            if one.get("kind") == at.VITAL_ORDER and one.get("state") in _ENDED and self.ago(one["unix_ns"]) >= -seconds
        )

    def no_space(self) -> list[Span]:
        """Give the failed spans of the last minute that speak of a full disk."""
        return [
            span
            for span in (*self.evidence.spans, *self.evidence.open_spans)
            if span.error
            and self.ago(span.end or span.start) >= -_MINUTE
            and any(word in text for word in _NO_SPACE for text in self._words(span))
        ]

    @staticmethod
    def _words(span: Span) -> list[str]:
        return [
            span.description,
            str(span.attributes.get("exception.message", "")),
            str(span.attributes.get("error", "")),
        ]

    @staticmethod
    def figure(series: Series) -> float | None:
        """Give the newest value of a series, None without one."""
        return series[-1][1] if series and math.isfinite(series[-1][1]) else None
