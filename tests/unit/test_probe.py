"""What one probe records: blocks, decorated functions, flat pairs, attributes, errors."""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING

import pytest

import otel_trading as ot
from otel_trading._backend import core

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from conftest import Recorder

UNSET, ERROR = 0, 2
CANCELLED, ABANDONED, INTERRUPTED, LEAF = 4, 8, 16, 32


class OrderRejectedError(Exception):
    """An application's own exception."""


# ---- one span -------------------------------------------------------------------------------------


def test_block_is_recorded(recorder: Recorder) -> None:
    """A block gives one record with ids, times within the block's, and status unset."""
    before = time.time_ns()
    with ot.probe("probe.block", tier=ot.P2) as span:
        assert span.recording
        assert ot.current_trace_id() == f"{span.trace_id:032x}"
    after = time.time_ns()
    record = recorder.only("probe.block")
    assert (record.trace_id, record.span_id, record.parent_id) == (span.trace_id, span.span_id, 0)
    assert 0 < record.trace_id < 1 << 128
    assert 0 < record.span_id < 1 << 64
    # The clock's anchor is taken between two readings, so allow it a millisecond.
    assert before - 1_000_000 <= record.start <= record.end <= after + 1_000_000
    assert (record.tier, record.status, record.flags, record.error) == (2, UNSET, 0, None)
    assert record.attributes == {}
    assert not span.recording
    assert ot.current_trace_id() is None


def test_children_share_the_trace(recorder: Recorder) -> None:
    """Nested blocks make a chain of parents in one trace, written as they end: children first."""
    with ot.probe("probe.a") as a, ot.probe("probe.b") as b, ot.probe("probe.c") as c:
        assert core.current() is c
    records = recorder.records()
    assert [record.name for record in records] == ["probe.c", "probe.b", "probe.a"]
    assert [record.span_id for record in records] == [c.span_id, b.span_id, a.span_id]
    assert [record.parent_id for record in records] == [b.span_id, a.span_id, 0]
    assert len({record.trace_id for record in records}) == 1


def test_roots_have_traces_of_their_own(recorder: Recorder) -> None:
    """Spans without a parent never share a trace or an id."""
    probe = ot.probe("probe.root")
    for _ in range(200):
        with probe:
            pass
    records = recorder.named("probe.root")
    assert len({record.trace_id for record in records}) == 200
    assert len({record.span_id for record in records}) == 200


def test_siblings_restore_the_parent(recorder: Recorder) -> None:
    """After a child's end its parent is current again."""
    outer, inner = ot.probe("probe.outer"), ot.probe("probe.inner")
    with outer as parent:
        for _ in range(3):
            with inner:
                pass
            assert core.current() is parent
    children = recorder.named("probe.inner")
    assert [child.parent_id for child in children] == [parent.span_id] * 3


def test_recursive_block(recorder: Recorder) -> None:
    """A probe that is entered within itself makes a span for each entry, each the child of the one before."""
    probe = ot.probe("probe.recursive")

    def descend(depth: int) -> None:
        with probe:
            if depth:
                descend(depth - 1)

    descend(50)
    records = recorder.named("probe.recursive")
    assert len(records) == 51
    assert [child.parent_id for child in records[:-1]] == [parent.span_id for parent in records[1:]]
    assert records[-1].parent_id == 0


def test_recursive_function(recorder: Recorder) -> None:
    """A decorated function that calls itself makes one span a call."""

    @ot.probe("probe.factorial")
    def factorial(n: int) -> int:
        return n * factorial(n - 1) if n else 1

    assert factorial(20) == math.factorial(20)
    records = recorder.named("probe.factorial")
    assert len(records) == 21
    assert sum(record.parent_id == 0 for record in records) == 1


def test_same_probe_twice_in_one_statement(recorder: Recorder) -> None:
    """``with p, p`` makes a span and its child."""
    probe = ot.probe("probe.twice")
    with probe as first, probe as second:
        assert first is not second
    inner, outer = recorder.named("probe.twice")
    assert (inner.span_id, outer.span_id) == (second.span_id, first.span_id)
    assert inner.parent_id == outer.span_id


def test_exit_stack(recorder: Recorder) -> None:
    """Probes in an ExitStack nest and end in the stack's order, the same probe twice included."""
    probe, other = ot.probe("probe.stacked"), ot.probe("probe.stacked.other")
    with contextlib.ExitStack() as stack:
        spans = [stack.enter_context(entered) for entered in (probe, other, probe)]
        assert core.current() is spans[-1]
    assert core.current() is None
    records = recorder.records()
    assert [record.span_id for record in records] == [span.span_id for span in reversed(spans)]
    assert [record.parent_id for record in records] == [spans[1].span_id, spans[0].span_id, 0]


def test_exit_stack_with_an_exception(recorder: Recorder) -> None:
    """An exception that leaves an ExitStack is on each span that it passed."""
    probe = ot.probe("probe.stacked.error")

    def work() -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(probe)
            stack.enter_context(probe.span(symbol="BTCUSDT"))
            raise OrderRejectedError

    with pytest.raises(OrderRejectedError):
        work()
    assert [record.status for record in recorder.named("probe.stacked.error")] == [ERROR, ERROR]


def test_more_open_spans_than_the_table_holds(make_recorder: Callable[..., Recorder]) -> None:
    """More spans may be open at once than the table holds at first; all are seen, and recorded."""
    recorder = make_recorder(ring__open_spans=16)
    probe = ot.probe("probe.deep")
    with contextlib.ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(probe.span())
        assert len(recorder.open_spans()) == 400
    assert len(recorder.named("probe.deep")) == 400


# ---- errors ---------------------------------------------------------------------------------------


def test_exception_is_an_error_with_its_type(recorder: Recorder) -> None:
    """An exception sets status ERROR and its type's name, and goes on its way unchanged."""
    error = OrderRejectedError("no margin")
    with pytest.raises(OrderRejectedError) as caught, ot.probe("probe.raises"):
        raise error
    assert caught.value is error
    record = recorder.only("probe.raises")
    assert record.status == ERROR
    assert record.error is not None
    assert record.error.endswith(".OrderRejectedError")


def test_builtin_exceptions_have_short_names(recorder: Recorder) -> None:
    """A built-in exception is named without its module."""
    with contextlib.suppress(ValueError), ot.probe("probe.value_error"):
        int("x")
    assert recorder.only("probe.value_error").error == "ValueError"


def test_caught_inside_is_no_error(recorder: Recorder) -> None:
    """An exception that is handled inside the block leaves no trace on the span."""
    with ot.probe("probe.handles"), contextlib.suppress(KeyError):
        raise KeyError
    record = recorder.only("probe.handles")
    assert (record.status, record.error) == (UNSET, None)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_control_flow_is_no_error(recorder: Recorder, kind: type[BaseException]) -> None:
    """Exceptions that are not errors of the program do not mark the span as failed."""
    with pytest.raises(kind), ot.probe("probe.leaves"):
        raise kind
    assert recorder.only("probe.leaves").status == UNSET


def test_decorated_function_raises_the_same(recorder: Recorder) -> None:
    """A decorated function's exception arrives as it was raised, traceback to its origin included."""

    @ot.probe("probe.function.raises")
    def fail() -> None:
        raise OrderRejectedError("x")

    with pytest.raises(OrderRejectedError, match="x") as caught:
        fail()
    assert caught.traceback[-1].name == "fail"
    assert recorder.only("probe.function.raises").status == ERROR


def test_exception_types_made_at_run_time(recorder: Recorder) -> None:
    """A type whose names are not text is an error all the same."""
    kind = type("Odd", (Exception,), {"__module__": None, "__qualname__": "Odd"})
    with contextlib.suppress(kind), ot.probe("probe.odd"):
        raise kind
    assert recorder.only("probe.odd").status == ERROR


# ---- flat pairs -----------------------------------------------------------------------------------


def test_flat_pair(recorder: Recorder) -> None:
    """A flat pair joins the current trace and does not become current."""
    flat = ot.probe("probe.flat")
    with ot.probe("probe.flat.parent") as parent:
        token = flat.start()
        assert core.current() is parent
        flat.stop(token)
    record = recorder.records()[0]
    assert record.name == "probe.flat"
    assert (record.parent_id, record.trace_id) == (parent.span_id, parent.trace_id)
    assert record.flags & LEAF


def test_flat_pair_without_a_current_span(recorder: Recorder) -> None:
    """A flat pair alone is a root."""
    flat = ot.probe("probe.flat.root")
    flat.stop(flat.start())
    assert recorder.only("probe.flat.root").parent_id == 0


def test_flat_pairs_may_overlap(recorder: Recorder) -> None:
    """Flat pairs end in any order, each its own."""
    flat = ot.probe("probe.flat.overlap")
    first, second = flat.start(), flat.start()
    flat.stop(first)
    assert len(recorder.open_spans()) == 1
    flat.stop(second)
    one, two = recorder.named("probe.flat.overlap")
    assert one.start <= two.start
    assert one.end <= two.end


def test_flat_pair_with_an_error(recorder: Recorder) -> None:
    """``stop`` takes the exception that ended the work."""
    flat = ot.probe("probe.flat.error")
    flat.stop(flat.start(), OrderRejectedError())
    record = recorder.only("probe.flat.error")
    assert record.status == ERROR
    assert record.error is not None
    assert record.error.endswith("OrderRejectedError")


def test_stopping_twice_is_a_fault(recorder: Recorder) -> None:
    """The second ``stop`` of a token records nothing and counts a fault."""
    flat = ot.probe("probe.flat.twice")
    token = flat.start()
    flat.stop(token)
    flat.stop(token)
    assert len(recorder.named("probe.flat.twice")) == 1
    recorder.faults_expected = 1


def test_stopping_another_probes_token_is_a_fault(recorder: Recorder) -> None:
    """A token stopped by another probe is still its own probe's span, and counts a fault."""
    mine, other = ot.probe("probe.flat.mine"), ot.probe("probe.flat.other")
    other.stop(mine.start())
    assert [record.name for record in recorder.records()] == ["probe.flat.mine"]
    recorder.faults_expected = 1


def test_dropped_token_is_abandoned(recorder: Recorder) -> None:
    """A token that is let go without ``stop`` is written as abandoned."""
    ot.probe("probe.flat.dropped").start()
    assert recorder.only("probe.flat.dropped").flags & ABANDONED


@pytest.mark.parametrize("token", [None, 1, "token"])
def test_stop_wants_a_token(recorder: Recorder, token: object) -> None:
    """What is not a token is a TypeError, as for any function."""
    with pytest.raises(TypeError):
        ot.probe("probe.flat.type").stop(token)
    assert recorder.records() == []


def test_leaf_function(recorder: Recorder) -> None:
    """A leaf's decorated function joins the current trace and does not become current."""
    seen = []

    @ot.probe("probe.leaf", leaf=True)
    def leaf(value: int) -> int:
        seen.append(core.current())
        return value

    with ot.probe("probe.leaf.parent") as parent:
        assert leaf(3) == 3
    assert seen == [parent]
    record = recorder.records()[0]
    assert (record.name, record.parent_id) == ("probe.leaf", parent.span_id)


def test_leaf_function_raises(recorder: Recorder) -> None:
    """A leaf's exception is recorded and goes on."""

    @ot.probe("probe.leaf.raises", leaf=True)
    def leaf() -> None:
        raise OrderRejectedError

    with pytest.raises(OrderRejectedError):
        leaf()
    assert recorder.only("probe.leaf.raises").status == ERROR


# ---- a span's states ------------------------------------------------------------------------------


def test_span_by_hand(recorder: Recorder) -> None:
    """``begin`` and ``end`` make a span that never is current."""
    span = ot.probe("probe.hand").span(symbol="ETHUSDT")
    assert not span.recording
    span.begin()
    assert span.recording
    assert core.current() is None
    assert [record.span_id for record in recorder.open_spans()] == [span.span_id]
    span.finish()
    assert recorder.only("probe.hand").attributes == {"symbol": "ETHUSDT"}


def test_span_that_never_began_records_nothing(recorder: Recorder) -> None:
    """A span that was made and let go leaves nothing behind."""
    for _ in range(1000):
        ot.probe("probe.unbegun").span(symbol="BTCUSDT")
    assert recorder.records() == []
    assert recorder.open_spans() == []


def test_dropped_span_is_abandoned(recorder: Recorder) -> None:
    """An open span that is let go is written as abandoned."""
    ot.probe("probe.dropped").span().begin()
    assert recorder.only("probe.dropped").flags & ABANDONED


def test_ending_twice_is_a_fault(recorder: Recorder) -> None:
    """The second end of a span records nothing and counts a fault."""
    span = ot.probe("probe.ended").span()
    span.begin()
    span.finish()
    span.finish()
    assert len(recorder.named("probe.ended")) == 1
    recorder.faults_expected = 1


def test_entering_twice_is_a_fault(recorder: Recorder) -> None:
    """A span is for one use: entering it again does nothing and counts a fault."""
    span = ot.probe("probe.entered").span()
    with span:
        pass
    span.begin()
    assert len(recorder.named("probe.entered")) == 1
    recorder.faults_expected = 1


def test_attribute_after_the_end_is_a_fault(recorder: Recorder) -> None:
    """An attribute that comes too late is not recorded and counts a fault."""
    with ot.probe("probe.late").span() as span:
        pass
    span.set_attribute("late", 1)
    assert recorder.only("probe.late").attributes == {}
    recorder.faults_expected = 1


def test_explicit_parent(recorder: Recorder) -> None:
    """A parent by argument wins over the current span, in all forms that take one."""
    probe = ot.probe("probe.explicit")
    with ot.probe("probe.explicit.parent") as parent:
        pass
    with ot.probe("probe.explicit.current"):
        with probe.span(parent, side="buy"):
            pass
        probe.stop(probe.start(parent))
    children = recorder.named("probe.explicit")
    assert [child.parent_id for child in children] == [parent.span_id] * 2
    assert {child.trace_id for child in children} == {parent.trace_id}


def test_parent_none_is_the_current_span(recorder: Recorder) -> None:
    """None as the parent means no explicit one."""
    probe = ot.probe("probe.parent.none")
    with ot.probe("probe.parent.current") as parent:
        with probe.span(None):
            pass
        probe.stop(probe.start(None))
    assert [child.parent_id for child in recorder.named("probe.parent.none")] == [parent.span_id] * 2


def test_nothing_is_recorded_before_and_after() -> None:
    """Every form is harmless without a recorder."""
    probe = ot.probe("probe.unrecorded")

    @probe
    def function() -> int:
        return 7

    with probe as span, probe.span(symbol="x") as other:
        other.set_attribute("a", 1)
        assert not span.recording
        assert core.current() is None
    probe.stop(probe.start())
    assert function() == 7
    assert ot.current_trace_id() is None


# ---- definitions ----------------------------------------------------------------------------------


def test_a_name_is_one_probe() -> None:
    """The same name gives the same probe, and plain retrieval is no redefinition."""
    probe = ot.probe("probe.one", tier=ot.P0, sla="5ms", leaf=True, kind="client")
    assert ot.probe("probe.one") is probe
    assert (probe.name, probe.tier, probe.sla_ns, probe.leaf, probe.kind) == ("probe.one", 0, 5_000_000, True, 2)


def test_default_options() -> None:
    """Without options a probe is P1, internal, no leaf, without an SLA."""
    probe = ot.probe("probe.default")
    assert (probe.tier, probe.sla_ns, probe.leaf, probe.kind) == (1, 0, False, 0)


def test_redefinition_is_a_fault(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """A second definition with other options is ignored, logged once, and counted."""
    first = ot.probe("probe.redefined", tier=ot.P0)
    for _ in range(3):
        assert ot.probe("probe.redefined", tier=ot.P2) is first
    assert first.tier == 0
    messages: list[logging.LogRecord] = caplog.records
    assert [message.name for message in messages] == ["otel_trading"]
    assert "probe.redefined" in caplog.text
    recorder.faults_expected = 3


@pytest.mark.parametrize("options", [{"sla": "5 parsecs"}, {"sla": -1}, {"tier": 9}, {"tier": "P0"}, {"kind": "odd"}])
def test_wrong_options_are_faults(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, options: dict[str, object]
) -> None:
    """A wrong option is logged and counted, its default is taken, and nothing raises."""
    name = f"probe.wrong.{options}"
    probe = ot.probe(name, **options)
    assert (probe.tier, probe.sla_ns, probe.kind) == (1, 0, 0)
    assert name in caplog.text
    recorder.faults_expected = 1


def test_sla_breaches_are_counted(recorder: Recorder) -> None:
    """Spans longer than the SLA count as breaches, others do not."""
    slow, quick = ot.probe("probe.sla.slow", sla="1ns"), ot.probe("probe.sla.quick", sla="1s")
    for _ in range(5):
        slow.stop(slow.start())
        quick.stop(quick.start())
    stats = ot.stats()
    assert (stats["probe.sla.slow"]["count"], stats["probe.sla.slow"]["sla_breaches"]) == (5, 5)
    assert (stats["probe.sla.quick"]["count"], stats["probe.sla.quick"]["sla_breaches"]) == (5, 0)
    assert recorder.accounts()[1]["recorded"] == 10


def test_stats_have_quantiles_in_order(recorder: Recorder) -> None:
    """The statistics of a probe have the promised keys, and quantiles that rise."""
    probe = ot.probe("probe.stats")
    for _ in range(100):
        with probe:
            pass
    stats = ot.stats()["probe.stats"]
    assert set(stats) == {"count", "p50_ns", "p95_ns", "p99_ns", "p999_ns", "max_ns", "sla_breaches"}
    assert stats["count"] == len(recorder.named("probe.stats")) == 100
    assert 0 < stats["p50_ns"] <= stats["p95_ns"] <= stats["p99_ns"] <= stats["p999_ns"] <= stats["max_ns"]


# ---- instrumentation scopes ------------------------------------------------------------------------


def test_a_probe_of_a_scope(recorder: Recorder) -> None:
    """A probe's scope is read from the segment; "" is our own."""
    scope = '{"name":"bot","version":"1"}'
    probes = (core.Probe("probe.of_scope", 2, 5, False, 3, scope), core.Probe("probe.of_scope"))
    assert [probe.scope for probe in probes] == [scope, ""]
    for probe in probes:
        probe.stop(probe.start())
    found = recorder.segment.reader.probes()
    assert found[probes[0].id] == ("probe.of_scope", 2, 5, False, 3, scope)
    assert found[probes[1].id] == ("probe.of_scope", 1, 0, False, 0, "")
    assert len(recorder.records()) == 2


@pytest.mark.parametrize("scope", [None, 1, b"{}"])
def test_a_scope_that_is_no_text(scope: object) -> None:
    """A scope of another type is a TypeError, as for any function."""
    with pytest.raises(TypeError):
        core.Probe("probe.bad_scope", scope=scope)  # type: ignore[arg-type]
