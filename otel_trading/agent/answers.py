"""What the agent answers to those who ask it, and what it tells Prometheus."""

from __future__ import annotations

import os
import time

from otel_trading.agent.exposition import Exposition
from otel_trading.budget.modes import name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from otel_trading.agent.supervisor import Supervisor
    from otel_trading.agent.watched import Watched

    Reply = Callable[[dict[str, Any]], None]

_SCRAPE_SECONDS = 5.0
_STATS_SECONDS = 1.0
_LONGEST_FLUSH = 60.0


def answer(agent: Supervisor, request: Mapping[str, Any], reply: Reply) -> None:
    """Answer a request, now or later; whatever it is, there is an answer."""
    what = request.get("ask")
    if what == "status":
        reply(status(agent))
    elif what == "metrics":
        metrics(agent, lambda text: reply({"metrics": text}))
    elif what == "stop":
        reply({"stopping": True})
        agent.stop()
    elif what == "told":
        reply({"told": [one.found.pid for one in agent.segments.values() if not one.ended]})
    elif what in {"stats", "flush", "take", "give"}:
        _of_a_segment(agent, str(what), request, reply)
    else:
        reply({"error": "this is no request that the agent knows"})


def _of_a_segment(agent: Supervisor, what: str, request: Mapping[str, Any], reply: Reply) -> None:
    segment = _chosen(agent, request.get("pid"), request.get("path"))
    if segment is None:
        reply({"error": f"there is no segment of process {request.get('pid')} in {agent.where}"})
    elif what == "take":
        reply(_outcome(segment.take()))
        segment.tick(time.monotonic())
    elif what == "give":
        reply(_outcome(segment.give()))
    elif segment.child is None or not segment.child.running:
        reply({"error": f"{segment.name} is not drained by the agent now", "answer": None})
    elif what == "stats":
        segment.child.ask({"do": "stats"}, _STATS_SECONDS, lambda found: reply({"answer": found}))
    else:
        seconds = request.get("seconds")
        limit = min(float(seconds), _LONGEST_FLUSH) if isinstance(seconds, (int, float)) else 1.0
        segment.child.ask({"do": "flush", "seconds": limit}, limit + 1.0, lambda done: reply({"answer": done}))


def _outcome(wrong: str) -> dict[str, Any]:
    return {"error": wrong} if wrong else {"done": True}


def _chosen(agent: Supervisor, pid: object, path: object) -> Watched | None:
    found = [one for one in agent.segments.values() if one.found.pid == pid and path in {None, one.path}]
    return max(found, key=lambda one: (not one.ended, one.found.created_ns), default=None)


def status(agent: Supervisor) -> dict[str, Any]:
    """Say how it stands."""
    return {
        "pid": os.getpid(),
        "directory": agent.where,
        "started_ns": agent.began_ns,
        "mode": name_of(agent.mode),
        "metrics": agent.metrics_url,
        "segments": [{**one.document(), "mode": name_of(one.mode)} for one in agent.segments.values()],
        "restarts": agent.restarts + sum(one.restarts for one in agent.segments.values()),
        "died": agent.died,
        "deaths": agent.deaths,
        "processes": _processes(agent),
    }


# ---- metrics ----


def metrics(agent: Supervisor, reply: Callable[[str], None]) -> None:
    """Put the metrics of all segments, and our own, together; ``reply`` gets the text."""
    made = Exposition()
    asked = [one for one in agent.segments.values() if one.child is not None and one.child.running]
    waiting = len(asked)

    def came(segment: Watched, text: object) -> None:
        nonlocal waiting
        waiting -= 1
        if isinstance(text, str):
            made.add(text, _labels(segment))
        if waiting == 0:
            finish()

    def finish() -> None:
        _add_own(agent, made)
        reply(made.text())

    if not asked:
        finish()
    for one in asked:
        child = one.child
        if child is None or one.found.path not in agent.segments:  # gone while the others were asked
            came(one, None)
        else:
            child.ask({"do": "metrics"}, _SCRAPE_SECONDS, lambda text, one=one: came(one, text))  # type: ignore[misc]


def _labels(segment: Watched) -> dict[str, str]:
    return {"service_name": segment.found.service, "service_instance_id": segment.instance}


def _add_own(agent: Supervisor, made: Exposition) -> None:
    segments = list(agent.segments.values())
    states = [one.document()["state"] for one in segments]
    made.series(
        "trading_agent_segments",
        "gauge",
        "Segments that the agent knows, by how it stands with them.",
        [({"state": state}, states.count(state)) for state in sorted(set(states))],
    )
    made.series(
        "trading_agent_restarts_total",
        "counter",
        "Drain hosts that died and were started again.",
        [({}, status(agent)["restarts"])],
    )
    made.series("trading_agent_deaths_total", "counter", "Processes whose death was looked into.", [({}, agent.died)])
    processes = _processes(agent)
    made.series(
        "trading_agent_cpu_seconds_total",
        "counter",
        "CPU time of the agent's processes that run now.",
        [(_process(one), one["cpu_s"]) for one in processes if one["cpu_s"] is not None],
    )
    made.series(
        "trading_agent_memory_bytes",
        "gauge",
        "Memory of the agent's processes, what they share divided among them (Pss).",
        [(_process(one), one["memory"]) for one in processes if one["memory"] is not None],
    )


def _process(one: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(one[key]) for key in ("process", "service_name", "service_instance_id") if key in one}


def _processes(agent: Supervisor) -> list[dict[str, Any]]:
    return [
        {"process": "agent", "pid": os.getpid(), **_use(os.getpid())},
        *(
            {"process": "drain_host", "pid": one.child.pid, **_labels(one), **_use(one.child.pid)}
            for one in agent.segments.values()
            if one.child is not None
        ),
    ]


def _use(pid: int) -> dict[str, float | None]:
    cpu = memory = None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            memory = next(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
    except (OSError, ValueError, IndexError, StopIteration):
        pass
    return {"cpu_s": cpu, "memory": memory}
