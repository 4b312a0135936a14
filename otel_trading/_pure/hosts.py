"""Who drains: this process's segment given away and taken back, another one's adopted, let go, and inherited.

The role itself is a lock on the file, and the caller's affair.
"""

from __future__ import annotations

import os
import sys
import time

from otel_trading import _layout as at
from otel_trading._pure import segment_file
from otel_trading._pure.adopted import AdoptedFile
from otel_trading._pure.buffers import fit_unattended
from otel_trading._pure.governor import governor
from otel_trading._pure.host import drain_stop, instrument_table
from otel_trading._pure.inheriting import disinherit, inherit_segment
from otel_trading._pure.mapped import CONTROL
from otel_trading._pure.passes import drain
from otel_trading._pure.recorder import recorder
from otel_trading._pure.waits import waits

_HOST = (CONTROL + at.OFF_CONTROL_HOST) // 8
_HOST_AT = CONTROL + at.OFF_CONTROL_HOST
_HALF = (1 << 32) - 1
_LAST_WAIT = 5.0  # seconds for a pass that is going on
_LOOK = 0.25  # seconds between two looks at who is to drain
_FUTEX_WAKE = 1
_FUTEX = {"x86_64": 202, "aarch64": 98}


def drain_give() -> None:
    """Drain this process's segment no longer; what is settled is published, what is still queued left to the next one.

    Does nothing where none is open.
    """
    if drain.file is None or drain.adopted is not None:
        return
    drain_stop(_LAST_WAIT)
    with drain.lock:
        drain.end_tenure()
        fit_unattended(on=True)


def drain_take() -> None:
    """Drain it again: what others settled is not taken again, what they left undone is decided anew.

    Does nothing where none is open.
    """
    if drain.file is None or drain.adopted is not None:
        return
    with drain.lock:
        fit_unattended(on=False)
        if not drain.drains:
            drain.take_over(at.HOST_EMBEDDED)


def adopt(fd: int, /) -> None:
    """Drain the segment in ``fd``, another process's, in this one; it is open for reading and writing, and duplicated.

    Raises ValueError, as ``Reader``, for a file that can not be a segment, OSError, and RuntimeError where a segment is
    open already.
    """
    with recorder.lock:
        if recorder.file is not None or recorder.writers or drain.file is not None:
            raise RuntimeError("a segment is open already")
        file = AdoptedFile(fd)
        recorder.reopen = None
        with drain.lock:
            drain.reset(time.time_ns())
            drain.second = time.perf_counter_ns() // 1_000_000_000
            drain.adopted = drain.file = recorder.adopted_file = file
            drain.use(file.tables)
            drain.take_over(at.HOST_AGENT)
        governor.open(file)


def let_go() -> None:
    """End ``adopt``, and ``inherit``: publish what is settled, unmap; the segment goes on.

    Does nothing where none is adopted.
    """
    file = drain.file
    if not isinstance(file, AdoptedFile):
        return
    governor.stop()
    with recorder.lock:
        if recorder.file is file:
            recorder.stop()
    drain_stop(_LAST_WAIT)
    with drain.lock:
        if drain.file is not file:
            return
        drain.look()
        drain.end_tenure()
        drain.last_instruments = instrument_table(file)
        drain.adopted = drain.file = recorder.adopted_file = None
        drain.rules.share(None)
    recorder.forget()
    disinherit()
    file.close()


def adopted() -> bool:
    """Tell whether another process's segment is drained here, and was not inherited."""
    return drain.adopted is not None


def inherit() -> None:
    """Become the writer of the adopted segment, whose process has ended.

    Raises RuntimeError where nothing is adopted.
    """
    with recorder.lock, drain.lock:
        file = drain.adopted
        if file is None:
            raise RuntimeError("no segment is adopted")
        if recorder.file is not None:
            return
        inherit_segment(file)


def await_host(known: int, timeout: float, /) -> int:
    """Wait until another one than ``known`` (OT_HOST_*) is to drain; who that is.  ``known`` without a segment.

    Ends early where ``wake`` is called.
    """

    def asked() -> int:
        file = drain.file
        return known if file is None else file.words[_HOST] & _HALF

    deadline = time.monotonic() + timeout
    ended = waits.ended
    while True:
        host = asked()
        left = deadline - time.monotonic()
        if host != known or drain.file is None or waits.ended != ended or not left > 0:
            return host
        waits.wait(lambda: asked() != known or drain.file is None, min(left, _LOOK))


def ask_host(fd: int, host: int, /) -> None:
    """Say who is to drain the segment in ``fd``, and wake those who wait for it.

    Raises ValueError for a host that there is not, or a file that can not be a segment; OSError.
    """
    if host not in {at.HOST_EMBEDDED, at.HOST_AGENT}:
        raise ValueError("a host is 0, the process itself, or 1, the agent")
    checked = segment_file.SegmentFile(fd)
    place = checked.control
    checked.close()
    if place != CONTROL:
        raise ValueError("damaged: the control page is not where every segment has it")
    os.pwrite(fd, host.to_bytes(8, "little"), _HOST_AT)
    if sys.platform == "linux":
        _wake(fd)


def _wake(fd: int) -> None:
    """Wake who waits natively, in the kernel; who does not hear of it looks by itself after a while."""
    import ctypes
    import mmap

    number = _FUTEX.get(os.uname().machine)
    if number is None:
        return
    try:
        with mmap.mmap(fd, mmap.PAGESIZE * -(-2 * at.PAGE // mmap.PAGESIZE)) as memory:
            word = ctypes.c_uint32.from_buffer(memory, _HOST_AT)
            try:
                libc = ctypes.CDLL(None)
                libc.syscall(number, ctypes.byref(word), _FUTEX_WAKE, (1 << 31) - 1, None, None, 0)
            finally:
                del word
    except (OSError, ValueError, AttributeError):
        return
