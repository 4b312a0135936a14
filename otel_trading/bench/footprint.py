"""Memory and time that ``import otel_trading`` and ``configure`` take.

Run as a program, by its path, in a fresh interpreter: a module of the package could not look at the process before
the package is imported.  Prints one JSON object; times in nanoseconds, memory in bytes.

Linux only: it reads /proc/self/smaps.
"""

from __future__ import annotations

import os
import sys
import time

QUIET = {"export.traces": "none", "export.metrics": "none"}
IDLE = 1.0
"""Seconds after ``configure`` before memory is looked at: the drain has come round a few times."""


def sizes(lines: list[str]) -> dict[str, int]:
    """Add up what smaps says of some mappings, in bytes."""
    found = {"Rss": 0, "Pss": 0, "Private_Dirty": 0}
    for line in lines:
        key, _, rest = line.partition(":")
        if key in found:
            found[key] += int(rest.split()[0]) * 1024
    return found


def process() -> dict[str, int]:
    """Sizes of this whole process."""
    with open("/proc/self/smaps_rollup") as file:  # importing pathlib would be part of what is measured
        return sizes(file.readlines())


def mappings_of(size: int) -> tuple[dict[str, int], int]:
    """Sizes of this process's mappings of the file that is ``size`` bytes long, and the space that the file takes."""
    with open("/proc/self/smaps") as file:
        lines = file.readlines()
    chosen: list[str] = []
    allocated, take = 0, False
    for line in lines:
        words = line.split()
        if words[0].endswith(":"):
            if take:
                chosen.append(line)
            continue
        # A mapping's own line: addresses, rights, offset, device, inode, and the file's path where it has one.
        try:
            status = os.stat(words[5]) if words[5:] and words[5].startswith("/") else None
        except OSError:
            status = None
        take = status is not None and status.st_size == size
        if take and status is not None:
            allocated = status.st_blocks * 512
    return sizes(chosen), allocated


def main() -> None:
    """Measure, and print."""
    memory = sys.platform == "linux"
    before = process() if memory else {}
    begin = time.perf_counter_ns()
    import otel_trading as ot  # the import is what is measured

    imported_ns = time.perf_counter_ns()
    imported = process() if memory else {}
    again_ns = time.perf_counter_ns()
    ot.configure(service="bench", config=QUIET)
    configured_ns = time.perf_counter_ns()
    result: dict[str, object] = {
        "backend": ot.backend,
        "import_ns": imported_ns - begin,
        "configure_ns": configured_ns - again_ns,
    }
    if memory:
        time.sleep(IDLE)
        configured = process()
        from otel_trading._backend import core

        segment = core.snapshot()["segment"]
        mapped, allocated = mappings_of(segment["bytes"])
        own = configured["Pss"] - mapped["Pss"] - before["Pss"]
        result["memory"] = {
            "before": before,
            "imported": imported,
            "configured": configured,
            "segment_mapped": mapped,
            "segment_bytes": segment["bytes"],
            "segment_allocated": allocated,
            "ring_bytes": segment["ring_bytes"],
            # What the process came to use without the segment, and all that the segment's file takes up, touched
            # or not: its space is reserved when it is made.
            "process_added": own,
            "added": own + max(allocated, mapped["Pss"]),
        }
    ot.shutdown()
    import json

    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
