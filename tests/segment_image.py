"""Segments built by hand from the layout's numbers, so that readers are tested without any recorder."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

from otel_trading import _layout as at

CAPACITY = 8
OPEN_CAPACITY = 4
ARENA_BYTES = 4096
MAX_NAMES = 64
MAX_PROBES = 8
MAX_ORDERS = 32
TEXT_BYTES = 4096
START = 1_700_000_000_000_000_000  # Unix ns at which the image's clock shows 0 ticks
NAN = 0x7FF8000000000000  # a double's bits


# An event "e" with an attribute a=1, and a link to span 2 of trace 1
EVENT = b"\x09" + (7).to_bytes(8, "little") + b"\x12\x01e\x1a\x07\x0a\x01a\x12\x02\x18\x01"
LINK = b"\x0a\x10" + (1).to_bytes(16, "big") + b"\x12\x08" + (2).to_bytes(8, "big") + b"\x35\x01\x03\x00\x00"


def _put(image: bytearray, offset: int, code: str, *values: Any) -> None:
    struct.pack_into("<" + code, image, offset, *values)


class Image:
    """A small segment: one ring, two probes (``first``, P0; ``second``, P1, leaf, SLA 5 ms), a clock of 1 ns a tick."""

    def __init__(self, rings: int = 1, **header: int) -> None:
        """Lay it out with ``rings`` rings; ``header`` changes fields of the header (``pid=1``)."""
        self.names = 0
        self.text_used = 0
        self.control, self.accounts, self.policy, self.readings = (at.PAGE * number for number in range(1, 5))
        self.decisions = self.readings + at.PAGE
        self.markets = self.decisions + at.DECISIONS * at.SIZE_DECISION
        self.life = self.markets + at.MARKETS * at.SIZE_MARKET
        self.vitals = self.life + at.PAGE
        self.pulses = self.vitals + at.VITALS * at.SIZE_VITAL
        self.progress = self.pulses + at.PULSES * at.SIZE_PULSE
        self.rings = self.progress + 4 * at.SIZE_PROGRESS
        self.probes = self.rings + 4 * at.SIZE_RING
        self.instruments = self.probes + MAX_PROBES * at.SIZE_PROBE
        self.name_table = self.instruments + 4 * at.SIZE_INSTRUMENT
        self.text = self.name_table + MAX_NAMES * at.SIZE_NAME
        self.orders = self.text + TEXT_BYTES
        self.first_ring = self.orders + MAX_ORDERS * at.SIZE_ORDER
        self.ring_bytes = (CAPACITY + OPEN_CAPACITY) * at.SIZE_SLOT + ARENA_BYTES + at.PAGE  # the last for the marks
        self.bytes = bytearray(self.first_ring + rings * self.ring_bytes)
        self.heads = [0] * rings
        self.arena_heads = [0] * rings
        resource = json.dumps({"service.name": "image"}).encode()
        self.header(
            magic=at.MAGIC,
            version=at.VERSION,
            header_bytes=at.SIZE_HEADER,
            file_bytes=len(self.bytes),
            created_ns=START,
            published_ns=START,
            pid=os.getpid(),
            uid=os.getuid(),
            backend=2,
            control_offset=self.control,
            accounts_offset=self.accounts,
            policy_offset=self.policy,
            readings_offset=self.readings,
            decisions_offset=self.decisions,
            markets_offset=self.markets,
            life_offset=self.life,
            vitals_offset=self.vitals,
            pulses_offset=self.pulses,
            progress_offset=self.progress,
            rings_offset=self.rings,
            probes_offset=self.probes,
            instruments_offset=self.instruments,
            names_offset=self.name_table,
            text_offset=self.text,
            text_bytes=TEXT_BYTES,
            orders_offset=self.orders,
            max_orders=MAX_ORDERS,
            attribute_limit=128,
            event_limit=128,
            link_limit=128,
            max_rings=4,
            max_probes=MAX_PROBES,
            max_instruments=4,
            max_names=MAX_NAMES,
            ring_count=rings,
            resource_bytes=len(resource),
        )
        self.bytes[at.OFF_HEADER_RESOURCE : at.OFF_HEADER_RESOURCE + len(resource)] = resource
        for tier in range(at.TIERS):
            _put(self.bytes, self.control + at.OFF_CONTROL_TIER_WORD + 8 * tier, "Q", at.TIER_ON)
        self.set_control(switches=at.SWITCH_RECORD | at.SWITCH_EXPORT, anchor_unix_ns=START, heartbeat=1)
        _put(self.bytes, self.control + at.OFF_CONTROL_NS_PER_TICK, "d", 1.0)
        for ring in range(rings):
            base = self.first_ring + ring * self.ring_bytes
            self.ring(
                ring,
                slots_offset=base,
                open_offset=base + CAPACITY * at.SIZE_SLOT,
                arena_offset=base + (CAPACITY + OPEN_CAPACITY) * at.SIZE_SLOT,
                marks_offset=base + (CAPACITY + OPEN_CAPACITY) * at.SIZE_SLOT + ARENA_BYTES,
                arena_bytes=ARENA_BYTES,
                capacity=CAPACITY,
                open_capacity=OPEN_CAPACITY,
                thread_id=100 + ring,
                generation=1,
            )
        self.name("")
        self.name("other")
        self.probe(0, "first", 0, 0, 0, 0)
        self.probe(1, "second", 1, 1, 2, 5_000_000)
        self.header(**header)

    def _fields(self, struct_name: str, base: int, values: dict[str, int]) -> None:
        """Write fields by name; how wide each is, is told by where the next one starts."""
        prefix = f"OFF_{struct_name}_"
        offsets = [*sorted(v for k, v in vars(at).items() if k.startswith(prefix)), vars(at)[f"SIZE_{struct_name}"]]
        for name, value in values.items():
            offset = vars(at)[prefix + name.upper()]
            width = min(following for following in offsets if following > offset) - offset
            _put(
                self.bytes, base + offset, {1: "B", 2: "H", 4: "I", 8: "Q"}[min(width, 8)], value
            )  # of an array the first

    def header(self, **values: int) -> None:
        """Set fields of the header."""
        self._fields("HEADER", 0, values)

    def set_control(self, **values: int) -> None:
        """Set fields of the control page."""
        self._fields("CONTROL", self.control, values)

    def ring(self, ring: int, **values: int) -> None:
        """Set fields of a ring's header."""
        self._fields("RING", self.rings + ring * at.SIZE_RING, values)

    def name(self, text: str) -> int:
        """Append to the name table; gives the id."""
        data = text.encode()
        number, self.names = self.names, self.names + 1
        _put(self.bytes, self.name_table + number * at.SIZE_NAME, "II", self.text_used, len(data))
        self.bytes[self.text + self.text_used : self.text + self.text_used + len(data)] = data
        self.text_used += len(data)
        self.header(name_count=self.names, text_used=self.text_used)
        return number

    def probe(self, number: int, name: str, tier: int, leaf: int, kind: int, sla_ns: int, scope: int = 0) -> None:
        """Write a probe; ``scope`` is a name's id."""
        offset = self.probes + number * at.SIZE_PROBE
        _put(self.bytes, offset, at.FORMAT_PROBE[1:], self.name(name), tier, leaf, kind, 0, sla_ns, scope, 0)
        self.header(probe_count=number + 1)

    def slot(self, offset: int, **values: Any) -> None:
        """Write a slot; fields that are not given are 0, arrays are given as sequences."""
        defaults: dict[str, Any] = {"key": (0, 0, 0, 0), "type": (0, 0, 0, 0), "value": (0, 0, 0, 0)}
        given = {**defaults, **values}
        fields = [name for name in vars(at) if name.startswith("OFF_SLOT_")]
        flat: list[Any] = []
        for name in fields:
            value = given.pop(name[len("OFF_SLOT_") :].lower(), 0)
            if name == "OFF_SLOT_TYPE":
                flat.append(bytes(value))
            else:
                flat.extend(value if isinstance(value, tuple) else (value,))
        assert not given, f"no such fields: {given}"
        _put(self.bytes, offset, at.FORMAT_SLOT[1:], *flat)

    def slot_offset(self, n: int, ring: int = 0) -> int:
        """Where record n is."""
        return self.first_ring + ring * self.ring_bytes + n % CAPACITY * at.SIZE_SLOT

    def record(self, ring: int = 0, **values: Any) -> int:
        """Write the next record of a ring; gives its number.  Span id, start and end are made of the number."""
        n = self.heads[ring]
        defaults = {"seq": 2 * n + 2, "trace_hi": 1, "trace_lo": n + 1, "span_id": n + 1, "start": n, "end": n + 10}
        self.slot(self.slot_offset(n, ring), **{**defaults, "state": at.SLOT_SPAN, **values})
        self.heads[ring] = n + 1
        self.ring(ring, head=n + 1)
        return n

    def open_span(self, index: int, ring: int = 0, **values: Any) -> None:
        """Write an entry of a ring's open-span table."""
        offset = self.first_ring + ring * self.ring_bytes + (CAPACITY + index) * at.SIZE_SLOT
        self.slot(offset, **{"seq": 2, "trace_lo": 1, "span_id": 1, "start": 1, "state": at.SLOT_OPEN, **values})

    def block_offset(self, position: int, ring: int = 0) -> int:
        """Where the arena block at a position is."""
        arena = self.first_ring + ring * self.ring_bytes + (CAPACITY + OPEN_CAPACITY) * at.SIZE_SLOT
        return arena + position % ARENA_BYTES

    def block(
        self,
        key: int,
        type: int,  # noqa: A002  the field's name
        payload: bytes,
        previous: int = 0,
        ring: int = 0,
        *,
        kind: int = at.BLOCK_ATTRIBUTE,
        depth: int = 1,
        counts: int = 0,
    ) -> int:
        """Append an arena block; gives its position + 1, as slots and blocks hold it."""
        need = -(-(at.SIZE_BLOCK + len(payload)) // 8) * 8
        position = self.arena_heads[ring]
        if position % ARENA_BYTES + need > ARENA_BYTES:
            position += -position % ARENA_BYTES
        offset = self.block_offset(position, ring)
        _put(self.bytes, offset, at.FORMAT_BLOCK[1:], position, previous, len(payload), depth, key, type, kind, counts)
        self.bytes[offset + at.SIZE_BLOCK : offset + at.SIZE_BLOCK + len(payload)] = payload
        self.arena_heads[ring] = position + need
        self.ring(ring, arena_head=position + need)
        return position + 1

    def order(self, key: str, probe: int = 0, **values: Any) -> int:
        """Write an order, ``probe`` places after its own; gives its place.  Numbers are given as the table has them."""
        data = key.encode()
        place = (fnv(data) + probe) % MAX_ORDERS
        fields: dict[str, Any] = {
            "seq": 2,
            "hash": fnv(data),
            "trace_lo": 1,
            "span_id": 2,
            "sent_ns": START,
            "changed_ns": START + 5,
            "state": at.ORDER_SENT,
            "key_bytes": len(data),
            **values,
        }
        offset = self.orders + place * at.SIZE_ORDER
        self._fields("ORDER", offset, fields)
        self.bytes[offset + at.OFF_ORDER_KEY : offset + at.OFF_ORDER_KEY + len(data)] = data
        return place

    def set_life(self, **values: int) -> None:
        """Set fields of the life page; of arrays the first."""
        self._fields("LIFE", self.life, values)

    def beat(self, number: int, name: int, beat_ns: int, late_ns: int) -> None:
        """Write a loop's last beat; ``name`` is a name's id."""
        _put(self.bytes, self.life + at.OFF_LIFE_BEAT_NAME + 4 * number, "I", name)
        _put(self.bytes, self.life + at.OFF_LIFE_BEAT_NS + 8 * number, "Q", beat_ns)
        _put(self.bytes, self.life + at.OFF_LIFE_BEAT_LATE_NS + 8 * number, "Q", late_ns)
        self.set_life(beat_count=number + 1)

    def vital(self, n: int, key: bytes = b"order-1", **values: int) -> int:
        """Write critical event n, which is then the newest; gives its place in the file."""
        offset = self.vitals + n % at.VITALS * at.SIZE_VITAL
        fields = {
            "seq": 2 * n + 2,
            "unix_ns": START + n,
            "kind": at.VITAL_ORDER,
            "state": at.ORDER_SENT,
            "key_bytes": len(key),
            "market_age_ms": 0xFFFFFFFF,
            "latency": NAN,
            "trace_lo": n,
            **values,
        }
        self._fields("VITAL", offset, fields)
        self.bytes[offset + at.OFF_VITAL_KEY : offset + at.OFF_VITAL_KEY + len(key)] = key
        self.set_life(vital_count=n + 1)
        return offset

    def pulse(self, n: int, **values: int) -> int:
        """Write pulse n, which is then the newest; gives its place in the file."""
        offset = self.pulses + n % at.PULSES * at.SIZE_PULSE
        fields = {"seq": 2 * n + 2, "unix_ns": START + n, "resident": 4096, "process_cpu": NAN, "threads": 1, **values}
        self._fields("PULSE", offset, fields)
        self.set_life(pulse_count=n + 1)
        return offset

    def instrument(self, number: int, name: int, kind: int, **values: int) -> int:
        """Write an instrument; gives its place in the file."""
        offset = self.instruments + number * at.SIZE_INSTRUMENT
        self._fields("INSTRUMENT", offset, {"name": name, "kind": kind, "tier": 1, **values})
        self.header(instrument_count=number + 1)
        return offset

    def market(self, number: int, symbol: int, **values: int) -> int:
        """Write a symbol's market data; gives its place in the file."""
        offset = self.markets + number * at.SIZE_MARKET
        self._fields("MARKET", offset, {"symbol": symbol, "received_ns": START, "price": NAN, **values})
        self.header(market_count=number + 1)
        return offset

    def mark(self, n: int, mark: int, ring: int = 0, lap: int | None = None) -> None:
        """Say what has become of record n."""
        base = self.first_ring + ring * self.ring_bytes + (CAPACITY + OPEN_CAPACITY) * at.SIZE_SLOT + ARENA_BYTES
        right = n // CAPACITY & 31 if lap is None else lap
        self.bytes[base + n % CAPACITY] = mark | right << at.MARK_BITS

    def settled(self, done: int, ring: int = 0, side: int = 0) -> None:
        """Say that all before record ``done`` is settled."""
        offset = self.progress + ring * at.SIZE_PROGRESS
        self._fields("PROGRESS", offset, {"side": side})
        _put(self.bytes, offset + at.OFF_PROGRESS_DONE + 8 * side, "Q", done)


def fnv(data: bytes) -> int:
    """Give the hash by which an order is found: FNV-1a, 64 bit."""
    number = 0xCBF29CE484222325
    for byte in data:
        number = (number ^ byte) * 0x100000001B3 % (1 << 64)
    return number


def busy() -> Image:
    """Give an image that has something of everything: wrapped rings, attributes, arena chains, open spans, a value."""
    image = Image(rings=2)
    symbol, long, text, error, state = (image.name(name) for name in ("symbol", "long", "BTCUSDT", "KeyError", "a=b"))
    for ring in range(2):
        for n in range(CAPACITY + 3):
            arena = image.block(long, at.TYPE_TEXT, b"x" * 100, 0, ring)
            arena = image.block(symbol, at.TYPE_INT, struct.pack("<q", -n), arena, ring, depth=2)
            arena = image.block(0, 0, EVENT, arena, ring, kind=at.BLOCK_EVENT, depth=3, counts=1)
            arena = image.block(0, 0, LINK, arena, ring, kind=at.BLOCK_LINK, depth=4, counts=0x10001)
            arena = image.block(0, 0, b"why", arena, ring, kind=at.BLOCK_STATUS, depth=5, counts=0x10001)
            arena = image.block(0, 0, b"named", arena, ring, kind=at.BLOCK_NAME, depth=6, counts=0x10001)
            other = struct.pack("<I", 3) + b"key" + b"*\x00"
            arena = image.block(at.NAME_OTHER, at.TYPE_MESSAGE, other, arena, ring, depth=7, counts=0x10001)
            image.record(
                ring,
                probe=n % 2,
                tier=n % 2,
                extra=1,
                count=3,
                key=(symbol, long, at.NAME_OTHER, 0),
                type=(at.TYPE_NAME, at.TYPE_NONE, at.TYPE_DOUBLE, 0),
                value=(text, 0, 0x3FF8000000000000, 0),
                error=error,
                tracestate=state,
                arena=arena,
                status=at.STATUS_ERROR,
                flags=at.FLAG_LEAF,
                parent_id=7,
            )
        image.record(ring, state=at.SLOT_VALUE)
        image.open_span(1, ring, probe=1, tier=1)
        image.open_span(
            2, ring, extra=1, count=1, key=(symbol, 0, 0, 0), type=(at.TYPE_BOOL, 0, 0, 0), value=(1, 0, 0, 0)
        )
        image.ring(ring, tail=2, backlog_max=5, values=1)
    for number in range(MAX_ORDERS // 2):
        image.order(f"order-{number}", symbol=text, side=at.SIDE_BUY, state=1 + number % 6)
    for number in range(at.VITALS - 3, at.VITALS + 3):
        image.vital(number, name=text, state=1 + number % 6)
        image.pulse(number)
    image.beat(0, text, 1, 1)
    image.instrument(0, symbol, at.INSTRUMENT_COUNTER, updates=1, sum_int=2)
    image.instrument(1, long, at.INSTRUMENT_GAUGE, updates=1, value=0x3FF8000000000000)
    image.instrument(2, state, at.INSTRUMENT_HISTOGRAM, updates=1)
    image.market(0, text, updates=3, price=0x3FF8000000000000)
    image.set_life(queue=2, ending=at.ENDING_EXCEPTION, ending_code=1, ending_ns=START, ending_name=error)
    return image


def write(path: Path, image: Image) -> Path:
    """Write an image to a file as the recorder would."""
    path.write_bytes(image.bytes)
    path.chmod(0o600)
    return path
