"""Which spans the provider's tracers take, and with which ids: the standard samplers, and anybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

from otel_trading.api import TracerProvider, sampling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from conftest import Recorder
    from opentelemetry.context import Context
    from opentelemetry.trace import Link

REMOTE = SpanContext(0xABCDEF, 0x123, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("v", "1")]))


def tracer(**options: Any) -> Any:
    """Give a tracer of a provider that leaves nothing behind."""
    return TracerProvider(shutdown_on_exit=False, **options).get_tracer("test", "1")


@pytest.fixture
def exported(recorder: Recorder) -> InMemorySpanExporter:
    """Give an exporter to connect; there is a recorder."""
    assert recorder.path.exists()
    return InMemorySpanExporter()


def test_a_sampler_of_the_programs_own_is_asked_as_the_sdk_asks(exported: InMemorySpanExporter) -> None:
    """It gets context, trace id, name, kind, attributes and links, and its decision, attributes and state hold."""
    asked: list[tuple[Any, ...]] = []

    class Own(Sampler):
        def should_sample(
            self,
            parent_context: Context | None,
            trace_id: int,
            name: str,
            kind: SpanKind | None = None,
            attributes: Any = None,
            links: Sequence[Link] | None = None,
            trace_state: TraceState | None = None,
        ) -> SamplingResult:
            asked.append(
                (parent_context, trace_id, name, kind, dict(attributes or {}), tuple(links or ()), trace_state)
            )
            decision = {"drop": Decision.DROP, "record": Decision.RECORD_ONLY}.get(name, Decision.RECORD_AND_SAMPLE)
            return SamplingResult(decision, {**(attributes or {}), "sampled by": "own"}, TraceState([("own", "1")]))

        def get_description(self) -> str:
            return "Own"

    provider = TracerProvider(shutdown_on_exit=False, sampler=Own())
    provider.add_span_processor(SimpleSpanProcessor(exported))
    made = provider.get_tracer("own")
    parent = trace.set_span_in_context(NonRecordingSpan(REMOTE), context.Context())
    link = trace.Link(REMOTE)
    made.start_span("kept", parent, SpanKind.SERVER, {"a": 1}, [link]).end()
    assert asked[0] == (parent, REMOTE.trace_id, "kept", SpanKind.SERVER, {"a": 1}, (link,), None)
    dropped = made.start_span("drop")
    assert not dropped.is_recording()
    assert not dropped.get_span_context().trace_flags.sampled
    only = made.start_span("record")
    assert only.is_recording()
    assert not only.get_span_context().trace_flags.sampled
    only.end()
    (kept,) = exported.get_finished_spans()
    assert dict(kept.attributes or {}) == {"a": 1, "sampled by": "own"}
    assert kept.context is not None
    assert kept.context.trace_state.to_header() == "own=1"


def test_a_sampler_that_fails_takes_the_span(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a sampler is logged, and the span is recorded and sampled under its parent."""

    class Failing(StaticSampler):
        def should_sample(self, *_arguments: Any, **_options: Any) -> SamplingResult:
            raise RuntimeError("no decision")

    made = tracer(sampler=Failing(Decision.DROP))
    span = made.start_span("taken", trace.set_span_in_context(NonRecordingSpan(REMOTE), context.Context()))
    span.end()
    assert span.get_span_context().trace_id == REMOTE.trace_id
    assert "no decision" in caplog.text
    assert recorder.only("taken").parent_id == REMOTE.span_id
    recorder.faults_expected = 1


class Numbered(IdGenerator):
    """Ids one after the other."""

    def __init__(self) -> None:
        """Begin at one."""
        self.last = 0

    def generate_span_id(self) -> int:
        """Count."""
        self.last += 1
        return self.last

    def generate_trace_id(self) -> int:
        """Count, too."""
        self.last += 1
        return self.last


def test_an_id_generator_of_the_programs_own_gives_the_ids(recorder: Recorder) -> None:
    """Ids are its own, the flag for random ids is not set, and the standard samplers decide on them."""
    made = tracer(id_generator=Numbered())
    with made.start_as_current_span("outer") as outer:
        made.start_span("inner").end()
    assert (outer.get_span_context().trace_id, outer.get_span_context().span_id) == (1, 2)
    assert not outer.get_span_context().trace_flags.random_trace_id
    inner, _ = recorder.records()
    assert (inner.trace_id, inner.span_id, inner.parent_id) == (1, 3, 2)


@pytest.mark.parametrize("bad", [0, -1, 1 << 64])
def test_ids_that_are_none_are_replaced(recorder: Recorder, bad: int) -> None:
    """A generator that gives what is no id costs the span its id, and not the program its life."""

    class Bad(Numbered):
        def generate_span_id(self) -> int:
            return bad

    span = tracer(id_generator=Bad()).start_span("replaced")
    span.end()
    assert 0 < span.get_span_context().span_id < 1 << 64
    assert recorder.only("replaced").span_id == span.get_span_context().span_id
    recorder.faults_expected = 1


@pytest.mark.parametrize(
    ("sampler", "rule"),
    [
        (ALWAYS_ON, (0, 0, False)),
        (ALWAYS_OFF, (1, 0, False)),
        (ParentBased(ALWAYS_ON), (0, 0, True)),
        (ParentBased(ALWAYS_OFF), (1, 0, True)),
        (TraceIdRatioBased(0.25), (2, 1 << 62, False)),
        (TraceIdRatioBased(1.0), (0, 0, False)),
        (TraceIdRatioBased(0.0), (1, 0, False)),
        (ParentBased(TraceIdRatioBased(0.25)), (2, 1 << 62, True)),
        (ParentBased(ALWAYS_ON, remote_parent_sampled=ALWAYS_OFF), None),
        (ParentBased(ParentBased(ALWAYS_ON)), None),
        (StaticSampler(Decision.RECORD_ONLY), None),
    ],
    ids=lambda value: value.get_description() if isinstance(value, Sampler) else str(value),
)
def test_the_sdks_samplers_are_the_recorders_rules(sampler: Sampler, rule: tuple[int, int, bool] | None) -> None:
    """The standard samplers run inside the recorder; all others are asked."""
    found = sampling.rule_of(sampler)
    assert found == rule
    if found is not None:
        assert sampling.rule_of(sampling.sampler_of(found)) == rule


ENVIRONMENTS: Mapping[str, tuple[dict[str, str], tuple[int, int, bool], int]] = {
    "nothing": ({}, (0, 0, True), 0),
    "capitals": ({"OTEL_TRACES_SAMPLER": "ALWAYS_OFF"}, (1, 0, False), 0),
    "ratio": ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}, (2, 1 << 62, False), 0),
    "no ratio": ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "x"}, (0, 0, True), 1),
    "unknown": ({"OTEL_TRACES_SAMPLER": "no such sampler"}, (0, 0, True), 1),
}


@pytest.mark.parametrize("case", ENVIRONMENTS)
def test_the_environment_names_the_sampler(case: str, monkeypatch: pytest.MonkeyPatch, recorder: Recorder) -> None:
    """The standard variables choose the rule; what cannot be had is a fault, and the default is taken."""
    variables, rule, faults = ENVIRONMENTS[case]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert sampling.from_environment() == rule
    recorder.faults_expected = faults


def test_the_environment_names_samplers_and_ids_by_entry_point(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    """A sampler and an id generator of any installed package are found by their names."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "trading_tiers")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "P1=0")
    monkeypatch.setenv("OTEL_PYTHON_ID_GENERATOR", "no such generator")
    provider = TracerProvider(shutdown_on_exit=False)
    assert provider.sampler.get_description() == "TradingTierSampler{P0=1,P1=0,P2=1,P3=1}"
    made = provider.get_tracer("by name")
    assert not made.start_span("dropped").is_recording()
    assert made.start_span("kept", attributes={"trading.tier": "P0"}).is_recording()
    recorder.faults_expected = 1
