"""Processes that stay for a while: they are told things by lines on standard input, and tell by JSON lines."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, TYPE_CHECKING, Any

from otel_trading import backend
from otel_trading.bench.children import BenchmarkError, environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

PATIENCE = 30.0
"""Seconds that an attendant may take to answer."""


class Attendant:
    """A module of this package, run in a process that ends with this one, and after ``seconds`` in any case.

    Usable as ``with``; at its end the process is gone.
    """

    def __init__(self, module: str, seconds: float, *arguments: str, extra: Mapping[str, str] | None = None) -> None:
        """Start it; ``extra`` is put into its environment."""
        self._name = module
        command = [sys.executable, "-m", f"otel_trading.impact.{module}", str(os.getpid()), str(seconds), *arguments]
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in close()
        self._process = subprocess.Popen(
            command,
            env=environment(backend, extra),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._said: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            if line.startswith("{"):
                self._said.put(json.loads(line))
        self._said.put(None)

    def tell(self, line: str | Mapping[str, Any]) -> None:
        """Write a line.  Raises BenchmarkError where the process has ended."""
        try:
            assert self._process.stdin is not None  # noqa: S101  it is a pipe
            self._process.stdin.write((line if isinstance(line, str) else json.dumps(dict(line))) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None

    def hear(self, key: str, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait for a line that has ``key``; others before it are let go.  Raises BenchmarkError where none comes."""
        deadline = time.monotonic() + patience
        while True:
            try:
                said = self._said.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                message = f"{self._name} did not say {key!r} within {patience:g} s"
                raise BenchmarkError(message) from None
            if said is None:
                raise self._ended()
            if key in said:
                return said

    def _ended(self) -> BenchmarkError:
        self._process.kill()
        status = self._process.wait()
        self._errors.seek(0)
        tail = "\n".join(self._errors.read().strip().splitlines()[-8:])
        return BenchmarkError(f"{self._name} ended with status {status}:\n{tail}")

    def close(self, patience: float = 0.0) -> None:
        """End it: by the end of its input, and where that takes longer than ``patience``, by a signal.  Idempotent."""
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()
        except OSError:  # it has ended already
            pass
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Attendant:  # noqa: PYI034  Self is younger than Python 3.10
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(0.0 if kind else 2.0)
