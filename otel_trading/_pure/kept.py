"""The queue between the drain and the exporters: spans, whole, with copies of their arena blocks."""

from __future__ import annotations

from collections import deque

from otel_trading import _layout as at
from otel_trading._pure.spanstate import EXTRA, FIRST, SECOND, block_of, span_state
from otel_trading._pure.writer import ARENA_HEAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from otel_trading._native import SpanState
    from otel_trading._pure.progress import Progress
    from otel_trading._pure.spanstate import Block
    from otel_trading._pure.writer import Writer

    # of the slot's bytes, the Unix time of tick 0, the arena blocks, newest first, and their bytes; the threshold by
    # which its trace was kept, about how many bytes it is as sent, and what the bucket was charged; its ring's progress
    Kept: TypeAlias = tuple[bytes, int, list[Block], int, int, int, float, Progress]


_LONGEST = 8 << 20  # bytes of one record's blocks
_LAST_TIME = (1 << 63) - 1  # ns since 1970


def share(room: int, tier: int) -> int:
    """Give the part of the queue's room that a tier may fill: P0 all of it, each lower one an eighth less."""
    return max(room - room * tier // 8, 1) if room > 0 else 0


class Queue:
    """Kept spans, oldest first, up to a limit."""

    def __init__(self) -> None:
        self.limit = 0  # 0: nobody takes spans
        self.asked = 0  # the limit as it was set, before memory was short
        self.most_bytes = 0  # of their blocks
        self.bytes = 0
        self.spans: deque[Kept] = deque()

    def put(self, kept: Kept) -> bool:
        """Add one; False where there is no room for its tier.  With the drain's lock held."""
        tier = kept[0][at.OFF_SLOT_TIER] % at.TIERS
        if len(self.spans) >= share(self.limit, tier):
            return False
        if kept[3] and self.bytes + kept[3] > share(self.most_bytes, tier):
            return False
        self.bytes += kept[3]
        self.spans.append(kept)
        return True

    def take(self, count: int) -> list[Kept]:
        """Hand over the oldest.  With the drain's lock held."""
        taken = [self.spans.popleft() for _ in range(min(count, len(self.spans)))]
        self.bytes -= sum(kept[3] for kept in taken)
        return taken

    def clear(self) -> None:
        """Forget them.  With the drain's lock held."""
        self.spans.clear()
        self.bytes = 0

    def take_newest(self, count: int) -> list[Kept]:
        """Hand over the newest.  With the drain's lock held."""
        taken = [self.spans.pop() for _ in range(min(count, len(self.spans)))]
        self.bytes -= sum(kept[3] for kept in taken)
        return taken


def depth_of(writer: Writer, link: int) -> int:
    """Tell how many arena blocks a record has, by the newest; 0 where that is gone."""
    position = link - 1
    place = position & writer.arena_size - 1
    if place + at.SIZE_BLOCK > writer.arena_size:
        return 0
    start = writer.arena + place
    stamp, _, _, block = block_of(writer.piece.map[start : start + at.SIZE_BLOCK])
    return min(block[4], at.MAX_BLOCKS) if stamp == position else 0


def blocks_of(writer: Writer, slot: bytes) -> tuple[list[Block], int, int]:
    """Copy a record's arena blocks, newest first; tell their bytes, and how many are known to be gone."""
    memory, start, size = writer.piece.map, writer.arena, writer.arena_size
    following = int.from_bytes(slot[at.OFF_SLOT_ARENA : at.OFF_SLOT_ARENA + 8], "little")
    blocks: list[Block] = []
    total, gone = 0, int(following != 0)
    while following and len(blocks) < at.MAX_BLOCKS:
        position = following - 1
        place = position & size - 1
        if place + at.SIZE_BLOCK > size:
            break
        header = memory[start + place : start + place + at.SIZE_BLOCK]
        stamp, previous, length, block = block_of(header)
        payload = place + at.SIZE_BLOCK
        whole = at.SIZE_BLOCK + length + 7 & -8
        if (
            stamp != position
            or length > at.BLOCK_BYTES
            or place + whole > size
            or total + whole > _LONGEST
            or previous >= following
        ):
            break
        kind, key, value, _, depth, counts = block
        data = memory[start + payload : start + payload + length]
        if writer.ring[ARENA_HEAD] - position > size:  # overwritten while it was copied
            break
        blocks.append((kind, key, value, data, depth, counts))
        total += whole
        gone = max(1, depth - 1) if previous else 0
        following = previous
    return blocks, total, gone


def unix_times(slot: tuple[int, ...], epoch: int) -> tuple[int, int]:
    """Give start and end of an unpacked first line; ``epoch`` is the Unix time of tick 0."""
    start, end, flags = slot[5], slot[6], slot[10]
    start = start if flags & at.FLAG_START_UNIX else max(0, epoch + start)
    end = end if flags & at.FLAG_END_UNIX else max(0, epoch + end)
    return min(start, _LAST_TIME), min(end, _LAST_TIME)


def place_of(kept: Kept) -> tuple[int, int]:
    """Give a kept span's number in its ring, and its tier."""
    slot = kept[0]
    return int.from_bytes(slot[:8], "little") // 2 - 1, slot[at.OFF_SLOT_TIER] % at.TIERS


def state_of(
    slot: bytes,
    epoch: int,
    blocks: list[Block],
    limits: tuple[int, int, int],
    name: Callable[[int], str],
) -> SpanState:
    """Give a record of this process; of an open entry the end is 0."""
    first = FIRST.unpack_from(slot)
    start, end = unix_times(first, epoch)
    line = SECOND.unpack_from(slot, at.OFF_SLOT_KEY) if first[EXTRA] else None
    return span_state(first, start, end, line, blocks, limits, name)
