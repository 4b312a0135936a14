"""The reader on files that lie: ValueError from the constructor, or results that hold, never a crash or a hang."""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import SpanContext
from segment_image import ARENA_BYTES, CAPACITY, Image, busy

from otel_trading import _layout as at
from otel_trading._backend import core
from otel_trading.segment import messages

if TYPE_CHECKING:
    from otel_trading._native import Reader, SpanState

KINDS = ("foreign: ", "version: ", "truncated: ", "damaged: ")
WORDS = [0, 1, 7, 8, 4095, 4096, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 4096, 2**64 - 1]


@pytest.fixture(scope="module")
def scratch() -> Iterator[int]:
    """Give a file without a name, to be filled again and again."""
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Record a segment with this backend: nested spans, attributes short and long, values, open spans."""
    path = tmp_path_factory.mktemp("recorded") / "recorded.seg"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    core.open(
        fd, b'{"service.name":"hostile"}', 64, 16, 8, 16384, 256, 64, (128, 128, 128, 128, 128, 0xFFFFFFFF, 0xFFFFFFFF)
    )
    try:
        outer, inner = core.Probe("hostile.outer", 0), core.Probe("hostile.inner", 2, 1000, True)
        histogram = core.Histogram("hostile.values")
        for number in range(100):
            with outer.span(number=number, text="x" * 200, short="s", flag=True, rate=0.5, last=[number]) as span:
                span.add_event("event", {"number": number})
                span.add_link(SpanContext(1, 2, is_remote=True))
                span.update_name("named")
                inner.stop(inner.start())
                histogram.record(number)
            core.order_put(f"order-{number}", 1, 2, True, 1, 3, 4, 1.0, 2.0, 0.0, 0.0, "BTCUSDT", 1)
        core.drain()
        left_open = [outer.span(open=True), inner.span()]
        for span in left_open:
            span.begin()
        data = os.pread(fd, os.fstat(fd).st_size, 0)
        for span in left_open:
            span.finish()
    finally:
        core.close()
        os.close(fd)
    return data


def attach(scratch: int, data: bytes | bytearray) -> Reader:
    """Read bytes as a file."""
    os.ftruncate(scratch, 0)
    os.pwrite(scratch, data, 0)
    return core.Reader(scratch)


def check_span(span: SpanState, *, is_open: bool) -> None:
    """Hold a span against what the interface promises of its types and ranges."""
    probe, tier, trace_id, span_id, parent_id, start, end, status, flags, error, tracestate, attributes = span[:12]
    dropped, name, description, events, links, events_dropped, links_dropped = span[12:]
    assert 0 <= probe < at.MAX_PROBES
    assert 0 <= tier < at.TIERS
    assert 0 <= trace_id < 1 << 128
    assert 0 <= span_id < 1 << 64
    assert 0 <= parent_id < 1 << 64
    assert 0 <= start < 1 << 63
    assert 0 <= end < 1 << 63
    assert not is_open or end == 0
    assert 0 <= status <= at.STATUS_ERROR
    assert 0 <= flags < 256
    assert error is None or type(error) is str
    assert tracestate is None or type(tracestate) is str
    assert type(attributes) is dict
    assert len(attributes) <= at.MAX_BLOCKS + at.INLINE_ATTRIBUTES
    for key, value in attributes.items():
        assert type(key) is str
        assert type(value) in {bool, int, float, str, bytes}
        if type(value) is bytes:
            decoded(messages.value, value)
    for text in (name, description):
        assert text is None or type(text) is str
    for message in (*events, *links):
        assert type(message) is bytes
        decoded(messages.event, message)
        decoded(messages.link, message)
    texts = list(attributes) + [v for v in attributes.values() if type(v) in {str, bytes}]
    assert all(len(part) <= at.BLOCK_BYTES for part in (*texts, *events, *links, name or "", description or ""))
    assert len(events) + len(links) <= at.MAX_BLOCKS
    assert all(0 <= count < 1 << 32 for count in (dropped, events_dropped, links_dropped))


def decoded(function: Callable[[bytes], object], message: bytes) -> None:
    """Decode a message, which may be anything."""
    with contextlib.suppress(ValueError):
        function(message)


def exercise(scratch: int, data: bytes | bytearray) -> bool:
    """Call everything there is on a file; tells whether it was taken for a segment."""
    try:
        reader = attach(scratch, data)
    except ValueError as error:
        assert str(error).startswith(KINDS)  # noqa: PT017  what raises it is the point
        return False
    room = at.MAX_RINGS * (len(data) // at.SIZE_SLOT + 1)  # rings may overlap; none has more spans than slots
    try:
        probes = reader.probes()
        assert all(type(name) is type(scope) is str and 0 <= tier < at.TIERS for name, tier, *_, scope in probes)
        while spans := reader.read(100):
            assert len(spans) <= 100
            for span in spans:
                check_span(span, is_open=False)
                assert span[0] < len(probes)
            room -= len(spans)
            assert room >= 0
        for span in reader.open_spans():
            check_span(span, is_open=True)
        orders = reader.orders()
        assert len(orders) <= 1 << 20
        for key, order in orders:
            assert type(key) is str
            assert 0 <= order[0] < 1 << 128
            assert all(0 <= number < 1 << 64 for number in (order[1], order[4], order[5]))
            assert at.ORDER_SENT <= order[3] <= at.ORDER_REJECTED
            assert all(type(number) is float for number in order[6:10])
            assert at.SIDE_NONE <= order[11] <= at.SIDE_SELL
        for number in range(20):
            reader.order(f"order-{number}")
        missed, torn = reader.missed()
        assert missed >= 0
        assert torn >= 0
        accounts = reader.accounts()
        assert len(accounts) == at.TIERS
        assert all(type(count) is int and count >= 0 for account in accounts for count in account.values())
        info = reader.info()
        assert len(info["rings"]) <= at.MAX_RINGS
        assert type(info["resource"]) is str
        assert all(type(info[key]) is int for key in ("pid", "uid", "faults", "switches", "heartbeat_age_ns"))
    finally:
        reader.close()
    return True


def taken(image: Image, scratch: int) -> list[Any]:
    """Give the spans of an image."""
    reader = attach(scratch, image.bytes)
    try:
        return reader.read(1000)
    finally:
        reader.close()


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 10_000, b"{" * 5000, b"\x7fELF" + b"\0" * 5000])
def test_foreign_files(scratch: int, data: bytes) -> None:
    """What does not begin with the magic word is no segment."""
    with pytest.raises(ValueError, match=r"^foreign: "):
        attach(scratch, data)


def test_pipes_and_directories(tmp_path: Path) -> None:
    """What is not a file at all is no segment either, and is not waited for."""
    ends = os.pipe()
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        for fd in (*ends, directory):
            with pytest.raises(ValueError, match=r"^foreign: "):
                core.Reader(fd)
    finally:
        for fd in (*ends, directory):
            os.close(fd)


@pytest.mark.parametrize("version", [1, 2, 7, 2**32 - 1])
def test_other_versions(scratch: int, version: int) -> None:
    """Another format is told by its number, before anything else of it is believed."""
    image = busy()
    image.header(version=version, header_bytes=1)
    with pytest.raises(ValueError, match=f"^version: .*{version}"):
        attach(scratch, image.bytes)


def test_never_published(scratch: int) -> None:
    """A segment whose making was interrupted says so."""
    image = busy()
    image.header(version=0)
    with pytest.raises(ValueError, match=r"^damaged: .*published"):
        attach(scratch, image.bytes)


@pytest.mark.parametrize("keep", [8, 100, at.SIZE_HEADER - 1, at.SIZE_HEADER, at.PAGE, 3 * at.PAGE, -1])
def test_truncated_files(scratch: int, keep: int) -> None:
    """A file that is shorter than its header says is refused, even where only records are missing."""
    with pytest.raises(ValueError, match=r"^truncated: "):
        attach(scratch, busy().bytes[:keep])


@pytest.mark.parametrize(
    "header",
    [
        {"header_bytes": 1},
        {"max_rings": 65},
        {"max_probes": 4097},
        {"max_instruments": 1025},
        {"max_names": 65_536},
        {"resource_bytes": 3073},
        {"max_orders": 1 << 21},
        {"max_orders": 24},
    ],
)
def test_tables_larger_than_the_format_has(scratch: int, header: dict[str, int]) -> None:
    """Counts beyond the format's own are damage."""
    image = Image(**header)
    with pytest.raises(ValueError, match=r"^damaged: "):
        attach(scratch, image.bytes)


@pytest.mark.parametrize("table", ["control", "accounts", "rings", "probes", "instruments", "names", "text", "orders"])
@pytest.mark.parametrize("offset", [0, 8, at.PAGE + 4, 2**40, 2**63, 2**64 - 8])
def test_tables_outside_the_file(scratch: int, table: str, offset: int) -> None:
    """A table that does not lie in the file, or is not aligned, is refused."""
    image = Image(**{f"{table}_offset": offset})
    with pytest.raises(ValueError, match=r"^(truncated|damaged): "):
        attach(scratch, image.bytes)


@pytest.mark.parametrize(
    "ring",
    [
        {"capacity": 0},
        {"capacity": 7},
        {"capacity": 2**31},
        {"open_capacity": 2**32 - 1},
        {"arena_bytes": 0},
        {"arena_bytes": 2**63},
        {"arena_bytes": 100},
        {"slots_offset": 2**64 - 8},
        {"slots_offset": 4},
        {"open_offset": 2**63},
        {"arena_offset": 2**64 - 4096},
    ],
)
def test_a_ring_that_can_not_be_is_passed_over(scratch: int, ring: dict[str, int]) -> None:
    """One damaged ring hides its own records only."""
    image = busy()
    image.ring(0, **ring)
    spans = taken(image, scratch)
    assert len(spans) == CAPACITY - 1
    assert exercise(scratch, image.bytes)


@pytest.mark.parametrize("head", [2**63, 2**64 - 1, 2**64 - CAPACITY])
def test_a_head_from_nowhere(scratch: int, head: int) -> None:
    """A head that no writer reached costs one round of the ring, not 2**64."""
    image = busy()
    image.ring(0, head=head)
    assert exercise(scratch, image.bytes)


def test_counts_beyond_their_tables(scratch: int) -> None:
    """Counts of published entries are believed only up to the tables' sizes."""
    image = busy()
    image.header(ring_count=2**32 - 1, probe_count=2**32 - 1, instrument_count=2**32 - 1, name_count=2**32 - 1)
    assert exercise(scratch, image.bytes)


@pytest.mark.parametrize(("offset", "size"), [(2**32 - 1, 1), (0, 2**32 - 1), (4096, 1), (4000, 97)])
def test_a_name_outside_the_texts_is_other(scratch: int, offset: int, size: int) -> None:
    """An entry of the name table that points elsewhere gives "other", not other bytes of the file."""
    image = Image()
    struct.pack_into("<II", image.bytes, image.name_table + 2 * at.SIZE_NAME, offset, size)
    reader = attach(scratch, image.bytes)
    assert [probe[0] for probe in reader.probes()] == ["other", "second"]
    reader.close()


def test_names_are_no_bomb(scratch: int) -> None:
    """Names that all share the same bytes do not multiply them."""
    image = Image()
    for number in range(2, 64):
        struct.pack_into("<II", image.bytes, image.name_table + number * at.SIZE_NAME, 0, 4096)
    image.header(name_count=64)
    for number in range(8):
        place = image.probes + number * at.SIZE_PROBE
        struct.pack_into(at.FORMAT_PROBE, image.bytes, place, 2 + number, 0, 0, 0, 0, 0, 2 + number, 0)
    image.header(probe_count=8)
    assert exercise(scratch, image.bytes)


def chained(*links: tuple[int, int]) -> Image:
    """Give an image with one span whose arena has 8 blocks; ``links`` sets (block, previous) as they should not be."""
    image = Image()
    key = image.name("key")
    positions = []
    arena = 0
    for number in range(8):
        arena = image.block(key + 1 + number, at.TYPE_INT, struct.pack("<q", number), arena)
        positions.append(arena)
        image.name(f"key{number}")
    for block, previous in links:
        struct.pack_into("<Q", image.bytes, image.block_offset(positions[block] - 1) + 8, positions[previous])
    image.record(extra=1, arena=arena)
    return image


def test_chains_that_go_round(scratch: int) -> None:
    """A chain ends where it does not lead to an older block."""
    assert taken(chained(), scratch)[0][11] == {f"key{n}": n for n in range(8)}
    for links in ([(0, 7)], [(4, 4)], [(3, 5)]):
        image = chained(*links)
        (span,) = taken(image, scratch)
        assert len(span[11]) <= 8
        assert exercise(scratch, image.bytes)


@pytest.mark.parametrize("arena", [2, 9, ARENA_BYTES - 7, 2**63, 2**64 - 1])
def test_chains_from_nowhere(scratch: int, arena: int) -> None:
    """A span whose chain begins where no block is has no attributes from there."""
    image = chained()
    image.record(extra=1, arena=arena)
    assert taken(image, scratch)[1][11] == {}


@pytest.mark.parametrize("length", [at.BLOCK_BYTES + 1, 2**32 - 1, ARENA_BYTES - 16])
def test_a_block_longer_than_a_text_can_be(scratch: int, length: int) -> None:
    """A block's length is believed only within a text's limit and the arena's end."""
    image = Image()
    arena = image.block(image.name("key"), at.TYPE_TEXT, b"text")
    struct.pack_into("<I", image.bytes, image.block_offset(arena - 1) + at.OFF_BLOCK_BYTES, length)
    image.record(extra=1, arena=arena)
    (span,) = taken(image, scratch)
    assert span[11] == {}


def test_blocks_that_lie_in_each_other(scratch: int) -> None:
    """Blocks of one span do not share bytes: a chain of overlapping ones ends, and costs no more than the arena."""
    image = Image()
    key = image.name("key")
    base = image.block_offset(0)
    count = ARENA_BYTES // at.SIZE_BLOCK
    for n in range(count):
        place, length = n * at.SIZE_BLOCK, ARENA_BYTES - (n + 1) * at.SIZE_BLOCK
        previous = place - at.SIZE_BLOCK + 1 if n else 0
        struct.pack_into(
            at.FORMAT_BLOCK, image.bytes, base + place, place, previous, length, n, key, at.TYPE_TEXT, 2, 0
        )
    image.ring(0, arena_head=ARENA_BYTES)
    for n in range(CAPACITY):
        image.record(extra=1, arena=(count - 1 - n) * at.SIZE_BLOCK + 1)
    assert all(sum(map(len, span[15])) <= ARENA_BYTES for span in taken(image, scratch))
    assert exercise(scratch, image.bytes)


@pytest.mark.parametrize("payload", [b"", b"\0", b"\xff\xff\xff\xff", b"\x05\0\0\0key", b"\3\0\0\0key"])
def test_keys_in_blocks_that_do_not_fit(scratch: int, payload: bytes) -> None:
    """A block whose key has no room in it is left out."""
    image = Image()
    image.record(extra=1, arena=image.block(at.NAME_OTHER, at.TYPE_INT, payload))
    (span,) = taken(image, scratch)
    assert span[11] == ({"key": 0} if payload.startswith(b"\3") else {})


@pytest.mark.parametrize(
    "damage", [{"seq": 1}, {"seq": 2**64 - 1}, {"state": 0}, {"state": 7}, {"side": 3}, {"key_bytes": 65}]
)
def test_an_order_that_can_not_be_is_left_out(scratch: int, damage: dict[str, int]) -> None:
    """Entries that no recorder wrote are neither found nor listed, and hide no other one."""
    image = Image()
    image.order("order-1", **damage)
    image.order("order-1", 1, span_id=9)
    reader = attach(scratch, image.bytes)
    state = reader.order("order-1")
    assert state is not None
    assert state[1] == 9
    assert [key for key, _ in reader.orders()] == ["order-1"]
    reader.close()


def test_a_file_that_shrinks_under_the_reader(scratch: int) -> None:
    """Records that are gone are missing; nothing else happens."""
    data = busy().bytes
    for size in (len(data) - 5000, 4 * at.PAGE, at.PAGE, 10, 0):
        reader = attach(scratch, data)
        assert len(reader.read(3)) == 3
        os.ftruncate(scratch, size)
        reader.read(100)
        reader.open_spans()
        reader.probes()
        reader.accounts()
        reader.info()
        reader.close()


MUTATION = st.one_of(
    st.tuples(st.just("byte"), st.floats(0, 1, exclude_max=True), st.integers(0, 255)),
    st.tuples(st.just("word"), st.floats(0, 1, exclude_max=True), st.sampled_from(WORDS) | st.integers(0, 2**64 - 1)),
    st.tuples(
        st.just("half"), st.floats(0, 1, exclude_max=True), st.sampled_from(WORDS[:8]) | st.integers(0, 2**32 - 1)
    ),
    st.tuples(st.just("header"), st.floats(0, 1, exclude_max=True), st.sampled_from(WORDS) | st.integers(0, 8192)),
    st.tuples(st.just("copy"), st.floats(0, 1, exclude_max=True), st.integers(0, 2**20)),
    st.tuples(st.just("truncate"), st.floats(0, 1, exclude_max=True), st.just(0)),
)


def mutate(data: bytearray, kind: str, place: float, value: int) -> None:
    """Do one of the things that a crash, a bad disk or an attacker does to a file."""
    size = len(data)
    if kind == "truncate":
        del data[int(place * size) :]
    elif kind == "byte" and size:
        data[int(place * size)] = value
    elif kind == "half" and size >= 8:
        struct.pack_into("<I", data, int(place * (size // 4 - 1)) * 4, value)
    elif kind == "word" and size >= 8:
        struct.pack_into("<Q", data, int(place * (size // 8)) * 8, value)
    elif kind == "header" and size >= at.SIZE_HEADER:
        struct.pack_into("<Q", data, 8 + int(place * (at.OFF_HEADER_RESOURCE // 8 - 1)) * 8, value)
    elif kind == "copy" and size >= 256:
        source, target = value % (size - 128), int(place * (size - 128))
        data[target : target + 128] = data[source : source + 128]


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(MUTATION, min_size=1, max_size=12))
def test_any_change_of_a_made_up_segment(scratch: int, changes: list[tuple[str, float, int]]) -> None:
    """However a small, dense segment is changed, the reader refuses it or gives what its interface promises."""
    data = bytearray(busy().bytes)
    for change in changes:
        mutate(data, *change)
    exercise(scratch, data)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(MUTATION, max_size=12))
def test_any_change_of_a_recorded_segment(scratch: int, recorded: bytes, changes: list[tuple[str, float, int]]) -> None:
    """The same for a segment that this backend has written."""
    data = bytearray(recorded)
    for change in changes:
        mutate(data, *change)
    assert exercise(scratch, data) or changes


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_slot(scratch: int, data: st.DataObject) -> None:
    """Slots, blocks and ring headers of any content at all are read or left out."""
    image = busy()
    after_seq = 8  # which is right, or nobody would look at the rest of the slot
    open_slot = image.slot_offset(0) + (CAPACITY + 1) * at.SIZE_SLOT
    places = [
        image.slot_offset(5) + after_seq,
        open_slot + after_seq,
        image.block_offset(0),
        image.block_offset(image.arena_heads[0] - 48),
        image.orders + at.SIZE_ORDER * data.draw(st.integers(0, 31)) + after_seq,
        image.rings,
        image.control,
    ]
    base = data.draw(st.sampled_from(places))
    size = data.draw(st.sampled_from([8, 56, 64, 120]))
    image.bytes[base : base + size] = data.draw(st.binary(min_size=size, max_size=size))
    if data.draw(st.booleans()):
        image.bytes[image.slot_offset(5) + at.OFF_SLOT_STATE] = at.SLOT_SPAN
        image.bytes[open_slot + at.OFF_SLOT_STATE] = at.SLOT_OPEN
    exercise(scratch, image.bytes)
