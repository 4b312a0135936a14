"""The drain's host: its thread, the exporters' side of its queue, and the accounts."""

from __future__ import annotations

import sys
import time
from _thread import RLock

from otel_trading import _layout as at
from otel_trading._pure.batch import Batch
from otel_trading._pure.mapped import CONTROL
from otel_trading._pure.passes import drain
from otel_trading._pure.recorder import recorder
from otel_trading._pure.tables import OWN
from otel_trading._pure.waits import waits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Event, Thread

    from otel_trading._pure.mapped import SegmentFile

_LONGEST_PERIOD = 60_000  # ms
_MOST_KEPT = 1 << 24
_BLOCK_BYTES = 8 << 20
_MODE = (CONTROL + at.OFF_CONTROL_MODE) // 8
_IDLE_FACTOR = 4  # to the drain's period, in EMERGENCY
_LAST_WAIT = 5.0  # seconds for a pass that is going on


class _Host:
    """The thread that makes a pass each period."""

    def __init__(self) -> None:
        self.thread: Thread | None = None
        self.ending: Event | None = None

    def start(self, period_ms: int) -> None:
        from otel_trading._real_threads import real_threading  # only who records needs threads

        threading = real_threading()

        drain.period_ms = period_ms
        if self.thread is None:
            self.ending = ending = threading.Event()
            self.thread = threading.Thread(target=_run, args=(ending,), name="otel-drain", daemon=True)
            self.thread.start()

    def stop(self, timeout: float) -> bool:
        thread, ending = self.thread, self.ending
        if thread is None or ending is None:
            return True
        self.thread = None
        ending.set()
        thread.join(max(0.0, timeout))
        return not thread.is_alive()

    def forked(self) -> None:
        self.thread = self.ending = None


def _run(ending: Event) -> None:
    handled = 0
    while True:
        file = drain.file
        # A quarter of the ring in one period: come sooner.
        busy = file is not None and handled > file.settings.main_slots // 4
        wait_ms = drain.period_ms // 10 + 1 if busy else drain.period_ms
        # In an emergency little is recorded and nothing sent: waking up is most of what a pass costs then.
        if file is not None and not busy and file.words[_MODE] == at.MODE_EMERGENCY:
            wait_ms *= _IDLE_FACTOR
        if ending.wait(wait_ms / 1000):
            return
        try:
            handled = drain.run()
        except Exception:  # noqa: BLE001  a pass that fails must not be the last
            sys.excepthook(*sys.exc_info())


_host = _Host()


def drain_start(period_ms: int, /) -> None:
    """Start the drain's thread.  Raises ValueError for a period that is not 1 to 60000 ms."""
    if not 1 <= period_ms <= _LONGEST_PERIOD:
        raise ValueError("the period is 1 to 60000 ms")
    drain.unasked = False  # who keeps spans has said so by now
    _host.start(period_ms)


def drain_stop(timeout: float, /) -> bool:
    """Stop the thread, after the pass that is going on; False where that takes longer than ``timeout`` seconds."""
    return _host.stop(timeout)


def drain_now(decide: bool = False, /) -> int:  # noqa: FBT001, FBT002  the interface
    """One pass, now, in the calling thread; returns how many records were handled.

    ``decide``: no trace waits for its verdict any longer: what was recorded before the call is in the queue or out.
    """
    drain.unasked = False
    return drain.run(decide)


def keep(capacity: int, block_bytes: int = _BLOCK_BYTES, /) -> None:
    """Keep up to ``capacity`` sampled spans, and so many bytes of what they have in the arena, for ``take``.

    More is refused.  0, the default, keeps none.
    """
    if not 0 <= capacity <= _MOST_KEPT:
        raise ValueError(f"the queue holds at most {_MOST_KEPT} spans")
    if block_bytes < 0:
        raise ValueError("the queue can not hold less than no bytes")
    if not drain.unasked:
        drain.run(True)  # what was recorded so far falls under what was said so far
    with drain.lock:
        drain.unasked = False
        drain.queue.limit = drain.queue.asked = capacity
        drain.queue.most_bytes = block_bytes
        drain.rules.room.restart()


def kept() -> int:
    """Tell how many are waiting."""
    return len(drain.queue.spans)


def take(limit: int, /) -> Batch:
    """Hand over the oldest kept spans; they count as pending until ``settle``."""
    if limit < 0:
        raise ValueError("take() wants a number of spans")
    with drain.lock:
        return Batch(drain.queue.take(limit))


def accounts() -> list[dict[str, int]]:
    """After a pass: one dict a tier with recorded, exported, sampled_out, overwritten, refused, pending."""
    drain.run()
    rows = []
    with drain.lock:
        drain.look()
        if drain.file is not None and not drain.drains:
            _take_in(drain.file)
        for tier in range(at.TIERS):
            refused = drain.refused[tier] + drain.refused_at_the_door[tier]
            row = {
                "recorded": drain.recorded[tier],
                "exported": drain.exported[tier],
                "sampled_out": drain.sampled_out[tier],
                "overwritten": drain.overwritten[tier],
                "refused": refused,
            }
            row["pending"] = max(0, 2 * row["recorded"] - sum(row.values()))
            rows.append(row)
    return rows


def _take_in(file: SegmentFile) -> None:
    """See what has become of the spans, where another process drains."""
    accounts = file.accounts // 8
    for field, counts in (
        (at.OFF_ACCOUNTS_EXPORTED, drain.exported),
        (at.OFF_ACCOUNTS_SAMPLED_OUT, drain.sampled_out),
        (at.OFF_ACCOUNTS_OVERWRITTEN, drain.overwritten),
        (at.OFF_ACCOUNTS_REFUSED, drain.refused),
    ):
        first = accounts + field // 8
        counts[:] = file.words[first : first + at.TIERS].tolist()


# ---- life ----


def open_drain(file: SegmentFile) -> None:
    """Begin to drain a segment that is laid out."""
    with drain.lock:
        drain.use(OWN)
        drain.reset(file.created_ns)
        drain.second = time.perf_counter_ns() // 1_000_000_000
        drain.file = file
        drain.begin_tenure(at.HOST_EMBEDDED)
    drain.calibrate(file)


def close_drain() -> None:
    """Make the last pass, and account for what is left."""
    _host.stop(_LAST_WAIT)
    file = drain.file
    if file is None:
        return
    drain.run(True)
    with drain.lock:
        drain.look()
        if drain.drains:
            drain.refuse(drain.queue.spans)  # lost to the exporters
        else:
            _take_in(file)
        drain.end_tenure()
        drain.last_instruments = instrument_table(file)
        drain.file = None
        drain.rules.share(None)


def forked() -> None:
    """Forget, in a child, what was counted in the parent, and who held the lock there."""
    drain.lock = RLock()
    adopted, drain.adopted = drain.adopted, None
    recorder.adopted_file = None
    if adopted is not None:
        adopted.close()
    drain.file = None
    drain.drains = False
    drain.use(OWN)
    drain.reset(0)
    waits.forked()
    _host.forked()


def instrument_table(file: SegmentFile) -> bytes:
    """Copy the file's table of instruments."""
    return file.map[file.instruments : file.instruments + at.SIZE_INSTRUMENT * at.MAX_INSTRUMENTS]
