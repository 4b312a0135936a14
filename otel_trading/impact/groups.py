"""A control group with little memory, so that memory is short for a program and not for the whole machine."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "otel-trading-impact-"
_ROOT = Path("/sys/fs/cgroup")
_PATIENCE = 5.0


@contextlib.contextmanager
def limited(megabytes: int) -> Iterator[Path | None]:
    """Make a group below our own that may use so much, and remove it at the end, when its processes have ended.

    None where we have not the rights, or there are no control groups of memory.
    """
    group = _make(megabytes << 20)
    try:
        yield group
    finally:
        if group is not None:
            _remove(group)


def join(group: Path, pid: int) -> None:
    """Put a process into the group; what it has used so far stays counted where it was.  Raises OSError."""
    (group / "cgroup.procs").write_text(str(pid), encoding="ascii")


def _make(limit: int) -> Path | None:
    for parent, file in _parents():
        _tidy_up(parent)
        group = parent / f"{PREFIX}{os.getpid()}"
        try:
            group.mkdir(exist_ok=True)
            (group / file).write_text(str(limit), encoding="ascii")
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            continue
        return group
    return None


def _parents() -> Iterator[tuple[Path, str]]:
    """Our own groups that may have one of memory below them: version 1, then version 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield _ROOT / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
        elif number == "0" and not controllers:
            for root in (_ROOT, _ROOT / "unified"):
                yield root / path.lstrip("/"), "memory.max"


def _tidy_up(parent: Path) -> None:
    """Remove the groups of those who were killed before they could."""
    for left in parent.glob(f"{PREFIX}*"):
        if not Path(f"/proc/{left.name[len(PREFIX) :]}").exists():
            with contextlib.suppress(OSError):
                left.rmdir()


def _remove(group: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:  # a process of it is on its way out
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        else:
            return
