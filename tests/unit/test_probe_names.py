"""What is known of some names, whoever defines them: the tier of orders and risk, the load at which metrics go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import otel_trading as ot
from otel_trading import probes
from otel_trading.budget.catalogue import METRICS

if TYPE_CHECKING:
    import pytest


def test_the_loads_are_the_catalogues() -> None:
    """An instrument that has a built-in metric's name goes off at the CPU load that the catalogue has for it."""
    known = {metric.name.removeprefix("trading."): metric.off_cpu for metric in METRICS if metric.off_cpu}
    assert known == probes._OFF_CPU


def test_the_load_reaches_the_instrument(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given to the backend with and without the prefix, and never for one of tier P0."""
    made: list[tuple[object, ...]] = []

    class Gauge:
        def __init__(self, *arguments: object) -> None:
            made.append(arguments)

    monkeypatch.setattr(probes.core, "Gauge", Gauge)
    ot.gauge("cache.hit_ratio", tier=ot.P2, attributes={"names": 1})
    ot.gauge("trading.queue.size", tier=ot.P3, attributes={"names": 1})
    ot.gauge("queue.size", tier=ot.P0, attributes={"names": 2})
    ot.gauge("others", tier=ot.P3, attributes={"names": 1})
    assert [(arguments[1], arguments[5]) for arguments in made] == [(2, 85), (3, 80), (0, 0), (3, 0)]
    for key in [key for key in probes._instruments if "names" in key[2]]:
        del probes._instruments[key]
