"""A snapshot and the accounts as named metrics: the one list behind both ``/metrics`` and the OTLP exporters.

Names, units, and attributes are OpenTelemetry's; ``prometheus.py`` and ``metrics.py`` only translate them.
"""

from __future__ import annotations

from time import sleep

from otel_trading.drain.histogram import ExponentialHistogram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from otel_trading._native import ExemplarState

    Attributes = Mapping[str, bool | int | float | str]

COUNTER = 1
GAUGE = 2
HISTOGRAM = 3

_YIELD_EVERY = 4  # stages

OUTCOMES = ("exported", "sampled_out", "overwritten", "refused")
"""What can have become of a recorded span; the others are pending."""


class Point:
    """One time series' present state."""

    __slots__ = ("attributes", "exemplars", "value")

    attributes: Attributes
    value: int | float | ExponentialHistogram
    exemplars: Sequence[ExemplarState]

    def __init__(
        self,
        attributes: Attributes,
        value: float | ExponentialHistogram,
        exemplars: Sequence[ExemplarState] = (),
    ) -> None:
        """Take the parts as they are."""
        self.attributes = attributes
        self.value = value
        self.exemplars = exemplars


class Family:
    """A metric: points that differ in their attributes.  ``kind`` is COUNTER, GAUGE, or HISTOGRAM."""

    __slots__ = ("_by_attributes", "description", "kind", "name", "points", "unit")

    name: str
    kind: int
    unit: str
    description: str
    points: list[Point]

    def __init__(
        self,
        name: str,
        kind: int,
        unit: str,
        description: str,
        points: Iterable[Point] = (),
    ) -> None:
        """Take the parts; counters only ever grow."""
        self.name = name
        self.kind = kind
        self.unit = unit
        self.description = description
        self.points = list(points)
        self._by_attributes: dict[frozenset[tuple[str, Any]], Point] = {}

    def add(self, point: Point) -> None:
        """Add a point; one with the attributes of another joins it, since both would be the same series."""
        known = self._by_attributes.setdefault(frozenset(point.attributes.items()), point)
        if known is point:
            self.points.append(point)
            return
        if isinstance(known.value, ExponentialHistogram) and isinstance(point.value, ExponentialHistogram):
            known.value = known.value.merge(point.value)
            known.exemplars = [*known.exemplars, *point.exemplars]
        elif self.kind == COUNTER:
            known.value += point.value  # type: ignore[operator]
        else:
            known.value = point.value


def tier_name(tier: int) -> str:
    """Return ``P0`` … ``P3``."""
    return f"P{tier}"


def families(snapshot: Mapping[str, Any], accounts: Sequence[Mapping[str, int]] | None) -> list[Family]:
    """Return all metrics of a process: stages, the program's own instruments, and what telemetry tells of itself.

    Without accounts the last are left out.
    """
    return [
        *_stages(snapshot["probes"]),
        *_instruments(snapshot["instruments"]),
        *(_telemetry(snapshot, accounts) if accounts is not None else ()),
    ]


def _stages(probes: Iterable[Mapping[str, Any]]) -> list[Family]:
    duration = Family("trading.stage.duration", HISTOGRAM, "s", "Duration of a stage.")
    breaches = Family(
        "trading.stage.sla_breaches", COUNTER, "{breach}", "Spans of a stage that took longer than its SLA."
    )
    errors = Family("trading.stage.errors", COUNTER, "{error}", "Spans of a stage that ended with an error.")
    for number, probe in enumerate(probes):
        if not number % _YIELD_EVERY:
            # Offer the interpreter to the threads that trade, well before they would have to ask for it.
            sleep(0)
        attributes = {"trading.stage": probe["name"], "trading.tier": tier_name(probe["tier"])}
        duration.add(Point(attributes, ExponentialHistogram.from_state(probe["total"]), probe["exemplars"]))
        errors.add(Point(attributes, probe["errors"]))
        if probe["sla_ns"]:
            breaches.add(Point(attributes, probe["sla_breaches"]))
    return [duration, breaches, errors]


def metric_name(name: str) -> str:
    """Return a program's instrument's name in the ``trading`` namespace: ``trading.`` before it, but never twice."""
    return name if name.startswith(("trading.", "trading_")) else f"trading.{name}"


def _instruments(instruments: Iterable[Mapping[str, Any]]) -> list[Family]:
    found: dict[tuple[str, int], Family] = {}
    for instrument in instruments:
        value: float | ExponentialHistogram | None
        if instrument["kind"] == HISTOGRAM:
            value = ExponentialHistogram.from_state(instrument["total"])
        else:
            value = instrument["value"]
            if value is None:
                continue
        # A counter and a gauge may have one name: OpenTelemetry carries both.
        key = (metric_name(instrument["name"]), instrument["kind"])
        family = found.get(key)
        if family is None:
            family = found[key] = Family(*key, instrument["unit"], instrument["description"])
        family.add(Point(attributes_of(instrument["attributes"]), value, instrument.get("exemplars", ())))
    return list(found.values())


def attributes_of(text: str) -> dict[str, bool | int | float | str]:
    """Return an instrument's attributes from their JSON form; anything but a flat object gives none."""
    if not text:
        return {}
    import json

    try:
        found = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, bool | int | float | str)}


def _telemetry(snapshot: Mapping[str, Any], accounts: Sequence[Mapping[str, int]]) -> list[Family]:
    tiers = [({"trading.tier": tier_name(tier)}, account) for tier, account in enumerate(accounts)]
    rings, drain, segment = snapshot["rings"], snapshot["drain"], snapshot["segment"]
    return [
        Family(
            "trading.telemetry.recorded_spans",
            COUNTER,
            "{span}",
            "Spans that ended while their tier was on.",
            [Point(tier, account["recorded"]) for tier, account in tiers],
        ),
        Family(
            "trading.telemetry.spans",
            COUNTER,
            "{span}",
            "What became of the recorded spans: exported, sampled_out, overwritten, or refused.",
            [Point({**tier, "outcome": outcome}, account[outcome]) for tier, account in tiers for outcome in OUTCOMES],
        ),
        Family(
            "trading.telemetry.pending_spans",
            GAUGE,
            "{span}",
            "Recorded spans whose outcome is still open.",
            [Point(tier, account["pending"]) for tier, account in tiers],
        ),
        Family(
            "trading.telemetry.backlog",
            GAUGE,
            "{record}",
            "Records in the rings that the drain has not read yet.",
            [Point({}, sum(ring["backlog"] for ring in rings))],
        ),
        Family(
            "trading.telemetry.backlog_max",
            GAUGE,
            "{record}",
            "The longest backlog of a ring that the drain has met.",
            [Point({}, max((ring["backlog_max"] for ring in rings), default=0))],
        ),
        Family(
            "trading.telemetry.drain.cpu_time",
            COUNTER,
            "s",
            "CPU time of the drain.",
            [Point({}, drain["cpu_ns"] / 1e9)],
        ),
        Family(
            "trading.telemetry.drain.passes", COUNTER, "{pass}", "Passes of the drain.", [Point({}, drain["passes"])]
        ),
        Family(
            "trading.telemetry.segment.size",
            GAUGE,
            "By",
            "Bytes of the segment: reserved as a file, and resident in memory.",
            [
                Point({"state": "reserved"}, segment["bytes"]),
                Point({"state": "resident"}, segment["resident_bytes"]),
            ],
        ),
        Family(
            "trading.telemetry.losses",
            COUNTER,
            "{item}",
            "Details that were lost although their spans were not: names beyond the name table, attributes beyond"
            " the limit, values and texts overwritten before the drain read them; and misuse of the API (faults).",
            [
                Point({"kind": kind}, segment[kind])
                for kind in (
                    "names_refused",
                    "attributes_dropped",
                    "values_overwritten",
                    "text_overwritten",
                    "faults",
                )
            ],
        ),
    ]
