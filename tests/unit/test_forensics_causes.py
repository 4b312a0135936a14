"""The likely cause, from evidence that was made for it; and near misses, which have to be unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from made_evidence import KILLED, LIVES, NOW, SECOND, UNTOLD, by_exit, by_signal, calm, silent, span, vital

from otel_trading import _layout as at
from otel_trading.forensics import causes
from otel_trading.forensics.causes import judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading.forensics.evidence import Evidence
    from otel_trading.forensics.how_it_ended import End

BEAT = {"name": "main", "age_ns": 0, "late_ns": 5 * SECOND, "late": False}


def leaking(by: float, seconds: int = 60) -> Callable[[float], float]:
    """Give memory that grows by a share until the end, with some noise."""
    return lambda ago: 60e6 * (1.0 + by * (1.0 - ago / seconds)) + (ago * 7919 % 11) * 1e4


def rising(to: float, seconds: float = 60.0) -> Callable[[float], float]:
    """Give a queue that grows to a length until the end."""
    return lambda ago: max(0.0, to * (1.0 - ago / seconds)) + ago % 3


def at_the_end(late: Any, early: Any, seconds: float) -> Callable[[float], Any]:
    """Give a value that changes so many seconds before the end."""
    return lambda ago: late if ago < seconds else early


def rejected(share: float) -> Evidence:
    """Give a process whose last orders were rejected."""
    found = calm()
    found.vitals = [
        vital(n / 10, at.ORDER_REJECTED if n % 100 < share * 100 else at.ORDER_ACKED) for n in range(99, -1, -1)
    ]
    return found


def full_disk(times: int) -> Evidence:
    """Give a process whose spans failed for want of space."""
    found = calm()
    found.spans += [
        span("save", 0.1, error=True, exception="OSError", description="[Errno 28] No space left on device")
        for _ in range(times)
    ]
    return found


def hung(*, busy: bool = False, beats: bool = True, seconds: float = 9.0) -> Evidence:
    """Give a process whose loop stood still before the end."""
    found = silent(calm(process_cpu=at_the_end(1.0 if busy else 0.0, 0.2, seconds - 1)), seconds, all_of_it=True)
    if beats:
        found.life["beats"] = [dict(BEAT)]
        for one in found.pulses:
            one["late_beats"] = int(one["unix_ns"] > NOW - (seconds - 5.0) * SECOND)
    return found


def with_beats(found: Evidence) -> Evidence:
    """Have its loop tell that it goes on."""
    found.life["beats"] = [dict(BEAT)]
    return found


def stuck(open_for: float, usual: float) -> Evidence:
    """Give a process that stood still in a span, without heartbeats."""
    found = silent(calm(process_cpu=at_the_end(0.0, 0.2, open_for)), open_for, all_of_it=True)
    found.spans.insert(0, span("order.send", open_for + 5.0, usual))
    found.open_spans = [span("order.send", open_for, open=True)]
    return found


def overflowing(*, held: bool = False) -> Evidence:
    """Give a process whose queue outgrows it; ``held``: and takes the memory."""
    return calm(
        queue=rising(60_000.0), **({"resident": lambda ago: 60e6 + 500.0 * rising(60_000.0)(ago)} if held else {})
    )


TOLD: list[tuple[str, str, Callable[[], Evidence], End]] = [
    ("a leak to a MemoryError", "memory_leak", lambda: calm(resident=leaking(2.0)), by_exit(1, "MemoryError")),
    ("a leak to an OOM kill", "memory_leak", lambda: calm(resident=leaking(2.0)), by_signal(9, "the kernel says so")),
    ("a leak, then killed", "memory_leak", lambda: calm(resident=leaking(1.5)), KILLED),
    ("a leak of a live one", "memory_leak", lambda: calm(resident=leaking(1.5)), LIVES),
    (
        "a leak that began late",
        "memory_leak",
        lambda: calm(300, resident=lambda ago: 60e6 + max(0, 20 - ago) * 5e6),
        KILLED,
    ),
    (
        "a short life to MemoryError",
        "memory_leak",
        lambda: calm(6, 7.0, resident=leaking(4.0, 6)),
        by_exit(1, "numpy.MemoryError"),
    ),
    ("an OOM kill without growth", "oom_kill", calm, by_signal(9, "the kernel says so")),
    ("SIGKILL at the memory limit", "oom_kill", lambda: calm(memory_load=lambda _: 0.98), KILLED),
    ("a spin", "cpu_exhaustion", lambda: hung(busy=True, beats=False), KILLED),
    ("a spin with heartbeats", "cpu_exhaustion", lambda: hung(busy=True), KILLED),
    ("a spin, ended by the service manager", "cpu_exhaustion", lambda: hung(busy=True), by_signal(6)),
    ("no CPU time left", "cpu_exhaustion", calm, by_signal(24)),
    ("a queue that grows", "queue_overflow", overflowing, KILLED),
    ("a queue that takes the memory", "queue_overflow", lambda: overflowing(held=True), by_exit(1, "MemoryError")),
    ("a queue that takes the memory, OOM", "queue_overflow", lambda: overflowing(held=True), by_signal(9, "so")),
    ("a bounded queue that is full", "queue_overflow", lambda: calm(queue=rising(900.0)), by_exit(1, "queue.Full")),
    ("a feed that stopped", "market_data_disconnect", lambda: silent(calm(), 8.0), KILLED),
    ("a feed that stopped, exit code", "market_data_disconnect", lambda: silent(calm(), 12.0), by_exit(3)),
    (
        "an idle program whose feed stopped",
        "market_data_disconnect",
        lambda: with_beats(silent(calm(), 8.0, all_of_it=True)),
        KILLED,
    ),
    ("a hang", "hang", hung, KILLED),
    ("a hang, ended by the service manager", "hang", hung, by_signal(6)),
    ("a hang of a live one", "hang", hung, LIVES),
    ("a hang without a heartbeat", "hang", lambda: stuck(20.0, 0.01), KILLED),
    ("rejects", "order_reject_storm", lambda: rejected(0.9), by_exit(2)),
    ("a full disk", "disk_full", lambda: full_disk(1), by_exit(1, "OSError")),
    ("a full disk, exit code", "disk_full", lambda: full_disk(5), by_exit(2)),
    ("an exception", "uncaught_exception", calm, by_exit(1, "ValueError")),
    ("an exception while data is old", "uncaught_exception", lambda: silent(calm(), 8.0), by_exit(1, "KeyError")),
    ("a MemoryError at once", "uncaught_exception", calm, by_exit(1, "MemoryError")),
    ("SIGSEGV", "fault", calm, by_signal(11)),
    ("SIGABRT", "fault", calm, by_signal(6)),
    ("SIGBUS with a queue", "fault", overflowing, by_signal(7)),
    ("SIGKILL", "killed", calm, KILLED),
    ("SIGTERM", "terminated", calm, by_signal(15)),
    ("SIGTERM of a slowly growing one", "terminated", lambda: calm(resident=leaking(0.2)), by_signal(15)),
    ("exit code", "exit", calm, by_exit(3)),
    ("orderly", "exit", calm, by_exit(0)),
    ("nothing wrong", "none", calm, LIVES),
]

UNKNOWN: list[tuple[str, Callable[[], Evidence], End]] = [
    ("gone without a word", calm, UNTOLD),
    ("killed while memory grows a little", lambda: calm(resident=leaking(0.3)), KILLED),
    ("killed while it was starting", lambda: calm(12, 12.0, resident=leaking(3.0, 12)), KILLED),
    ("killed when everything stood still", lambda: silent(calm(), 9.0, all_of_it=True), KILLED),
    ("killed with a long queue that does not grow", lambda: calm(queue=lambda _: 20_000.0), KILLED),
    ("killed with a queue below the limit", lambda: calm(queue=rising(8_000.0)), KILLED),
    ("a leak and a feed that stopped", lambda: silent(calm(resident=leaking(2.0)), 9.0), KILLED),
]


@pytest.mark.parametrize(("cause", "made", "end"), [pytest.param(*row[1:], id=row[0]) for row in TOLD])
def test_the_cause_is_told(cause: str, made: Callable[[], Evidence], end: End) -> None:
    """Each cause is told from what it looks like, with evidence."""
    verdict = judge(made(), end)
    assert verdict.cause == cause, verdict
    assert verdict.confidence >= causes.TOLD
    assert verdict.evidence
    assert all(verdict.confidence - one.confidence >= causes.AHEAD - 0.01 for one in verdict.others)


@pytest.mark.parametrize(("made", "end"), [pytest.param(*row[1:], id=row[0]) for row in UNKNOWN])
def test_a_near_miss_is_unknown(made: Callable[[], Evidence], end: End) -> None:
    """What is not clear is unknown, and says what speaks for what."""
    verdict = judge(made(), end)
    assert verdict.cause == "unknown", verdict
    assert verdict.evidence


@pytest.mark.parametrize(
    ("cause", "made", "figures"),
    [
        ("memory_leak", lambda: calm(resident=leaking(1.5)), ["60 MB", "150 MB", "60 s"]),
        ("queue_overflow", overflowing, ["60,000 items", "1,000 a second"]),
        ("market_data_disconnect", lambda: silent(calm(), 8.0), ["8.0 s old", "50,000 updates"]),
        ("hang", hung, ["loop main", "0.00 cores"]),
        ("cpu_exhaustion", lambda: hung(busy=True, beats=False), ["1.00 cores", "0.20 before"]),
        ("order_reject_storm", lambda: rejected(0.9), ["90 of the last 100"]),
    ],
)
def test_evidence_has_figures(cause: str, made: Callable[[], Evidence], figures: list[str]) -> None:
    """The evidence of a cause says how much, and since when."""
    verdict = judge(made(), KILLED)
    assert verdict.cause == cause
    text = " ".join(verdict.evidence)
    assert [figure for figure in figures if figure not in text] == [], text


def test_growth_is_no_leak_where_it_has_stopped() -> None:
    """Memory that grew and then stayed is no leak."""
    verdict = judge(calm(resident=lambda ago: 60e6 + min(60.0 - ago, 20.0) * 5e6), KILLED)
    assert verdict.cause == "killed"


def test_a_program_that_always_polls_is_not_exhausted() -> None:
    """A core that was in use all the time, with all its work done, says nothing."""
    verdict = judge(calm(process_cpu=lambda _: 1.0), KILLED)
    assert verdict.cause == "killed"


def test_a_slow_market_is_no_disconnect() -> None:
    """Data that is seven seconds old says nothing where it always came so."""
    found = silent(calm(market_age_ms=lambda ago: round(ago * 1000) % 7000), 7.0)
    assert judge(found, KILLED).cause in {"killed", "unknown"}
    assert judge(found, by_signal(15)).cause == "terminated"


def test_a_program_without_market_data_is_not_disconnected() -> None:
    """Where no market data ever came, none is missed."""
    found = calm(market_age_ms=lambda _: None)
    found.markets = []
    assert judge(found, KILLED).cause == "killed"


def test_nothing_at_all_is_unknown() -> None:
    """A segment with nothing in it, of a process that nobody knows of, has no cause."""
    found = calm()
    found.vitals = found.pulses = found.spans = found.markets = []
    assert judge(found, UNTOLD).cause == "unknown"
    assert judge(found, KILLED).cause == "killed"


def test_every_cause_of_the_list_is_tried() -> None:
    """No cause is in the list that these tests do not bring about."""
    assert {row[1] for row in TOLD} == {*causes.CAUSES, causes.NONE}


def test_a_leak_may_stand_at_its_limit() -> None:
    """Memory that stands at its limit for a while before the kernel kills has leaked up to it."""
    found = calm(60, resident=lambda ago: 60e6 + min(60.0 - ago, 45.0) * 5e6)
    assert judge(found, by_signal(9, "the kernel says so")).cause == "memory_leak"
    stalled = calm(12, 12.0, resident=lambda ago: min(30e6 + (12.0 - ago) * 50e6, 311e6 + (12.0 - ago) * 1e6))
    assert judge(stalled, by_signal(9, "the kernel says so")).cause == "memory_leak"
    settled = calm(200, resident=lambda ago: 60e6 + min(200.0 - ago, 40.0) * 5e6)
    assert judge(settled, by_signal(9, "the kernel says so")).cause == "oom_kill"


def test_a_leak_may_make_it_stand_still() -> None:
    """Where the kernel kills for want of memory, that it let the process wait before is no cause of its own."""
    found = silent(
        calm(20, 20.0, resident=leaking(6.0, 20), process_cpu=at_the_end(0.9, 0.1, 7.0)), 7.0, all_of_it=True
    )
    assert judge(found, by_signal(9, "the kernel says so")).cause == "memory_leak"


def test_all_at_once_is_no_leak() -> None:
    """Memory that is taken at once at the end is no leak, even where a few looks see it grow."""
    grown = dict(enumerate((311e6, 200e6, 120e6, 27.5e6, 27.4e6, 27.3e6, 27.2e6)))
    found = calm(6, 7.0, resident=lambda ago: grown[round(ago)])
    assert judge(found, by_signal(9, "the kernel says so")).cause == "oom_kill"


def test_who_stood_still_was_not_just_killed() -> None:
    """A process that recorded nothing in its last seconds, where it always did, may have been killed for that."""
    found = calm(spans=lambda ago: 100_000 - max(ago, 4.0) * 100)
    assert judge(found, KILLED).cause == "unknown"
    seldom = calm(spans=lambda ago: 100_000 - max(ago, 4.0) // 7)
    assert judge(seldom, KILLED).cause == "killed"


def test_a_busy_machine_alone_is_no_cause() -> None:
    """Where others take all CPU, and the work was done all the same, that says little; else it is why."""
    assert judge(calm(cpu_load=lambda _: 1.0), KILLED).cause == "killed"
    starved = calm(cpu_load=lambda _: 1.0, updates=lambda ago: 100_000 - (ago if ago < 15 else 15 + (ago - 15) * 50))
    assert judge(starved, KILLED).cause == "cpu_exhaustion"
