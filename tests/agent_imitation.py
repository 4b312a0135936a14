"""An agent's page and nothing else, for tests of what watches over an agent: it beats until told otherwise.

    python agent_imitation.py DIRECTORY [crash | mute SECONDS]

``crash`` ends at once with an error; ``mute`` stops beating after so long, and goes on living.  SIGTERM ends it in an
orderly way.  It appends its pid to DIRECTORY/started.
"""

from __future__ import annotations

import os
import signal
import sys
import time


def main() -> int:
    """Be an agent."""
    from otel_trading import _layout as at
    from otel_trading.agent.watchdog_start import own_start

    directory, *rest = sys.argv[1:]
    with open(os.path.join(directory, "started"), "a", encoding="ascii") as started:
        started.write(f"{os.getpid()}\n")
    if rest[:1] == ["crash"]:
        return 3
    ends: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: ends.append(1))
    fd = os.open(os.path.join(directory, "agent.page"), os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, at.PAGE)

    def put(offset: int, value: int) -> None:
        os.pwrite(fd, value.to_bytes(8, "little"), offset)

    put(at.OFF_AGENT_PID, os.getpid())
    put(at.OFF_AGENT_PROCESS_START, own_start())
    put(at.OFF_AGENT_BEAT_NS, time.monotonic_ns())
    put(at.OFF_AGENT_STATE, at.AGENT_RUNNING)
    put(at.OFF_AGENT_MAGIC, at.AGENT_MAGIC)
    put(at.OFF_AGENT_VERSION, at.AGENT_VERSION)
    silent = time.monotonic() + float(rest[1]) if rest[:1] == ["mute"] else float("inf")
    while not ends:
        if time.monotonic() < silent:
            put(at.OFF_AGENT_BEAT_NS, time.monotonic_ns())
        time.sleep(0.01)
    put(at.OFF_AGENT_STATE, at.AGENT_STOPPED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
