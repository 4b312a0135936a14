"""What to do about a cause, with the figures that were found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_trading import _layout as at
from otel_trading.forensics.how_it_ended import GONE

if TYPE_CHECKING:
    from otel_trading.forensics.causes import Verdict
    from otel_trading.forensics.signs import Signs

_FOR: dict[str, tuple[str, ...]] = {
    "memory_leak": (
        "look for what grows: compare two tracemalloc snapshots a minute apart; caches by symbol or order first",
        "bound every cache, and drop orders that have ended; restart on a schedule until it is found",
    ),
    "oom_kill": (
        "give the control group more memory, or keep what is loaded at once smaller",
        "see who else runs in the same control group: the kernel takes the largest",
    ),
    "cpu_exhaustion": (
        "find the loop with py-spy dump --pid PID while it happens; the open spans below say which stage it is in",
        "take work out of the market data path, or give the process a core of its own",
    ),
    "queue_overflow": (
        "bound the queue, and drop or merge market data when it is full: a newer update of a symbol replaces the older",
        "make the consumer faster, or have several; the slowest spans below say what it waits for",
    ),
    "market_data_disconnect": (
        "reconnect when no message came for a few seconds, with pings on the websocket",
        "cancel what is open when data is older than the strategy can bear",
    ),
    "hang": (
        "see where it stands with py-spy dump --pid PID, or faulthandler.dump_traceback_later in the loop",
        "put a timeout on every call that waits: locks, sockets, futures",
    ),
    "order_reject_storm": (
        "stop sending after a few rejects in a row; see the reject reasons in the order.reject spans",
        "check balance, limits, price and size steps of the venue",
    ),
    "disk_full": (
        "free space, or move logs and data; have them rotated within a limit",
        "watch the disk's free space, and stop trading in time",
    ),
    "uncaught_exception": (
        "the error spans below have its type and message; catch it where the order's state can still be put right",
    ),
    "fault": (
        "run with python -X faulthandler for the stack; look at extensions that were updated lately",
        "keep the core file: ulimit -c unlimited",
    ),
    "killed": (
        "see who did it: the shell's history, the service manager's journal, the container runtime's log",
        "where a supervisor kills what is slow to end, give it more time",
    ),
    "terminated": ("it was asked to end; nothing to do, unless orders were left open",),
    "exit": ("see the program's own log for why it ended with that code",),
    "none": (),
    "unknown": (),
}


def recommend(verdict: Verdict, signs: Signs) -> list[str]:
    """Give what to do, the most useful first."""
    told = list(_FOR.get(verdict.cause, ()))
    if verdict.cause == "exit" and signs.end.orderly:
        told = []
    pid = str(signs.evidence.pid)
    told = [sentence.replace("PID", pid) if signs.evidence.alive else sentence for sentence in told]
    if verdict.cause == "unknown":
        told += _to_know_more(signs)
    opened = sum(order[3] < at.ORDER_FILLED for _, order in signs.evidence.orders)
    if opened and not signs.evidence.alive:
        told.insert(0, f"check the {opened} orders that are still open at the venue, and cancel what should not be")
    if not signs.evidence.pulses and not signs.evidence.alive:
        told.append(
            "nobody looked at the process while it lived (no pulses): it lived for less than a second, or undrained"
        )
    if verdict.cause == "memory_leak" and signs.evidence.memory_limit:
        told.append(f"its control group allows {signs.evidence.memory_limit / 1e6:,.0f} MB")
    return told


def _to_know_more(signs: Signs) -> list[str]:
    """Say what would have told more."""
    told = []
    if signs.end.kind == GONE:
        told.append("run it under the agent (OTEL_TRADING_HOST=agent), which asks the kernel how processes end")
    if not signs.evidence.life.get("beats"):
        told.append("call ot.heartbeat() in the main loop: a hang can be told from a quiet market then")
    if not signs.evidence.life.get("queue"):
        told.append("say with ot.queue(gauge) how long the program's queue is")
    return told
