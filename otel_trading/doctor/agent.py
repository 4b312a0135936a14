"""The agent: whether there is one where one is wanted, and how it stands with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otel_trading.agent import files
from otel_trading.doctor.check import FAIL, OK, WARN, Check
from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_trading.doctor.check import Situation

_LATE = 5.0  # seconds


def checks(situation: Situation) -> Iterator[Check]:
    """Ask the agent, where it is wanted or there."""
    where = situation.directory
    wanted = situation.settings.host == "agent"
    if not files.is_running(where):
        if wanted:
            yield Check(
                "agent",
                WARN,
                f"programs leave their segments to an agent (host, said by {situation.settings.sources['host']}), and "
                f"none drains {where}",
                "otel-trading agent; otel-trading run starts one by itself",
            )
        else:
            yield Check("agent", OK, "none is running: each process drains its own segment")
        return
    words = files.words(where)
    age = (time.monotonic_ns() - words.beat_ns) / 1e9
    if age > _LATE:
        yield Check("agent", FAIL, f"pid {words.pid} has not gone on for {age:.0f} s", "otel-trading agent --stop")
        return
    from otel_trading.agent.asking import ask

    try:
        found = ask(where, {"ask": "status"}, situation.timeout)
    except OtelTradingError as error:
        yield Check("agent", FAIL, str(error), "otel-trading agent --stop, and start it again")
        return
    segments = found.get("segments") or []
    aside = [one for one in segments if one.get("state") == "set aside"]
    drained = sum(one.get("drain_host") is not None for one in segments)
    yield Check("agent", OK, f"pid {words.pid} drains {drained} of {len(segments)} segments in {where}")
    for one in aside:
        yield Check(
            "agent",
            FAIL,
            f"the segment of {one.get('service')} (pid {one.get('pid')}) was set aside: its drain hosts died",
            "see the agent's log; restart the program",
        )
    if situation.settings.values["watchdog.enabled"] and not words.watchdog_pid:
        yield Check("watchdog", WARN, "the agent has none", "otel-trading watchdog, or restart the agent")
