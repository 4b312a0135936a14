"""A receiver process for as long as something is measured."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from otel_trading.bench.children import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_RECEIVER = Path(__file__).with_name("receiver.py")
_PATIENCE = 60.0


@contextlib.contextmanager
def receiver(cpu: int | None, protocol: str = "http") -> Iterator[tuple[str, Callable[[], dict[str, int]]]]:
    """Run a receiver, where ``cpu`` is given on the other processors; give its address, and what ends it and tells.

    That is a dict with ``requests``, ``bytes`` and ``spans``.  Raises BenchmarkError where it does not start.
    """
    command = [sys.executable, str(_RECEIVER), protocol]  # by its path: nothing of ours is loaded there
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        told: dict[str, int] = {}

        def end() -> dict[str, int]:
            if not told:
                told.update(json.loads(process.communicate(timeout=_PATIENCE)[0]))  # the end of its input is its end
            return told

        try:
            if cpu is not None:
                os.sched_setaffinity(process.pid, os.sched_getaffinity(0) - {cpu})
            port = (process.stdout.readline() if process.stdout else "").strip()
            if not port:
                message = "the OTLP receiver did not start"
                raise BenchmarkError(message)
            yield f"http://127.0.0.1:{port}", end
            end()
        finally:
            process.kill()
