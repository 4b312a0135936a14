"""Which alerts are sent, and which are held back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_trading.alerts.admission import Admission
from otel_trading.alerts.alert import Alert, from_document


def alert(name: str = "Late", severity: str = "warning", *, resolved: bool = False, **labels: str) -> Alert:
    """Give an alert."""
    return Alert(name, severity, "something is late", labels, resolved=resolved)


def test_the_same_again_waits_for_its_time() -> None:
    """The same name and labels are sent once in the time, and then tell how often they came."""
    door = Admission("info", 60.0, 100.0)
    assert door.admit(alert(pid="1"), 0.0)
    assert not door.admit(alert(pid="1"), 1.0)
    assert not door.admit(alert(pid="1"), 59.0)
    assert door.admit(alert(pid="2"), 59.0)
    again = alert(pid="1")
    assert door.admit(again, 60.0)
    assert again.details == {"came_again": 2}


def test_what_is_over_is_told_at_once() -> None:
    """An alert that is resolved is another one than the one that fires, and the next firing is new."""
    door = Admission("info", 60.0, 100.0)
    assert door.admit(alert(), 0.0)
    assert door.admit(alert(resolved=True), 1.0)
    assert not door.admit(alert(resolved=True), 2.0)
    assert door.admit(alert(), 3.0)


def test_less_severe_ones_are_left_out() -> None:
    """Alerts below the severity that is asked for are not sent, resolved or not."""
    door = Admission("warning", 0.0, 100.0)
    assert not door.admit(alert(severity="info"), 0.0)
    assert not door.admit(alert(severity="info", resolved=True), 0.0)
    assert door.admit(alert(severity="critical"), 0.0)


def test_too_many_are_counted() -> None:
    """Past the rate nothing is sent, and the next one that is tells how many were left out."""
    door = Admission("info", 0.0, 3.0)
    sent = [door.admit(alert(str(number)), 0.0) for number in range(10)]
    assert sent == [True] * 3 + [False] * 7
    later = alert("later")
    assert door.admit(later, 20.0)
    assert later.details == {"alerts_left_out": 7}


def test_a_rate_of_nothing_sends_nothing() -> None:
    """With a rate of 0 no alert goes out."""
    door = Admission("info", 0.0, 0.0)
    assert not any(door.admit(alert(str(number)), number * 1000.0) for number in range(10))


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.floats(0.0, 30.0)), max_size=60))
def test_never_more_than_the_rate(steps: list[tuple[int, bool, float]]) -> None:
    """Whatever comes, no minute has more than twice the rate, and none repeats within its time unresolved."""
    door = Admission("info", 5.0, 4.0)
    now, sent = 0.0, []
    for number, resolved, pause in steps:
        now += pause
        if door.admit(alert(str(number), resolved=resolved), now):
            sent.append((now, number, resolved))
    for moment, _, _ in sent:
        assert sum(1 for when, _, _ in sent if moment <= when < moment + 60.0) <= 8
    for number in range(4):
        mine = [(when, resolved) for when, which, resolved in sent if which == number]
        for (earlier, was), (later, is_now) in pairwise(mine):
            assert was != is_now or later - earlier >= 5.0


def test_memory_is_bounded() -> None:
    """Alerts without end, each another one, do not make it grow without end."""
    door = Admission("info", 1e6, 6_000.0)
    for number in range(5_000):
        door.admit(alert(str(number)), float(number))
    assert len(door._sent) <= 1_024


def test_documents_make_alerts() -> None:
    """What an alert is written as gives the same alert back."""
    before = Alert("Crash", "critical", "it died", {"pid": "7"}, {"cause": "leak", "confidence": 0.9}, resolved=True)
    after = from_document(before.document())
    assert after.document() == before.document()
    assert after.identity == before.identity


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"name": "", "severity": "info", "summary": ""},
        {"name": "A", "severity": "loud", "summary": ""},
        {"name": "A", "severity": "info"},
        {"name": "A", "severity": "info", "summary": "s", "labels": [1]},
        {"name": "A", "severity": "info", "summary": "s", "details": "x"},
        {"name": "A", "severity": ["info"], "summary": "s"},
    ],
)
def test_other_documents_are_refused(document: object) -> None:
    """What is no alert is said to be none."""
    with pytest.raises(ValueError, match="alert"):
        from_document(document)
