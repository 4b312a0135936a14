"""Read a segment, of any process, dead or alive.

The file is hostile: see segment_file.py for how it is fetched.  What a call may use is bounded by its limit and by
what the file really holds: a ring's slots are visited once, and its arena gives a few times its size.
"""

from __future__ import annotations

import struct
import time

from otel_trading import _layout as at
from otel_trading._pure import life_reader, settled, table_reader
from otel_trading._pure import order_reader as orders
from otel_trading._pure.segment_file import LAST_TIME, WORD, SegmentFile, u32, u64
from otel_trading._pure.spanstate import ARENA, block_of, span_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from otel_trading._native import OrderState, SpanState
    from otel_trading._pure.segment_file import Ring
    from otel_trading._pure.spanstate import Block

_BATCH = 256  # slots fetched at once: 32 KiB
_TRIES = 16
_STATE = 8  # where `state` is in an unpacked slot

_SLOT = struct.Struct(at.FORMAT_SLOT)
_PROBE = struct.Struct(at.FORMAT_PROBE)

_CLOCKS = {at.CLOCK_MONOTONIC_NS: "monotonic", at.CLOCK_TSC: "tsc", at.CLOCK_CNTVCT: "cntvct"}


class Reader:
    """Read another process's (or a dead one's, or this one's) segment; never writes to it.

    The file descriptor is duplicated.  A file that can not be a segment gives ValueError from the constructor, with
    its kind as the first word (``foreign:``, ``version:``, ``truncated:``, ``damaged:``); damage that shows later
    gives missing records.
    """

    def __init__(self, fd: int, /) -> None:
        self._file = SegmentFile(fd)
        header = self._file.header
        fields = (at.OFF_HEADER_ATTRIBUTE_LIMIT, at.OFF_HEADER_EVENT_LIMIT, at.OFF_HEADER_LINK_LIMIT)
        self._limits = (u32(header, fields[0]), u32(header, fields[1]), u32(header, fields[2]))
        self._next = [0] * at.MAX_RINGS  # number of the first record not yet read, a ring
        self._missed = 0
        self._torn = 0

    def close(self) -> None:
        """Let the file go; further calls find nothing."""
        self._file.close()

    # ---- spans ----

    def read(self, limit: int, /) -> list[SpanState]:
        """Span records not yet seen by this reader, at most ``limit``, oldest first a ring.

        Starts with the oldest there is.  Fewer than ``limit`` means that there are no more now.
        """
        self._file.refresh()
        spans: list[SpanState] = []
        for index in range(self._file.ring_count()):
            if len(spans) >= limit:
                break
            ring = self._file.ring(index)
            if ring is not None:
                self._read_ring(index, ring, limit, spans)
        return spans

    def _read_ring(self, index: int, ring: Ring, limit: int, spans: list[SpanState]) -> None:
        oldest = max(ring.head - ring.capacity, 0)
        if ring.resized <= ring.head:  # what is older was left behind
            oldest = max(oldest, ring.resized)
        n = self._next[index]
        if n < oldest:
            self._missed += oldest - n
            n = oldest
        while n < ring.head and len(spans) < limit:
            place = n % ring.capacity
            count = min(_BATCH, ring.head - n, ring.capacity - place, limit - len(spans))
            batch = self._file.fetch(ring.slots + place * at.SIZE_SLOT, count * at.SIZE_SLOT)
            head = self._file.ring_word(index, at.OFF_RING_HEAD)
            if batch is None or head is None:
                break
            if self._file.ring_word(index, at.OFF_RING_RESIZED) != ring.resized:
                break  # the records have other places now: the next call finds them
            for number, slot in enumerate(_SLOT.iter_unpack(batch), n):
                if self._whole(ring, number, slot[0], head):
                    span = self._span(index, ring, slot)
                    if span is not None:
                        spans.append(span)
            n += count
        self._next[index] = n

    def _whole(self, ring: Ring, n: int, seq: int, head: int) -> bool:
        """Tell whether the copy of record n is whole; ``head`` is the ring's, loaded after the copy was made."""
        # The writer starts on the slot again when its head is one whole ring further.
        reached = head >= n + ring.capacity
        expected = (2 * n + 2) & WORD
        if seq != expected:
            if reached:
                self._missed += 1
            else:
                self._torn += 1
            return False
        if reached and self._file.fetch_word(ring.slots + n % ring.capacity * at.SIZE_SLOT) != expected:
            self._missed += 1
            return False
        return True

    def missed(self) -> tuple[int, int]:
        """(records overwritten before this reader came to them, records seen torn and left out).

        Damaged ones count as torn.
        """
        return self._missed, self._torn

    def open_spans(self) -> list[SpanState]:
        """Spans that have begun and not ended; their end is 0."""
        self._file.refresh()
        spans: list[SpanState] = []
        for index in range(self._file.ring_count()):
            ring = self._file.ring(index)
            if ring is not None:
                self._read_open(index, ring, ring.open, ring.open_capacity, spans)
        header = self._file.header
        for number in range(min(u32(header, at.OFF_HEADER_EXTENT_COUNT), at.MAX_EXTENTS)):
            index = header[at.OFF_HEADER_EXTENT_RING + number]
            ring = self._file.ring(index) if index < self._file.ring_count() else None
            if ring is not None:
                table = u64(header, at.OFF_HEADER_EXTENT_OFFSET + 8 * number)
                self._read_open(index, ring, table, at.EXTENT_ENTRIES, spans)
        return spans

    def _read_open(self, index: int, ring: Ring, table: int, capacity: int, spans: list[SpanState]) -> None:
        """Add the open spans of a table, or of a piece of one, that belongs to a ring."""
        for first in range(0, capacity, _BATCH):
            count = min(_BATCH, capacity - first)
            batch = self._file.fetch(table + first * at.SIZE_SLOT, count * at.SIZE_SLOT)
            if batch is None:
                break
            for number, slot in enumerate(_SLOT.iter_unpack(batch), first):
                if slot[_STATE] != at.SLOT_OPEN:
                    continue
                settled = self._settled(table + number * at.SIZE_SLOT)
                span = None if settled is None else self._span(index, ring, settled)
                if span is not None:
                    spans.append(span)

    def _settled(self, offset: int) -> tuple[Any, ...] | None:
        """Copy an open entry that may be changing; None where it is not open any more, or never stands still."""
        before = self._file.fetch(offset, at.SIZE_SLOT)
        for _ in range(_TRIES):
            again = self._file.fetch(offset, at.SIZE_SLOT)
            if before is None or again is None:
                return None
            slot = _SLOT.unpack(again)
            if slot[_STATE] != at.SLOT_OPEN:
                return None
            if again == before and not slot[0] % 2:
                return slot
            before = again
        return None

    def _span(self, index: int, ring: Ring, slot: tuple[Any, ...]) -> SpanState | None:
        """Make a record or an open entry readable; None for one that is no span, or can not be right."""
        first = slot[:14]
        start, end, probe, state, status, flags, count, extra, tier = first[5:]
        if state == at.SLOT_VALUE:
            return None
        if (
            state not in {at.SLOT_SPAN, at.SLOT_OPEN}
            or not self._file.has_probe(probe)
            or status > at.STATUS_ERROR
            or count > at.INLINE_ATTRIBUTES
            or tier >= at.TIERS
        ):
            self._torn += 1
            return None
        line, blocks = None, []
        if extra & at.EXTRA_LINE:
            line = (*slot[14:18], *slot[18], *slot[19:])
            blocks = self._blocks(index, ring, line[ARENA]) if line[ARENA] else []
        return span_state(
            first,
            self._time(start, flags & at.FLAG_START_UNIX),
            0 if state == at.SLOT_OPEN else self._time(end, flags & at.FLAG_END_UNIX),
            line,
            blocks,
            self._limits,
            self._file.name,
        )

    def _time(self, time: int, is_unix: int) -> int:
        if is_unix:
            return time if time <= LAST_TIME else 0
        return self._file.unix_ns(time)

    def _blocks(self, index: int, ring: Ring, newest: int) -> list[Block]:
        """Follow a span's arena blocks, newest first."""
        blocks: list[Block] = []
        positions: list[int] = []
        link = newest
        while link and len(blocks) < at.MAX_BLOCKS:
            position = link - 1
            offset = position % ring.arena_bytes
            if position % 8 or offset + at.SIZE_BLOCK > ring.arena_bytes:
                break
            header = self._file.fetch(ring.arena + offset, at.SIZE_BLOCK)
            if header is None:
                break
            stamp, previous, length, block = block_of(header)
            whole = at.SIZE_BLOCK + length + 7 & -8
            if (
                stamp != position
                or previous >= link
                or length > at.BLOCK_BYTES
                or offset + whole > ring.arena_bytes
                or whole > ring.room
                or (positions and position + whole > positions[-1])
            ):
                break
            payload = self._file.fetch(ring.arena + offset + at.SIZE_BLOCK, length)
            if payload is None:
                break
            ring.room -= whole
            positions.append(position)
            blocks.append((*block[:3], payload, *block[4:]))
            link = previous
        # The writer moves its head before it writes, so this tells which of the copies it may have disturbed.
        head = self._file.ring_word(index, at.OFF_RING_ARENA_HEAD)
        good = 0
        while head is not None and good < len(positions) and 0 <= head - positions[good] <= ring.arena_bytes:
            good += 1
        return blocks[:good]

    # ---- tables ----

    def probes(self) -> list[tuple[str, int, int, bool, int, str]]:
        """(name, tier, sla_ns, leaf, kind, scope), by probe id."""
        self._file.refresh()
        count = self._file.probe_count()
        table = self._file.fetch(self._file.probe_table, count * at.SIZE_PROBE) or b""
        return [
            (self._file.name(name), tier % at.TIERS, sla_ns, leaf != 0, kind, self._file.name(scope) if scope else "")
            for name, tier, leaf, kind, _, sla_ns, scope, _ in _PROBE.iter_unpack(table)
        ]

    def order(self, key: str, /) -> OrderState | None:
        """Give what is known of an order."""
        self._file.refresh()
        return orders.find(self._file, key)

    def orders(self) -> list[tuple[str, OrderState]]:
        """Give all orders of the table."""
        self._file.refresh()
        return orders.every(self._file)

    def accounts(self) -> list[dict[str, int]]:
        """One dict a tier with recorded, exported, sampled_out, overwritten, refused, pending.

        What the drain had not come to when it was last seen is pending.
        """
        self._file.refresh()
        # Before the rings' counts, which only grow: so that pending is never negative.
        page = self._file.fetch(self._file.accounts, at.SIZE_ACCOUNTS) or bytes(at.SIZE_ACCOUNTS)
        rings = [ring for ring in map(self._file.ring, range(self._file.ring_count())) if ring is not None]
        accounts = []
        for tier in range(at.TIERS):
            account = {
                "recorded": 0,
                "exported": u64(page, at.OFF_ACCOUNTS_EXPORTED + 8 * tier),
                "sampled_out": u64(page, at.OFF_ACCOUNTS_SAMPLED_OUT + 8 * tier),
                "overwritten": u64(page, at.OFF_ACCOUNTS_OVERWRITTEN + 8 * tier),
                "refused": u64(page, at.OFF_ACCOUNTS_REFUSED + 8 * tier),
            }
            at_the_door = u64(self._file.header, at.OFF_HEADER_SPANS_REFUSED + 8 * tier)
            account["refused"] += at_the_door
            settled = sum(account.values())
            recorded = sum(u64(ring.header, at.OFF_RING_RECORDED + 8 * tier) for ring in rings) + at_the_door
            account["recorded"] = max(recorded, settled)
            account["pending"] = account["recorded"] - settled
            accounts.append(account)
        return accounts

    def settled(self) -> bool:
        """Whether every span that has ended is settled: nothing is left for a drain to decide or to send."""
        self._file.refresh()
        return settled.rings(self._file) and (
            not settled.drained(self._file) or not any(account["pending"] for account in self.accounts())
        )

    def life(self) -> dict[str, Any]:
        """What the process tells of its life; the keys are in ``_native.pyi``."""
        self._file.refresh()
        return life_reader.life(self._file)

    def vitals(self, limit: int = at.VITALS, /) -> list[dict[str, Any]]:
        """Give the newest critical events, oldest first."""
        self._file.refresh()
        return life_reader.vitals(self._file, limit)

    def pulses(self, limit: int = at.PULSES, /) -> list[dict[str, Any]]:
        """Give the newest looks at the process, oldest first."""
        self._file.refresh()
        return life_reader.pulses(self._file, limit)

    def instruments(self) -> list[dict[str, Any]]:
        """Give counters, gauges and histograms, by id."""
        self._file.refresh()
        return table_reader.instruments(self._file)

    def markets(self) -> list[dict[str, Any]]:
        """Give the market data of each symbol."""
        self._file.refresh()
        return table_reader.markets(self._file)

    def info(self) -> dict[str, Any]:
        """What the segment says of itself; the keys are in ``_native.pyi``.  An unknown heartbeat's age is -1."""
        self._file.refresh()
        header = self._file.header
        control = self._file.fetch(self._file.control, at.SIZE_CONTROL) or bytes(at.SIZE_CONTROL)
        heartbeat = u64(control, at.OFF_CONTROL_HEARTBEAT)
        boot_id = at.OFF_HEADER_BOOT_ID
        resource = header[at.OFF_HEADER_RESOURCE :][: u32(header, at.OFF_HEADER_RESOURCE_BYTES)]
        return {
            "pid": u32(header, at.OFF_HEADER_PID),
            "uid": u32(header, at.OFF_HEADER_UID),
            "version": u32(header, at.OFF_HEADER_VERSION),
            "backend": "native" if u32(header, at.OFF_HEADER_BACKEND) == 1 else "pure",
            "clock": _CLOCKS.get(u32(header, at.OFF_HEADER_CLOCK), "unknown"),
            "created_ns": u64(header, at.OFF_HEADER_CREATED_NS),
            "process_start": u64(header, at.OFF_HEADER_PROCESS_START),
            "boot_id": f"{u64(header, boot_id):016x}{u64(header, boot_id + 8):016x}",
            "closed": u32(header, at.OFF_HEADER_CLOSED) != 0,
            "resource": resource.decode("utf-8", "replace"),
            "rings": [
                ring.state() for ring in map(self._file.ring, range(self._file.ring_count())) if ring is not None
            ],
            "switches": u64(control, at.OFF_CONTROL_SWITCHES),
            "threshold": u64(control, at.OFF_CONTROL_THRESHOLD),
            "tier_words": tuple(u64(control, at.OFF_CONTROL_TIER_WORD + 8 * tier) for tier in range(at.TIERS)),
            # by the wall clock: this process need not have the clock that the ticks come from
            "heartbeat_age_ns": max(time.time_ns() - self._file.unix_ns(heartbeat), 0) if heartbeat else -1,
            "faults": u64(header, at.OFF_HEADER_FAULTS),
            "names_refused": u64(header, at.OFF_HEADER_NAMES_REFUSED),
        }
