"""Pressure on the machine, really applied: a process that takes CPU or memory until it is told to stop.

Run as ``python -m otel_trading.impact.pressure PARENT SECONDS cpu SHARE`` or ``… memory LEVEL LIMIT GROUP``.  It waits
for the line ``go``, says the Unix time of the beginning, and rests again at ``rest``.  It ends at the end of its
standard input, after SECONDS, and when its parent dies; when memory runs out it is the first to go.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from otel_trading.impact.bounds import Commands, bound, first_to_die

if TYPE_CHECKING:
    from collections.abc import Sequence

PERIOD = 0.01
"""Seconds; of each, a burner works for its share."""
PORTION = 8 << 20
"""Bytes that are taken at once."""
HIGHEST = 0.95
"""Load of memory at which everything is given back at once, whatever was asked for."""
_GIVE_BACK = 0.01


def _say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def memory_load(group: Path | None) -> float:
    """The share of memory that is in use: of the control group's limit, or of the machine's."""
    if group is not None:
        limit, used = (group / name for name in _group_files(group))
        reclaimable = 0
        with contextlib.suppress(OSError, ValueError):
            text = (group / "memory.stat").read_text(encoding="ascii")
            fields = dict(line.split() for line in text.splitlines())
            reclaimable = int(fields.get("total_inactive_file", fields.get("inactive_file", "0")))
        return (int(used.read_text()) - reclaimable) / int(limit.read_text())
    kilobytes: dict[str, int] = {}
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        kilobytes[name] = int(value.split()[0])
    return 1.0 - kilobytes["MemAvailable"] / kilobytes["MemTotal"]


def _group_files(group: Path) -> tuple[str, str]:
    if (group / "memory.max").exists():
        return "memory.max", "memory.current"
    return "memory.limit_in_bytes", "memory.usage_in_bytes"


def burn(commands: Commands, share: float) -> NoReturn:
    """Work for ``share`` of the time while told to."""
    while True:
        line = commands.next(3600.0)
        if line == "":
            raise SystemExit(0)
        if line != "go":
            continue
        _say(applied_ns=time.time_ns())
        begin = time.perf_counter()
        while True:
            while time.perf_counter() - begin < PERIOD * share:
                pass
            told = commands.next(0.0)
            if told is not None:
                _say(released_ns=time.time_ns())
                if told == "":
                    raise SystemExit(0)
                break
            rest = PERIOD - (time.perf_counter() - begin)
            if rest > 0.0:
                time.sleep(rest)
            begin = time.perf_counter()


def occupy(commands: Commands, level: float, limit: int, group: Path | None) -> NoReturn:
    """Take memory until its load is ``level``, at most ``limit`` bytes, while told to; give back what is above."""
    first_to_die()
    while True:
        line = commands.next(3600.0)
        if line == "":
            raise SystemExit(0)
        if line != "go":
            continue
        taken: list[mmap.mmap] = []
        told_level = False
        while True:
            load = memory_load(group)
            if load >= HIGHEST:
                _give_back(taken, len(taken))
            elif load > level + _GIVE_BACK and taken:
                _give_back(taken, 1)
            elif load < level and (len(taken) + 1) * PORTION <= limit:
                taken.append(_take())
                told = commands.next(0.0)
                if told is None:
                    continue
                break
            elif not told_level:
                told_level = True
                _say(applied_ns=time.time_ns(), load=load, bytes=len(taken) * PORTION, reached=load >= level)
            told = commands.next(0.02)
            if told is not None:
                break
        _give_back(taken, len(taken))
        _say(released_ns=time.time_ns())
        if told == "":
            raise SystemExit(0)


def _take() -> mmap.mmap:
    block = mmap.mmap(-1, PORTION)
    for page in range(0, PORTION, mmap.PAGESIZE):
        block[page] = 1
    return block


def _give_back(taken: list[mmap.mmap], count: int) -> None:
    for _ in range(count):
        taken.pop().close()


def main(arguments: Sequence[str]) -> NoReturn:
    """Apply one kind of pressure."""
    parent, seconds, kind, *more = arguments
    bound(int(parent), float(seconds))
    commands = Commands()
    _say(ready=True)
    if kind == "cpu":
        burn(commands, float(more[0]))
    occupy(commands, float(more[0]), int(more[1]), Path(more[2]) if more[2] else None)


if __name__ == "__main__":
    main(sys.argv[1:])
