"""See that monitoring goes on, and start it again where it does not.

    otel-trading watchdog
    otel-trading watchdog --status

The agent starts one by itself; by hand it looks after the agent that runs now, if one does, and after the drains and
loops of every program that records in the directory.  It stays in the foreground until the agent ends, or SIGTERM or
Ctrl-C.  docs/watchdog.md says what it does when.

Exit codes: 0 fine, 1 the directory has a watchdog already (with --status: it has none), 2 could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from otel_trading.cli import targets

_MOST_INPUT = 1 << 16  # bytes of an alert
_MOST_REPORT = 1 << 20  # bytes that forensics may print
_MOST_ITEM = 8192  # characters of each of its items that go into an alert
_FORENSICS_SECONDS = 30.0
_FRESH = 10.0  # seconds: a beat of the watchdog that is older is none


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--status", action="store_true", help="tell whether there is one, and what it has done")
    parser.add_argument("--json", action="store_true", help="with --status: print one JSON object")
    parser.add_argument(
        "--directory", "--dir", metavar="DIR", help="look after this directory (default: that of the configuration)"
    )
    parser.add_argument("--hung", type=int, metavar="PID", help=argparse.SUPPRESS)  # the watchdog's own call


def run(arguments: argparse.Namespace) -> int:
    """Do it; gives the exit code."""
    if arguments.hung is not None:
        return _tell_hung(arguments.hung)
    where = targets.directory(arguments)
    return _show(where, as_json=arguments.json) if arguments.status else _watch(where)


def _watch(where: str) -> int:
    """Become the watchdog."""
    from otel_trading import config
    from otel_trading.agent import files, watchdog_start
    from otel_trading.segment import prepare_directory

    settings = config.resolve(None, None, None)
    os.close(prepare_directory(where))
    page = files.words(where)
    agent = (page.pid, page.process_start) if page.alive else None
    command = [*watchdog_start.program(), *watchdog_start.arguments(where, settings.values, agent)]
    if agent is not None:
        command += ["--", sys.executable, "-m", "otel_trading", "agent"]
    whose = f"the agent with pid {agent[0]}, and " if agent is not None else "no agent, as none runs, but "
    sys.stderr.write(f"otel-trading watchdog: looks after {whose}the programs that record in {where}\n")
    sys.stderr.flush()
    os.execve(command[0], command, watchdog_start.environment())  # noqa: S606  no shell is wanted


def _status(where: str) -> dict[str, Any]:
    from otel_trading import _layout as at
    from otel_trading.agent import files
    from otel_trading.agent.watchdog_looks import state_of

    words = files.words(where)
    page = b""
    try:
        fd = os.open(os.path.join(where, files.PAGE), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        pass
    else:
        try:
            page = os.pread(fd, at.SIZE_AGENT, 0)
        finally:
            os.close(fd)

    def word(offset: int) -> int:
        return int.from_bytes(page[offset : offset + 8], "little") if words.pid else 0

    pid = word(at.OFF_AGENT_WATCHDOG_PID)
    age = (time.monotonic_ns() - word(at.OFF_AGENT_WATCHDOG_BEAT_NS)) / 1e9 if pid else None
    works = age is not None and 0.0 <= age < _FRESH and state_of(pid)[0] not in {"", "Z"}
    return {
        "directory": where,
        "watchdog": {"pid": pid or None, "works": works, "beat_age_s": age},
        "agent": {"pid": words.pid or None, "alive": words.alive},
        "restarts": word(at.OFF_AGENT_RESTARTS),
        "gave_up": word(at.OFF_AGENT_GAVE_UP) == 1,
    }


def _show(where: str, *, as_json: bool) -> int:
    found = _status(where)
    watchdog, agent = found["watchdog"], found["agent"]
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        works = f"pid {watchdog['pid']}, looked {watchdog['beat_age_s']:.1f} s ago" if watchdog["works"] else "none"
        lives = f"pid {agent['pid']}" if agent["alive"] else "none"
        lines = [
            f"directory  {where}",
            f"watchdog   {works}",
            f"agent      {lives}; started {found['restarts']} times by the watchdog"
            + (", which has given up" if found["gave_up"] else ""),
        ]
        sys.stdout.write("\n".join([*lines, "", f"Next: otel-trading {'agent --status' if lives else 'agent'}"]) + "\n")
    return 0 if watchdog["works"] else 1


# ---- a hung program: the watchdog's alert, with a report of the live segment ----


def _tell_hung(pid: int) -> int:
    """Take the alert from standard input, add what forensics makes of the program, and send it."""
    from otel_trading import alerts, config
    from otel_trading.alerts.alert import from_document
    from otel_trading.errors import OtelTradingError

    try:
        alert = from_document(json.loads(sys.stdin.buffer.read(_MOST_INPUT)))
    except (ValueError, RecursionError) as error:
        raise OtelTradingError(f"standard input has no alert: {error}") from error
    alert.details["forensics"] = _forensics(pid)
    alerts.configure(config.resolve(None, None, None))
    alerts.raise_alert(alert)
    sent = alerts.flush(20.0)
    alerts.close(1.0)
    return 0 if sent else 1


def _forensics(pid: int) -> object:
    """Have the live segment looked into, by a process of its own; what that says, or why there is nothing."""
    import subprocess

    command = [sys.executable, "-m", "otel_trading", "forensics", str(pid), "--json"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_FORENSICS_SECONDS,
            check=False,
        )
        found = json.loads(done.stdout[:_MOST_REPORT])
    except subprocess.TimeoutExpired:
        return f"no report within {_FORENSICS_SECONDS:g} s"
    except (OSError, ValueError, RecursionError) as error:
        return f"no report: {type(error).__name__}"
    if not isinstance(found, dict):
        return found if len(json.dumps(found)) <= _MOST_ITEM else "the report is too long for an alert"
    return {name: item for name, item in found.items() if len(json.dumps(item)) <= _MOST_ITEM}
