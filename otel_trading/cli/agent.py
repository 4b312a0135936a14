"""Drain the segments of other processes: one agent a user and directory, until SIGTERM or Ctrl-C.

    otel-trading agent                 before or after the programs; each OTEL_TRADING_HOST=agent
    otel-trading agent --status        what it drains, and how far it is
    otel-trading agent --take PID      have it drain a process that drains itself, and --give PID back

Where to export and the port of /metrics are the agent's own configuration (OTEL_*, OTEL_TRADING_CONFIG). At its end it
exports what it has, and gives back the processes that drained themselves before.

Exit codes: 0 fine, also where there is an agent already; 1 --status, --stop: there is none; 2 it could not be done.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from otel_trading.errors import OtelTradingError

if TYPE_CHECKING:
    from otel_trading.config import Settings

_NONE = 1
_ANSWER = 5.0  # seconds
_COUNTS = ("recorded", "exported", "sampled_out", "overwritten", "refused", "pending")


def _pid(text: str) -> int:
    number = int(text)
    if number < 1:
        message = f"{text} is no process id"
        raise argparse.ArgumentTypeError(message)
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0.0 <= number <= 86_400.0:  # noqa: PLR2004  a day
        message = f"{text} is not between 0 and 86400 seconds"
        raise argparse.ArgumentTypeError(message)
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--status", action="store_true", help="say what the agent drains")
    what.add_argument("--stop", action="store_true", help="have it end, and wait for that")
    what.add_argument("--take", type=_pid, metavar="PID", help="have it drain a process that drains itself")
    what.add_argument("--give", type=_pid, metavar="PID", help="have that process drain itself again")
    what.add_argument("--once", action="store_true", help="only look into the processes that have died, and end")
    what.add_argument(
        "--emergency", action="store_true", help="watch what is critical and nothing else; the watchdog's"
    )
    parser.add_argument("--idle", type=_seconds, metavar="S", help="end S seconds after the last program did")
    parser.add_argument("--dir", metavar="DIR", help="where the segments are (default: that of the configuration)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked for; gives the exit code."""
    if not sys.platform.startswith("linux"):
        raise OtelTradingError("the agent needs Linux: here each process drains its own segment")
    from otel_trading import config
    from otel_trading.segment import default_directory

    settings = config.resolve(directory=arguments.dir)
    where = settings.directory or default_directory()
    if arguments.status:
        return _status(where, as_json=arguments.json)
    if arguments.stop:
        return _stop(where, settings, as_json=arguments.json)
    for what in ("take", "give"):
        if getattr(arguments, what) is not None:
            return _hand(where, what, getattr(arguments, what), settings, as_json=arguments.json)
    if arguments.emergency:
        from otel_trading.agent import emergency

        return emergency.run(where, settings)
    return _be(where, settings, arguments)


def _be(where: str, settings: Settings, arguments: argparse.Namespace) -> int:
    from otel_trading.agent.supervisor import AgentRunsError, Supervisor

    if arguments.detached:
        import os

        os.setsid()
    supervisor = Supervisor(where, settings, idle=arguments.idle, once=arguments.once)
    try:
        return supervisor.run()
    except AgentRunsError as error:
        sys.stderr.write(f"otel-trading: {error}\n")
        return 0


# ---- asking the one that runs ----


def _ask(where: str, request: dict[str, Any], timeout: float = _ANSWER) -> dict[str, Any]:
    from otel_trading.agent.asking import ask

    return ask(where, request, timeout)


def _print(document: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    text = json.dumps(document, indent=2) if as_json else "\n".join(lines)
    sys.stdout.write(text + "\n")


def _none(where: str, *, as_json: bool) -> int:
    _print(
        {"running": False, "directory": where},
        [f"no agent drains the segments in {where}", "", "Next: otel-trading agent"],
        as_json=as_json,
    )
    return _NONE


def _status(where: str, *, as_json: bool) -> int:
    from otel_trading.agent import files

    if not files.is_running(where):
        return _none(where, as_json=as_json)
    words = files.words(where)
    found = _ask(where, {"ask": "status"})
    found["running"] = True
    found["beat_age_s"] = round(max(0, time.monotonic_ns() - words.beat_ns) / 1e9, 3)
    found["watchdog"] = words.watchdog_pid or None
    for one in found["segments"]:
        one["spans"] = _counts(one["path"])
    _print(found, _lines(found), as_json=as_json)
    return 0


def _counts(path: str) -> dict[str, int] | None:
    from otel_trading.segment import attach

    try:
        reader = attach(path)
    except OtelTradingError:  # it has ended meanwhile
        return None
    try:
        accounts = reader.accounts()
    finally:
        reader.close()
    return {name: sum(account[name] for account in accounts) for name in _COUNTS}


def _lines(found: dict[str, Any]) -> list[str]:
    beside = f", watchdog {found['watchdog']}" if found["watchdog"] else ""
    age = time.time() - found["started_ns"] / 1e9
    memory = sum(one["memory"] or 0 for one in found["processes"])
    lines = [
        f"agent pid {found['pid']}{beside}, for {age:,.0f} s, in {found['directory']}",
        f"  {len(found['processes'])} processes, {memory / 1e6:.1f} MB; metrics: {found['metrics'] or 'not served'}",
        f"  {found['restarts']} drain hosts started again, {found['died']} deaths looked into",
    ]
    if found["segments"]:
        lines += [
            "",
            f"  {'pid':>8}  {'service':<20}  {'state':<12}  {'mode':<9}  {'spans':>12}  {'exported':>12}  pending",
        ]
    for one in found["segments"]:
        spans = one["spans"] or dict.fromkeys(_COUNTS, 0)
        lines.append(
            f"  {one['pid']:>8}  {one['service'][:20]:<20}  {one['state']:<12}  {one['mode'][:9]:<9}  "
            f"{spans['recorded']:>12,}  {spans['exported']:>12,}  {spans['pending']:,}"
        )
    for death in found["deaths"]:
        lines.append(f"  pid {death['pid']} died: {death.get('cause', 'unknown')}")
    following = "otel-trading forensics" if found["deaths"] else "otel-trading info"
    return [*lines, "", f"Next: {following}"]


def _stop(where: str, settings: Settings, *, as_json: bool) -> int:
    from otel_trading.agent import files

    if not files.is_running(where):
        return _none(where, as_json=as_json)
    _ask(where, {"ask": "stop"})
    deadline = time.monotonic() + settings.shutdown_timeout + 5.0
    while files.is_running(where):
        if time.monotonic() > deadline:
            raise OtelTradingError(f"the agent of {where} was told to end, and has not yet")
        time.sleep(0.02)
    _print({"stopped": True, "directory": where}, ["the agent has ended"], as_json=as_json)
    return 0


def _hand(where: str, what: str, pid: int, settings: Settings, *, as_json: bool) -> int:
    """Have the drain of a process change hands, and wait until it has."""
    outcome = _ask(where, {"ask": what, "pid": pid})
    if "error" in outcome:
        raise OtelTradingError(str(outcome["error"]))
    deadline = time.monotonic() + settings.shutdown_timeout + 5.0
    wanted = {"drained", "lean"} if what == "take" else {"drains itself"}
    while True:
        states = [one["state"] for one in _ask(where, {"ask": "status"})["segments"] if one["pid"] == pid]
        if wanted & set(states):
            break
        if time.monotonic() > deadline or not states:
            raise OtelTradingError(f"the drain of process {pid} has not changed hands yet; it is: {', '.join(states)}")
        time.sleep(0.02)
    who = "the agent drains" if what == "take" else "drains itself again:"
    _print({what: pid, "done": True}, [f"{who} process {pid}"], as_json=as_json)
    return 0
