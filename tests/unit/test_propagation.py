"""Trace context in headers and buffers, and across threads: what is written, what is read, and what is refused."""

from __future__ import annotations

import operator
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import otel_trading as ot
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conftest import Recorder

REMOTE_PARENT, UNSAMPLED = 1, 2

TRACE = 0x4BF92F3577B34DA6A3CE929D0E0E4736
SPAN = 0x00F067AA0BA902B7
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

PROBE = ot.probe("propagation.probe")
OUTER = ot.probe("propagation.outer")


# ---- inject ---------------------------------------------------------------------------------------


def test_inject(recorder: Recorder) -> None:
    """The current span's ids and flags are written, and the carrier is given back."""
    carrier: dict[str, str] = {"other": "kept"}
    with PROBE as span:
        assert ot.inject(carrier) is carrier
    assert carrier == {"other": "kept", "traceparent": f"00-{span.trace_id:032x}-{span.span_id:016x}-03"}
    assert recorder.faults == 0


def test_inject_without_a_span(recorder: Recorder) -> None:
    """Nothing is written where no span is current."""
    assert ot.inject({}) == {}
    assert recorder.faults == 0


def test_inject_of_an_unsampled_trace(recorder: Recorder) -> None:
    """The sampled flag follows the trace."""
    with ot.extract({"traceparent": PARENT[:-1] + "0"}), PROBE as span:
        assert ot.inject({}) == {"traceparent": f"00-{TRACE:032x}-{span.span_id:016x}-00"}
    assert recorder.only("propagation.probe").flags & UNSAMPLED


def test_inject_passes_a_remote_parent_on(recorder: Recorder) -> None:
    """Directly inside an extracted parent, that parent is what is current."""
    with ot.extract({"traceparent": PARENT, "tracestate": "a=1"}):
        assert ot.current_trace_id() == f"{TRACE:032x}"
        assert ot.inject({}) == {"traceparent": PARENT, "tracestate": "a=1"}
    assert ot.current_trace_id() is None
    assert recorder.records() == []


def test_inject_into_what_cannot_be_written(recorder: Recorder) -> None:
    """A carrier that refuses is a fault, and nothing raises."""
    carrier: Any = MappingProxyType({})
    with PROBE:
        assert ot.inject(carrier) is carrier
        assert ot.inject(None) is None  # type: ignore[type-var]
    recorder.faults_expected = 2


def test_round_trip(recorder: Recorder) -> None:
    """What one process injects makes another's span a child in the same trace."""
    with OUTER as outer:
        carrier = ot.inject({})
    with ot.extract(carrier), PROBE:
        pass
    record = recorder.records()[-1]
    assert (record.trace_id, record.parent_id) == (outer.trace_id, outer.span_id)
    assert record.flags & REMOTE_PARENT


# ---- extract --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "carrier",
    [
        {"traceparent": PARENT},
        {"Traceparent": PARENT},
        {"TRACEPARENT": PARENT},
        {"traceparent": PARENT.encode()},
        {b"traceparent": PARENT.encode()},
        {b"TraceParent": PARENT.encode()},
        {"traceparent": bytearray(PARENT.encode())},
        {"traceparent": f" \t{PARENT} "},
        {"traceparent": "cc" + PARENT[2:]},
        {"traceparent": "cc" + PARENT[2:] + "-what-the-future-will-be-like"},
        {"traceparent": "01" + PARENT[2:-2] + "09"},
        {1: 2, None: 3, "traceparent": PARENT},
    ],
    ids=repr,
)
def test_extract(recorder: Recorder, carrier: Mapping[Any, Any]) -> None:
    """Headers of any case, as text or bytes, of this version and later ones, are a parent."""
    parent = ot.extract(carrier)
    assert (parent.trace_id, parent.span_id, parent.sampled) == (TRACE, SPAN, True)
    assert not parent.recording
    assert recorder.faults == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        PARENT[:-1],
        PARENT + "0",
        PARENT + "-more",
        "ff" + PARENT[2:],
        "0" + PARENT,
        PARENT.upper(),
        PARENT.replace("-", "_"),
        PARENT.replace("4bf9", "4BF9"),
        PARENT.replace("4bf9", "4bg9"),
        PARENT.replace("4bf9", "+bf9"),
        PARENT.replace("4bf9", "4b_9"),
        PARENT.replace("4bf9", " bf9"),
        PARENT.replace("4bf9", "٤bf9"),
        "00-" + "0" * 32 + "-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01",
        PARENT[:-2] + "0x",
        "01" + PARENT[2:] + "x",
        "01" + PARENT[2:] + "0",
        PARENT + "\n",
        "\0" * 55,
    ],
)
def test_extract_refuses(recorder: Recorder, text: str) -> None:
    """What is not a valid traceparent is no parent, as text or as bytes."""
    for value in (text, text.encode()):
        parent = ot.extract({"traceparent": value, "tracestate": "a=1"})
        assert (parent.trace_id, parent.span_id, parent.tracestate) == (0, 0, None)
    assert recorder.faults == 0


@pytest.mark.parametrize("value", [None, 5, [PARENT], b"\xff" * 55, object()])
def test_extract_of_values_that_are_no_text(recorder: Recorder, value: object) -> None:
    """Values of other types are no parent."""
    assert ot.extract({"traceparent": value}).trace_id == 0
    assert recorder.faults == 0


@pytest.mark.parametrize("carrier", [None, 5, [("traceparent", PARENT)]], ids=repr)
def test_extract_of_what_is_no_mapping(recorder: Recorder, carrier: Any) -> None:
    """A carrier that is no mapping is a fault, and nothing raises."""
    assert ot.extract(carrier).trace_id == 0
    recorder.faults_expected = 1


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True), ("ff", True)])
def test_extract_flags(flags: str, sampled: bool) -> None:  # noqa: FBT001
    """Only the lowest flag says whether the trace is sampled, and the next whether its id is random."""
    parent = ot.extract({"traceparent": PARENT[:-2] + flags})
    assert (parent.sampled, parent.random) == (sampled, bool(int(flags, 16) & 2))


@pytest.mark.parametrize("flags", ["00", "01", "02", "03"])
def test_flags_are_passed_on(recorder: Recorder, flags: str) -> None:
    """A child's context has the flags that came, and so has its child's."""
    with ot.extract({"traceparent": PARENT[:-2] + flags}), OUTER, PROBE:
        assert ot.inject({})["traceparent"][-2:] == flags
    assert recorder.faults == 0


def test_extracted_parent_in_all_forms(recorder: Recorder) -> None:
    """A remote parent works around a block, as the parent of a span, and of a flat pair."""
    parent = ot.extract({"traceparent": PARENT, "tracestate": "vendor=value"})
    with parent:
        with PROBE as span:
            assert span.tracestate == "vendor=value"
        assert core.current() is parent
    with OUTER, PROBE.span(parent, symbol="BTCUSDT"):
        pass
    PROBE.stop(PROBE.start(parent))
    records = recorder.named("propagation.probe")
    assert [(r.trace_id, r.parent_id, r.tracestate) for r in records] == [(TRACE, SPAN, "vendor=value")] * 3
    assert all(record.flags & REMOTE_PARENT for record in records)


def test_only_direct_children_have_a_remote_parent(recorder: Recorder) -> None:
    """The remote flag is on spans whose own parent is in another process."""
    with ot.extract({"traceparent": PARENT, "tracestate": "a=1"}), OUTER, PROBE:
        pass
    child, parent = recorder.records()
    assert (child.flags & REMOTE_PARENT, parent.flags & REMOTE_PARENT) == (0, REMOTE_PARENT)
    assert child.tracestate == parent.tracestate == "a=1"


def test_nothing_extracted_is_inert(recorder: Recorder) -> None:
    """Without a parent the result changes nothing: not what is current, and not whose child a span is."""
    nothing = ot.extract({})
    assert (nothing.trace_id, nothing.span_id, nothing.sampled, nothing.tracestate) == (0, 0, False, None)
    with nothing, nothing:
        assert core.current() is None
        with PROBE:
            pass
    assert recorder.only("propagation.probe").parent_id == 0
    with OUTER as outer:
        with nothing:
            assert core.current() is outer
            with PROBE.span(nothing):
                pass
        PROBE.stop(PROBE.start(nothing))
        nothing.set_attribute("a", 1)
    children = recorder.named("propagation.probe")
    assert [child.parent_id for child in children] == [outer.span_id] * 2
    assert recorder.faults == 0


def test_remote_parent_can_be_used_again(recorder: Recorder) -> None:
    """One extracted parent may be entered many times."""
    parent = ot.extract({"traceparent": PARENT})
    for _ in range(3):
        with parent, PROBE:
            pass
    assert [record.parent_id for record in recorder.named("propagation.probe")] == [SPAN] * 3


# ---- tracestate -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a=1",
        "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
        "tenant@system=value with blanks inside",
        "a=1 , b=2,\tc=3",
        "a=1,,b=2",
        "0digit=1",
        "a_-*/z=!\"#$%&'()*+-./:;<>?@[]^_`{|}~",
        ",".join(f"k{i}=v" for i in range(32)),
        "a=" + "v" * 256,
        "k" * 256 + "=v",
    ],
)
def test_tracestate_is_kept_verbatim(recorder: Recorder, text: str) -> None:
    """A valid tracestate goes through unchanged."""
    with ot.extract({"traceparent": PARENT, "TraceState": text}), PROBE:
        assert ot.inject({})["tracestate"] == text
    assert recorder.only("propagation.probe").tracestate == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "a",
        "=1",
        "a=",
        "A=1",
        "a=1=2",
        "a b=1",
        "é=1",
        "a=é",
        "a=1\r\nSet-Cookie: x",
        "a=\x7f",
        ",".join(f"k{i}=v" for i in range(33)),
        "a=" + "v" * 257,
        "k" * 257 + "=v",
        ",".join(f"k{i}={'v' * 200}" for i in range(3)),
    ],
)
def test_wrong_tracestate_is_dropped_and_the_parent_kept(recorder: Recorder, text: str) -> None:
    """A tracestate with any mistake, or too long, is dropped whole; the parent holds."""
    parent = ot.extract({"traceparent": PARENT, "tracestate": text})
    assert (parent.trace_id, parent.tracestate) == (TRACE, None)
    assert recorder.faults == 0


@given(st.binary(max_size=80) | st.text(max_size=80), st.binary(max_size=600) | st.text(max_size=600))
def test_any_headers_are_survived(parent: str | bytes, state: str | bytes) -> None:
    """Whatever the headers hold, nothing raises, and what is kept is a valid header."""
    extracted = ot.extract({"traceparent": parent, "tracestate": state})
    assert (extracted.trace_id == 0) == (extracted.span_id == 0)
    kept = ot.extract({"traceparent": PARENT, "tracestate": state}).tracestate
    assert kept is None or (kept.isascii() and len(kept) <= 512 and "\n" not in kept and "\r" not in kept)


# ---- buffers --------------------------------------------------------------------------------------

PACKED = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b701")
NOTHING = bytes(25)


def test_inject_into_a_buffer(recorder: Recorder) -> None:
    """Trace id, span id and flags, big-endian, at the buffer's start; the rest stays."""
    buffer = bytearray(b"\xaa" * 30)
    with ot.extract({"traceparent": PARENT}):
        assert ot.inject(buffer) is buffer
    assert bytes(buffer) == PACKED + b"\xaa" * 5
    with PROBE as span:
        ot.inject(buffer)
    assert bytes(buffer[:25]) == span.trace_id.to_bytes(16, "big") + span.span_id.to_bytes(8, "big") + b"\x03"
    assert recorder.faults == 0


def test_inject_into_a_buffer_without_a_span(recorder: Recorder) -> None:
    """A buffer that is used again does not keep the context of what was in it before."""
    buffer = bytearray(PACKED + b"rest")
    ot.inject(buffer)
    assert bytes(buffer) == NOTHING + b"rest"
    assert recorder.faults == 0


def test_inject_into_a_part_of_a_buffer(recorder: Recorder) -> None:
    """A memoryview says where the context goes, whatever its items are."""
    buffer = bytearray(64)
    words = memoryview(buffer).cast("Q")
    with ot.extract(PACKED):
        ot.inject(words[2:])
    assert bytes(buffer[16:41]) == PACKED
    assert not any(buffer[:16])
    assert not any(buffer[41:])
    assert recorder.faults == 0


@pytest.mark.parametrize(
    "buffer",
    [bytearray(24), bytearray(), memoryview(bytes(30)), memoryview(bytearray(60))[::2]],
    ids=["short", "empty", "read-only", "with gaps"],
)
def test_inject_into_a_buffer_that_can_not_take_it(recorder: Recorder, buffer: bytearray | memoryview) -> None:
    """One that is short, read-only or in pieces stays as it is, and counts as a fault."""
    before = bytes(buffer)
    with PROBE:
        assert ot.inject(buffer) is buffer
    assert bytes(buffer) == before
    recorder.faults_expected = 1


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: memoryview(data + b"more")])
def test_extract_from_a_buffer(recorder: Recorder, kind: Any) -> None:
    """Every kind of buffer, of 25 bytes or more, gives the parent at its start."""
    parent = ot.extract(kind(PACKED))
    assert (parent.trace_id, parent.span_id, parent.sampled, parent.random) == (TRACE, SPAN, True, False)
    with parent, PROBE:
        pass
    record = recorder.only("propagation.probe")
    assert (record.trace_id, record.parent_id) == (TRACE, SPAN)
    assert record.flags & REMOTE_PARENT


@pytest.mark.parametrize(
    "buffer", [b"", PACKED[:24], NOTHING, NOTHING[:16] + PACKED[16:], PACKED[:16] + NOTHING[16:24] + b"\x01"]
)
def test_a_buffer_without_a_context(recorder: Recorder, buffer: bytes) -> None:
    """Short ones and zero ids are nobody's parent."""
    with ot.extract(buffer), PROBE:
        pass
    assert recorder.only("propagation.probe").parent_id == 0
    assert recorder.faults == 0


def test_a_released_buffer(recorder: Recorder) -> None:
    """It counts as a fault, and nothing raises."""
    view = memoryview(bytearray(30))
    view.release()
    assert ot.extract(view).trace_id == 0
    with PROBE:
        ot.inject(view)
    recorder.faults_expected = 2


@given(st.binary(max_size=40))
def test_any_buffer_is_survived(data: bytes) -> None:
    """A buffer is a parent if it is long enough and both ids are there, and then it is passed on as it came."""
    parent = ot.extract(data)
    valid = len(data) >= 25 and any(data[:16]) and any(data[16:24])
    assert (parent.trace_id != 0) == (parent.span_id != 0) == valid
    again = bytearray(25)
    with parent:
        ot.inject(again)
    assert bytes(again) == (data[:24] + bytes([data[24] & 3]) if valid else NOTHING)


@given(
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 3),
    st.sampled_from(["headers", "bytes headers", "buffer"]),
)
def test_every_context_comes_back(trace_id: int, span_id: int, flags: int, form: str) -> None:
    """What is injected is what is extracted, in every form."""
    carrier: Any = bytearray(25) if form == "buffer" else {}
    with core.remote(trace_id, span_id, bool(flags & 1), None, bool(flags & 2)):
        ot.inject(carrier)
    if form == "bytes headers":
        carrier = {key.encode(): value.encode() for key, value in carrier.items()}
    parent = ot.extract(carrier)
    assert (parent.trace_id, parent.span_id, parent.sampled | parent.random << 1) == (trace_id, span_id, flags)


# ---- threads and executors ------------------------------------------------------------------------


def traced(label: str) -> tuple[str | None, str]:
    """Be a span; gives the trace that was current."""
    current = ot.current_trace_id()
    with PROBE.span(label=label):
        return current, label


def test_carry_to_a_thread(recorder: Recorder) -> None:
    """A thread that begins without a span has the caller's."""
    with OUTER as outer:
        threads = [threading.Thread(target=target, args=("x",)) for target in (ot.carry(traced), traced)]
        for thread in threads:
            thread.start()
            thread.join()
    carried, plain = recorder.named("propagation.probe")
    assert (carried.trace_id, carried.parent_id) == (outer.trace_id, outer.span_id)
    assert plain.trace_id != outer.trace_id
    assert not carried.flags & REMOTE_PARENT


def test_carry_is_of_the_time_of_the_call(recorder: Recorder) -> None:
    """What was current when ``carry`` was called counts, not what is when the function is; arguments go through."""
    with OUTER as outer:
        carried = ot.carry(traced)
    assert carried(label="later") == (f"{outer.trace_id:032x}", "later")
    assert ot.current_trace_id() is None
    assert carried.__wrapped__ is traced  # type: ignore[attr-defined]
    assert recorder.faults == 0


def test_carry_to_many_threads_at_once(recorder: Recorder) -> None:
    """One carried function runs in several threads at the same time."""
    barrier = threading.Barrier(4)

    def meet(_: int) -> str | None:
        barrier.wait(20)
        return traced("x")[0]

    with OUTER as outer, ThreadPoolExecutor(4) as executor:
        found = list(executor.map(ot.carry(meet), range(4)))
    assert found == [f"{outer.trace_id:032x}"] * 4
    assert [r.parent_id for r in recorder.named("propagation.probe")] == [outer.span_id] * 4


def test_carry_without_a_span(recorder: Recorder) -> None:
    """Then there is none where the function runs, even inside another one."""
    carried = ot.carry(traced)
    with OUTER:
        assert carried("x") == (None, "x")
    assert recorder.named("propagation.probe")[0].parent_id == 0


def test_a_carried_function_that_raises(recorder: Recorder) -> None:
    """Its exception is its caller's, and what is current stays as it was."""

    def fail() -> None:
        with PROBE:
            raise ZeroDivisionError

    with OUTER as outer:
        carried = ot.carry(fail)
    with pytest.raises(ZeroDivisionError):
        carried()
    assert core.current() is None
    assert recorder.named("propagation.probe")[0].parent_id == outer.span_id


def test_a_carried_function_is_pickled(recorder: Recorder) -> None:
    """To another process the span goes as a remote parent, tracestate and all, any number of times."""
    with ot.extract({"traceparent": PARENT, "tracestate": "a=1"}):
        pickled = pickle.dumps(ot.carry(operator.methodcaller("__call__")))
    arrived = pickle.loads(pickle.dumps(pickle.loads(pickled)))  # noqa: S301  our own
    assert arrived(lambda: ot.inject({})) == {"traceparent": PARENT, "tracestate": "a=1"}
    assert recorder.faults == 0
