"""What is known of a process's life, of any segment: its loops, its end, critical events, pulses."""

from __future__ import annotations

import struct
import time
from math import isfinite

from otel_trading import _layout as at
from otel_trading._pure.segment_file import LAST_TIME, WORD, signed, u32, u64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from otel_trading._pure.segment_file import SegmentFile

_VITAL = struct.Struct("<QQBBBBIIIdddQdQQ40s")  # as their layouts, doubles as such
_PULSE = struct.Struct("<QQQddddQIIIIQQQQQQ")
_PULSE_KEYS = (
    "resident",
    "process_cpu",
    "cpu_load",
    "memory_load",
    "queue",
    "spans",
    "active_orders",
    "market_age_ms",
    "threads",
    "late_beats",
    "orders",
    "rejects",
    "updates",
    "major_faults",
    "swap",
)
_LAST_NAME = 0xFFFFFFFF
_UNKNOWN_AGE = 0xFFFFFFFF
_UNKNOWN = (("resident", 0), ("threads", 0), ("market_age_ms", _UNKNOWN_AGE), ("major_faults", WORD), ("swap", WORD))
_MOST_EVER = 1 << 62  # entries; no number of theirs comes round
_BATCH = 256  # entries fetched at once: 32 KiB
_BOOT_ID = slice(at.OFF_HEADER_BOOT_ID, at.OFF_HEADER_BOOT_ID + 16)


def _known(number: float) -> float | None:
    return number if isfinite(number) else None


def _entries(file: SegmentFile, table: int, count_field: int, limit: int) -> Iterator[bytes]:
    """Give the newest entries of a ring of 1,024, of 128 bytes each, oldest first; torn ones left out."""
    total = file.fetch_word(file.life + count_field) or 0
    if total > _MOST_EVER:
        return
    first = total - max(0, min(limit, total, at.VITALS))
    while first < total:
        place = first % at.VITALS
        count = min(_BATCH, total - first, at.VITALS - place)
        start = table + place * at.SIZE_VITAL
        batch = file.fetch(start, count * at.SIZE_VITAL)
        again = file.fetch(start, count * at.SIZE_VITAL)  # the numbers of those that changed meanwhile are others
        if batch is None or again is None:
            return
        for number in range(count):
            offset = number * at.SIZE_VITAL
            expected = 2 * (first + number) + 2 & WORD
            if u64(batch, offset) == expected == u64(again, offset):
                yield batch[offset : offset + at.SIZE_VITAL]
        first += count


def vitals(file: SegmentFile, limit: int) -> list[dict[str, Any]]:
    """Give the newest critical events, oldest first."""
    events = []
    for data in _entries(file, file.vitals, at.OFF_LIFE_VITAL_COUNT, limit):
        (_, unix_ns, kind, state, size, _, name, orders, age, queue, memory, cpu, resident, latency, high, low, key) = (
            _VITAL.unpack(data)
        )
        if not at.VITAL_ORDER <= kind <= at.VITAL_CRITICAL or state > at.ORDER_REJECTED or size > at.VITAL_KEY_BYTES:
            continue
        if unix_ns > LAST_TIME:
            continue
        events.append(
            {
                "unix_ns": unix_ns,
                "kind": kind,
                "state": state,
                "key": key[:size].decode("utf-8", "replace"),
                "name": file.name(name) if name else "",
                "active_orders": orders,
                "market_age_ms": None if age == _UNKNOWN_AGE else age,
                "queue": _known(queue),
                "memory_load": _known(memory),
                "cpu_load": _known(cpu),
                "latency": _known(latency),
                "resident": resident or None,
                "trace_id": high << 64 | low,
            }
        )
    return events


def pulses(file: SegmentFile, limit: int) -> list[dict[str, Any]]:
    """Give the newest looks at the process, oldest first."""
    looks = []
    for data in _entries(file, file.pulses, at.OFF_LIFE_PULSE_COUNT, limit):
        _, unix_ns, *figures, _ = _PULSE.unpack(data)
        if unix_ns > LAST_TIME:
            continue
        look: dict[str, Any] = {"unix_ns": unix_ns}
        for key, figure in zip(_PULSE_KEYS, figures):  # noqa: B905  fifteen each
            look[key] = _known(figure) if isinstance(figure, float) else figure
        for key, unknown in _UNKNOWN:
            if look[key] == unknown:
                look[key] = None
        looks.append(look)
    return looks


def life(file: SegmentFile) -> dict[str, Any]:
    """Give all that is in the page of the process's life, and who is to drain it."""
    page = file.fetch(file.life, at.SIZE_LIFE) or bytes(at.SIZE_LIFE)
    control = file.fetch(file.control, at.SIZE_CONTROL) or bytes(at.SIZE_CONTROL)
    return {
        "beats": _beats(file, page, control),
        "ending": _ending(file, page),
        "open_orders": u64(page, at.OFF_LIFE_OPEN_ORDERS),
        "queue": _queue(file, u64(page, at.OFF_LIFE_QUEUE)),
        "host": u64(control, at.OFF_CONTROL_HOST),
        "host_now": u64(control, at.OFF_CONTROL_HOST_NOW),
        "drained_by": u64(control, at.OFF_CONTROL_DRAINED_BY),
        "vitals": u64(page, at.OFF_LIFE_VITAL_COUNT),
        "pulses": u64(page, at.OFF_LIFE_PULSE_COUNT),
        "drain_missing": u64(page, at.OFF_LIFE_DRAIN_MISSING) != 0,
    }


def _ending(file: SegmentFile, page: bytes) -> dict[str, Any]:
    kind, name = u64(page, at.OFF_LIFE_ENDING), u64(page, at.OFF_LIFE_ENDING_NAME)
    unix_ns = u64(page, at.OFF_LIFE_ENDING_NS)
    if not at.ENDING_NONE < kind <= at.ENDING_SIGNAL:
        return {"kind": at.ENDING_NONE, "code": 0, "unix_ns": 0, "name": None}
    return {
        "kind": kind,
        "code": signed(u64(page, at.OFF_LIFE_ENDING_CODE)),
        "unix_ns": unix_ns if unix_ns <= LAST_TIME else 0,
        "name": file.name(name) if 0 < name <= _LAST_NAME else None,
    }


def _beats(file: SegmentFile, page: bytes, control: bytes) -> list[dict[str, Any]]:
    beats = []
    count = min(u64(page, at.OFF_LIFE_BEAT_COUNT), at.BEATS)
    moments = [u64(page, at.OFF_LIFE_BEAT_NS + 8 * number) for number in range(count)]
    if file.header[_BOOT_ID] in {_boot_id(), bytes(16)}:
        now = time.monotonic_ns()
    else:  # of another boot, or machine: as old as they were when it was last heard of
        now = max(u64(control, at.OFF_CONTROL_ANCHOR_MONO_NS), *moments, 0)
    anchor = u64(control, at.OFF_CONTROL_ANCHOR_UNIX_NS) - u64(control, at.OFF_CONTROL_ANCHOR_MONO_NS)
    for number, moment in enumerate(moments):
        late_ns = u64(page, at.OFF_LIFE_BEAT_LATE_NS + 8 * number)
        age = max(now - moment, 0) if moment else None
        beats.append(
            {
                "name": file.name(u32(page, at.OFF_LIFE_BEAT_NAME + 4 * number)),
                "unix_ns": min(max(anchor + moment, 0), LAST_TIME) if moment else None,
                "age_ns": age,
                "late_ns": late_ns,
                "late": age is not None and age > late_ns > 0,
            }
        )
    return beats


def _boot_id() -> bytes:
    """Give this boot's id as the header has it; zeros where the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            digits = file.read(64).strip().replace("-", "")
        return int(digits[:16], 16).to_bytes(8, "little") + int(digits[16:32], 16).to_bytes(8, "little")
    except (OSError, ValueError):
        return bytes(16)


def _queue(file: SegmentFile, number: int) -> str | None:
    """Give the name of the gauge that is the queue."""
    if not 0 < number <= file.instrument_count():
        return None
    data = file.fetch(file.instruments + (number - 1) * at.SIZE_INSTRUMENT, at.SIZE_INSTRUMENT)
    if data is None or data[at.OFF_INSTRUMENT_KIND] != at.INSTRUMENT_GAUGE:
        return None
    if data[at.OFF_INSTRUMENT_TIER] >= at.TIERS:
        return None
    return file.name(u32(data, at.OFF_INSTRUMENT_NAME))
