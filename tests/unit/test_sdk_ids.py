"""Ids for the SDK."""

from __future__ import annotations

import os
import random

from opentelemetry.sdk.trace import TracerProvider

from otel_trading.sdk.ids import RecorderIdGenerator


def test_ids_fit_and_differ() -> None:
    """Ids are never zero, fit their sizes, use all their bits, and do not repeat."""
    generator = RecorderIdGenerator()
    spans = [generator.generate_span_id() for _ in range(1000)]
    traces = [generator.generate_trace_id() for _ in range(1000)]
    assert all(0 < number < 1 << 64 for number in spans)
    assert all(0 < number < 1 << 128 for number in traces)
    assert len(set(spans)) == len(set(traces)) == 1000
    assert max(spans).bit_length() == 64
    assert max(traces).bit_length() == 128


def test_a_seed_of_the_programs_does_not_repeat_ids() -> None:
    """random.seed, as simulations use it, leaves the ids alone."""
    generator = RecorderIdGenerator()
    random.seed(1)
    first = generator.generate_trace_id()
    random.seed(1)
    assert generator.generate_trace_id() != first


def test_a_forked_child_has_ids_of_its_own() -> None:
    """Parent and child do not go on with the same numbers."""
    generator = RecorderIdGenerator()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, b"%d" % generator.generate_trace_id())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = int(os.read(read, 100))
    os.close(read)
    os.close(write)
    assert theirs != generator.generate_trace_id()


def test_the_sdk_flags_the_trace_as_random() -> None:
    """Spans of the SDK say that their trace id is random."""
    provider = TracerProvider(id_generator=RecorderIdGenerator(), shutdown_on_exit=False)
    span = provider.get_tracer("ids").start_span("x")
    assert span.get_span_context().trace_flags.random_trace_id
