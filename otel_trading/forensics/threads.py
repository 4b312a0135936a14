"""What the threads of a process do that is alive: asked of /proc, without touching it."""

from __future__ import annotations

import os
from typing import Any

from otel_trading.forensics.evidence import plain
from otel_trading.forensics.oom import read_text

_MOST = 64
_USER, _SYSTEM = 11, 12  # fields 14 and 15 of a stat file, counted after the name
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a disk",
    "T": "stopped",
    "t": "traced",
    "Z": "ended",
    "I": "idle",
}


def threads(pid: int) -> list[dict[str, Any]]:
    """Give thread id, name, state, kernel function it waits in, CPU seconds of at most 64 threads; some ms."""
    try:
        ids = sorted(int(name) for name in os.listdir(f"/proc/{pid}/task") if name.isdigit())
    except OSError:
        return []
    ticks = os.sysconf("SC_CLK_TCK")
    found = []
    for thread in ids[:_MOST]:
        where = f"/proc/{pid}/task/{thread}"
        head, _, rest = read_text(f"{where}/stat").rpartition(")")
        fields = rest.split()
        if len(fields) <= _SYSTEM:
            continue
        waits = read_text(f"{where}/wchan").strip("\0 \n")
        found.append(
            {
                "thread": thread,
                "name": plain(head.partition("(")[2], 32),
                "state": _STATES.get(fields[0], fields[0][:1]),
                "waits_in": plain(waits, 64) if waits not in {"", "0"} else None,
                "cpu_s": (int(fields[_USER]) + int(fields[_SYSTEM])) / ticks if ticks else None,
            }
        )
    return found
