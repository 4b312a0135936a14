"""What the governor needs of the keep rules."""

from __future__ import annotations

import math

from otel_trading import _layout as at
from otel_trading._pure.aggregate import table_bytes
from otel_trading._pure.passes import drain
from otel_trading._pure.traces import BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from otel_trading._pure.mapped import SegmentFile

_NS = 1_000_000_000
_KEPT_BYTES = 600  # about what one in the queue takes, without its blocks
_AGGREGATE_BYTES = 16_000  # about what a probe's figures take


def keep_plan(now: float, network: float) -> None:
    """Fill the bucket up, plan the thresholds, and tell what was kept.

    ``now`` is in monotonic seconds, ``network`` in bytes a second.
    """
    rules, now_ns = drain.rules, int(now * _NS)
    with drain.lock:
        network = max(network, 0.0)  # NaN too
        rules.bucket.fill(now_ns, network, rules.burst, rules.normal or network)
        rules.bucket.plan(now_ns)
        rules.room.plan(now_ns, drain.queue)
        if drain.file is not None:
            _tell(drain.file)


def _tell(file: SegmentFile) -> None:
    """Write into the readings how many traces were kept, missed and left out."""
    words, page, rules = file.words, file.readings // 8, drain.rules
    for trigger in range(at.TRIGGERS):
        words[page + at.OFF_READINGS_KEPT // 8 + trigger] = rules.kept[trigger]
        words[page + at.OFF_READINGS_MISSED // 8 + trigger] = rules.missed[trigger]
    words[page + at.OFF_READINGS_DROPPED // 8] = rules.dropped


def keep_readings() -> dict[str, Any]:
    """Tell ``horizon`` (s), ``tokens`` (bytes), ``threshold`` (4), ``kept`` (8), ``missed`` (8), ``dropped``."""
    rules = drain.rules
    with drain.lock:
        times = [drain.cursor(writer).horizon_ns(writer) for writer in drain.writers]
        return {
            "horizon": min([rules.hold_ns, *times]) / _NS,
            "tokens": math.inf if rules.bucket.network == math.inf else float(rules.bucket.tokens),
            "threshold": rules.planned(drain.file, drain.queue),
            "kept": list(rules.kept),
            "missed": list(rules.missed),
            "dropped": rules.dropped,
        }


def heap_bytes() -> int:
    """Tell about how many bytes the drain's tables and queues take."""
    queue = drain.queue
    aggregates = len(drain.probes) + len(drain.instruments)
    tables = len(drain.rules.traces) * BYTES + aggregates * _AGGREGATE_BYTES + table_bytes()
    return tables + len(queue.spans) * _KEPT_BYTES + queue.bytes


def learn(network_bytes: int, estimated_bytes: int) -> None:
    """Correct the estimate of a span's bytes by what an exporter really sent for what had been charged."""
    with drain.lock:
        if drain.rules.active:
            drain.rules.bucket.learn(network_bytes, estimated_bytes)


def keep_shrink(buffers: int) -> int:
    """Have the queue's limit be what was asked for >> ``buffers``; gives how many spans were let go for it."""
    queue = drain.queue
    with drain.lock:
        queue.limit = max(queue.asked >> buffers, 1) if queue.asked else 0
    return let_go(queue.limit)


def let_go(most: int) -> int:
    """Refuse the newest kept spans beyond ``most``; gives how many."""
    with drain.lock:
        return drain.let_go(most)
