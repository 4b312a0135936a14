"""What has been recorded so far: ``stats`` a probe, ``accounts`` a tier."""

from __future__ import annotations

from otel_trading import lifecycle
from otel_trading._backend import core


def stats() -> dict[str, dict[str, int]]:
    """Give {probe name: {count, p50_ns, p95_ns, p99_ns, p999_ns, max_ns, sla_breaches}} for all spans so far.

    Makes a pass of the drain; takes milliseconds.  Where an agent drains, it is asked: that takes a second at most, and
    where it does not answer by then, nothing is given, and that is a fault.
    """
    return lifecycle.stats()


def accounts() -> dict[int, dict[str, int]]:
    """Give {tier: {recorded, exported, sampled_out, overwritten, refused, pending}}, after a pass of the drain.

    ``recorded`` is the sum of the others, exactly.
    """
    return dict(enumerate(core.accounts()))
