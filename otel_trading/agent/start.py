"""Starting an agent beside a program: detached, in a session of its own, with its log in the user's state directory."""

from __future__ import annotations

import os
import sys
import time

from otel_trading.agent import files
from otel_trading.errors import OtelTradingError

_PAUSE = 0.01  # seconds between two looks at whether it has begun
_LONGEST = 5.0
_MOST_LOG = 4 << 20  # bytes; a longer one is kept as agent.log.1
# The shell ends at once and is waited for, so the agent is no child of the program, which may count its children.
_DETACH = '"$@" &'
_SHELL = "/bin/sh"
# What is meant for the program alone: the checklist, and systemd's way to hear of it.
_PROGRAMS_OWN = ("OTEL_TRADING_CHECKLIST", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "SYSTEMD_EXEC_PID")


def state_directory() -> str:
    """Say where the user's programs keep what is to stay: ``$XDG_STATE_HOME/otel-trading``, or below the home."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(base, "otel-trading")


def log_path() -> str:
    """Say where the log of an agent is that was started by a program."""
    return os.path.join(state_directory(), "agent.log")


def ensure(where: str, environment: dict[str, str], idle: float) -> str | None:
    """Have an agent for a directory of segments: start one where none runs, and wait until it has the directory.

    Gives None where all is well, else what is wrong.  ``environment`` is what it gets; ``idle``: it ends so many
    seconds after the last segment.
    """
    try:
        if files.is_running(where):
            return None
        spawn(where, ["--detached", "--idle", f"{idle:g}"], environment)
        deadline = time.monotonic() + _LONGEST
        while not files.is_running(where):
            if time.monotonic() > deadline:
                return f"the agent has not begun within {_LONGEST:g} s; its log: {log_path()}"
            time.sleep(_PAUSE)
    except (OtelTradingError, OSError) as error:
        return f"no agent could be started: {error}"
    return None


def spawn(where: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Start ``otel-trading agent`` with these arguments, as nobody's child.  Raises OSError."""
    added = {"OTEL_TRADING_DIR": where, "OTEL_TRADING_HOST": "embedded", "PYTHONSAFEPATH": "1"}
    made = {**environment, **added}
    path = [entry for entry in made.get("PYTHONPATH", "").split(os.pathsep) if entry and not _injects(entry)]
    made["PYTHONPATH"] = os.pathsep.join(path)
    if not path:
        del made["PYTHONPATH"]
    for name in _PROGRAMS_OWN:
        made.pop(name, None)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    log = _log()
    try:
        actions = [
            (os.POSIX_SPAWN_DUP2, null, 0),
            (os.POSIX_SPAWN_DUP2, null if log is None else log, 1),
            (os.POSIX_SPAWN_DUP2, null if log is None else log, 2),
        ]
        command = [sys.executable, "-m", "otel_trading", "agent", *arguments]
        # No fork: the program may have threads, and hooks of ours and of others for its forks.
        pid = os.posix_spawn(_SHELL, ["sh", "-c", _DETACH, "sh", *command], made, file_actions=actions)
        _wait(pid)
    finally:
        os.close(null)
        if log is not None:
            os.close(log)


def _wait(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # the program has SIGCHLD ignored, or has waited for it itself
        return


def _injects(entry: str) -> bool:
    """Tell whether this is the directory by which ``run`` instruments programs: the agent is not to be."""
    return os.path.basename(entry) == "inject" and os.path.exists(os.path.join(entry, "sitecustomize.py"))


def _log() -> int | None:
    path = log_path()
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if os.path.exists(path) and os.path.getsize(path) > _MOST_LOG:
            os.replace(path, f"{path}.1")
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:  # no home, a full disk: then it is not logged
        return None
