"""What keeps a process that makes trouble on purpose from outliving its purpose."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1


def bound(parent: int, seconds: float) -> None:
    """End this process by a signal after ``seconds``, and where the kernel can, at once when its parent ends.

    Call it first of all.  Raises SystemExit where the parent has ended already.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if sys.platform == "linux":
        import ctypes

        # It is the end of the thread that started us that counts: ours are started by main threads.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(0)


def first_to_die() -> None:
    """Have the kernel take this process before any other where memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")


class Commands:
    """Lines that the parent writes to our standard input; its end is ours."""

    def __init__(self) -> None:
        """Read from file descriptor 0, past any buffer of Python's."""
        self._rest = b""
        os.set_blocking(0, False)

    def next(self, seconds: float = 0.0) -> str | None:
        """Give the next line, "" for the end, None where none comes within ``seconds``."""
        while b"\n" not in self._rest:
            if not select.select([0], [], [], seconds)[0]:
                return None
            more = os.read(0, 65_536)
            if not more:
                return ""
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode() or " "
