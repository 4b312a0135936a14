"""What a program does whose segment an agent drains: leave it to the agent, and ask it."""

from __future__ import annotations

import os
from time import monotonic, sleep

from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.agent import files
from otel_trading.faults import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05  # seconds between two looks at whether all is settled
_STATS_SECONDS = 1.0
_WITHOUT = 2.0  # seconds that a flush waits for an agent that is not there: it may be on its way
_HINT = "Start one, now or later: otel-trading agent"


def leave(path: str) -> None:
    """Leave the drain of this process's segment to an agent.  Raises SegmentError, ValueError and OSError."""
    from otel_trading.segment.files import open_segment

    core.drain_give()
    fd = open_segment(path, os.O_RDWR)
    try:
        core.ask_host(fd, at.HOST_AGENT)
    finally:
        os.close(fd)
    check(path)


def check(path: str) -> bool:
    """Tell whether there is an agent for a segment, and say once that there is none."""
    where = os.path.dirname(path)
    if files.is_running(where):
        return True
    report("agent", f"no agent drains the segments in {where}: spans wait there, as far as the rings reach. {_HINT}")
    return False


def flush(path: str, deadline: float) -> bool:
    """Have the agent export what was recorded before the call; False where ``deadline`` came first."""
    from otel_trading.agent.asking import NoAgentError, ask
    from otel_trading.segment import attach

    pause = _FIRST_PAUSE
    without = monotonic() + _WITHOUT
    reader = attach(path)
    try:
        while True:
            rest = deadline - monotonic()
            if reader.settled():
                return True
            if rest <= 0.0:
                return False
            try:
                request = {"ask": "flush", "pid": os.getpid(), "path": path, "seconds": rest}
                if ask(os.path.dirname(path), request, rest).get("answer") is True:
                    return True
            except NoAgentError:
                if monotonic() > without:
                    check(path)
                    return reader.settled()
            sleep(max(0.0, min(pause, deadline - monotonic())))
            pause = min(2 * pause, _LONGEST_PAUSE)
    finally:
        reader.close()


def stats(path: str) -> dict[str, dict[str, int]]:
    """Ask the agent for the statistics; {}, and a fault, where it gives none within a second."""
    from otel_trading.agent.asking import NoAgentError, ask

    try:
        found: Any = ask(os.path.dirname(path), {"ask": "stats", "pid": os.getpid(), "path": path}, _STATS_SECONDS)
    except NoAgentError as error:
        report("agent:stats", f"stats() is empty: {error}")
        return {}
    if not isinstance(found.get("answer"), dict):
        report("agent:stats", f"stats() is empty: {found.get('error', 'the agent gives none')}")
        return {}
    return dict(found["answer"])


def put_away(path: str) -> None:
    """Leave the closed segment to the agent, as small as it can be.  Raises SegmentError and OSError."""
    from otel_trading.segment import remains

    remains.trim(path)
    if not check(path):
        remains.note_missing_drain(path)


def look_for_dead(where: str) -> None:
    """Have the segments of processes that died looked into, by a process of its own, where no agent does it.

    Raises OtelTradingError and OSError.
    """
    from otel_trading.segment import segments
    from otel_trading.segment.making import is_left_to_agent

    left = any(is_left_to_agent(found.path) if found.closed else True for found in segments(where) if not found.alive)
    if left and not files.is_running(where) and not files.is_running(where, files.ONCE):
        from otel_trading.agent.start import spawn

        spawn(where, ["--once", "--detached"], dict(os.environ))
