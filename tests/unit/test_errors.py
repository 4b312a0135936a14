"""Errors have one root, an exit code, and say what was wrong, where, and what to do."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from otel_trading import errors
from otel_trading.errors import OtelTradingError, SegmentError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
SEGMENT_KINDS = [kind for kind in KINDS if issubclass(kind, SegmentError)]


@pytest.mark.parametrize("kind", KINDS)
def test_one_root_with_an_exit_code(kind: type[Exception]) -> None:
    """All errors of the package can be caught as one, and a command that ends by one returns 2."""
    assert issubclass(kind, OtelTradingError)
    assert kind.exit_code == 2
    assert kind.__doc__


@pytest.mark.parametrize("kind", SEGMENT_KINDS)
def test_segment_errors_say_what_where_and_the_remedy(kind: type[SegmentError]) -> None:
    """The message has all three, whether the remedy is the kind's own or a given one."""
    error = kind(Path("/somewhere/a.seg"), "has a hole")
    assert str(error) == f"/somewhere/a.seg: has a hole. Remedy: {kind.remedy}."
    assert (error.where, error.what) == ("/somewhere/a.seg", "has a hole")
    assert str(kind("/x", "is odd", "look")) == "/x: is odd. Remedy: look."


def test_every_kind_of_trouble_has_its_own_remedy() -> None:
    """Two kinds with one remedy would be one kind."""
    remedies = [kind.remedy for kind in SEGMENT_KINDS]
    assert len(set(remedies)) == len(remedies) == 8


@pytest.mark.parametrize("kind", SEGMENT_KINDS)
def test_segment_errors_survive_a_process_border(kind: type[SegmentError]) -> None:
    """An error that a worker process raises arrives whole."""
    again = pickle.loads(pickle.dumps(kind("/x", "is odd", "look")))  # noqa: S301  our own bytes
    assert type(again) is kind
    assert str(again) == "/x: is odd. Remedy: look."
