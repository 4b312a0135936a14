"""What the rest of the package says to the keep rules: share verdicts, pin a trace, wait for kept spans."""

from __future__ import annotations

from otel_trading._pure.passes import drain
from otel_trading._pure.shared_file import SharedFile
from otel_trading._pure.waits import waits


def share(fd: int, /) -> None:
    """Have verdicts and bucket in common with the directory's other processes, in the file ``fd``.

    It is laid out where it is empty.  -1: this process has its own again, as ``open`` leaves it.
    Raises OSError, and ValueError for a file that is something else.
    """
    shared = None if fd == -1 else SharedFile(fd)
    with drain.lock:
        drain.rules.share(shared)


def pin(trace_id: int, /) -> bool:
    """Have a trace kept, whatever is or was recorded of it; False without a segment, and for 0."""
    if not 0 <= trace_id < 1 << 128:
        raise OverflowError("a trace id has 128 bits")
    if drain.file is None or not trace_id:
        return False
    if not drain.drains:  # whoever does reads it in what the directory's processes share
        return drain.tell(trace_id)
    pins = drain.rules.pins
    if len(pins) == pins.maxlen:  # more of them than a pass takes: make one
        drain.run()
    pins.append(trace_id)
    return True


def await_kept(spans: int, block_bytes: int, timeout: float, /) -> bool:
    """Wait until that many kept spans wait for ``take``, or spans whose blocks take so many bytes.

    False after ``timeout`` seconds, and where ``wake`` was called.
    """

    def ready() -> bool:
        queue = drain.queue
        return len(queue.spans) >= spans or queue.bytes >= block_bytes

    return waits.wait(ready, timeout)


def wake() -> None:
    """End the waits of ``await_kept`` and ``await_decision`` that are going on."""
    waits.end()
