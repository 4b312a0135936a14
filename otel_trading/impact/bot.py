"""The instrumented program under stress: it runs until it is told to end, and changes its load when told so.

Run as ``python -m otel_trading.impact.bot PARENT SECONDS OPTIONS``.  Commands are JSON lines on its standard input:
``{"set": {…}}`` changes attributes of the feed, ``{"report": true}`` asks what happened since the last report,
``{"end": true}`` ends it in an orderly way.  Bounded as ``pressure`` is.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from otel_trading.impact import feed as feeding
from otel_trading.impact.bounds import Commands, bound
from otel_trading.impact.program import Program, say, trading

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANGEABLE = ("orders", "rate", "volatility", "volume")


class Bot:
    """The program, its feed, and what is to be told of it."""

    def __init__(self, commands: Commands, options: dict[str, Any]) -> None:
        """Set the program up, recording."""
        self._commands = commands
        self._feed = feeding.Feed(options["rate"], options["orders"], options["seed"], rejected=options["rejected"])
        self._program = Program(options["variant"], options["endpoint"], options["cpu"], options["config"])
        self._late: list[int] = []
        self._ending = False
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def run(self, seconds: float) -> None:
        """Trade until told to end; at most so long."""
        program = self._program
        gc.collect()
        say(segment=program.segment, pid=os.getpid(), backend=program.recorder.backend)
        feeding.deliver(program.ticks, self._feed, seconds, self._late, self._obey)
        program.stop()
        say(ended=True)

    def _obey(self) -> bool:
        line = self._commands.next()
        if line is not None:
            told: dict[str, Any] = json.loads(line) if line else {"end": True}
            for name, value in told.get("set", {}).items():
                if name in CHANGEABLE:
                    setattr(self._feed, name, value)
            if "report" in told:
                self._report()
            self._ending = "end" in told
        return self._ending

    def _report(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        late = sorted(self._late)
        self._late.clear()
        say(
            report={
                "orders": len(late),
                "order_ns": trading.summarise(late) if late else None,
                "cpu": (cpu - self._cpu) / (wall - self._wall),
                "accounts": self._program.accounts(),
            }
        )
        self._wall, self._cpu = wall, cpu


def main(arguments: Sequence[str]) -> None:
    """Trade."""
    parent, seconds, options = arguments
    bound(int(parent), float(seconds))
    commands = Commands()
    say(ready=True)
    if commands.next(float(seconds)) != "go":  # its control group is set before it begins
        return
    Bot(commands, json.loads(options)).run(float(seconds))


if __name__ == "__main__":
    main(sys.argv[1:])
