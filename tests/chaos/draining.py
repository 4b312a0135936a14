"""Adopts and drains a segment again and again, each time damaged in another way; says so at the end."""

from __future__ import annotations

import faulthandler
import sys
from pathlib import Path

from damage import Damage

from otel_trading._backend import core

_TIMES = 50
_LONGEST = 20  # seconds that one file may take


def drain(fd: int) -> None:
    """Do what a drain host does with a segment whose process has died."""
    try:
        core.adopt(fd)
    except ValueError:
        return
    try:
        core.keep(1_000)
        core.drain(True)
        batch = core.take(1_000)
        batch.states()
        batch.scopes()
        batch.settle(0)
        core.accounts()
        core.snapshot()
    finally:
        core.let_go()


def main(original: str, copy: str, seed: str) -> None:
    """Damage, drain, restore."""
    damage = Damage(Path(original), Path(copy), int(seed))
    for _ in range(_TIMES):
        faulthandler.dump_traceback_later(_LONGEST, exit=True)
        damage.some()
        drain(damage.fd)
        damage.restore()
    faulthandler.cancel_dump_traceback_later()
    sys.stdout.write("drained\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
