"""What the watchdog does about what it sees: the same table for the C program and for its Python twin."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watching import by_program, by_twin

Rules = Callable[[list[str]], list[list[str]]]

CONFIG = "config 1000 5000 5 1 0"  # a tick of 1 s, late after 5 s, 5 restarts, startable


@pytest.fixture(params=[by_program, by_twin], ids=["program", "twin"])
def rules(request: pytest.FixtureRequest) -> Rules:
    """Each of the two."""
    chosen: Rules = request.param
    return chosen


def look(second: int, state: str = "running", age: int = 0, *beats: str, alive: int = 1, stopped: int = 0) -> list[str]:
    """One look, in time, at ``second``; ``age`` in ms."""
    return [f"look {second * 1000} {second * 1000} {state} {age} {stopped} {alive}", *beats, "go"]


def looks(*parts: list[str], config: str = CONFIG) -> list[str]:
    """Several of them, one after the other."""
    return [config, *(line for part in parts for line in part)]


def what(done: list[list[str]]) -> list[str]:
    """The actions of each look, without whom they are about."""
    return ["+".join(line.split()[0] for line in actions) for actions in done]


def test_all_is_well(rules: Rules) -> None:
    """While everything beats, nothing is done."""
    lines = looks(*(look(n, "running", 300, f"drain 7 {n} agent 0", "loop 8 100 5000 0") for n in range(100)))
    assert what(rules(lines)) == [""] * 100


def test_late_agent_is_warned_of_then_alerted_then_ended(rules: Rules) -> None:
    """The first late look warns, the third starts the emergency monitor and alerts, the fifth ends the agent."""
    done = rules(looks(*(look(n, "running", 1000 * n) for n in range(5, 12)), look(12, "gone")))
    assert what(done) == ["", "warn", "", "alert+emergency", "", "term", "", "start"]


def test_agent_that_does_not_end_is_killed_after_two_ticks(rules: Rules) -> None:
    """SIGKILL follows SIGTERM after 2 s, once, and a new agent is started when the old one is gone."""
    done = rules(
        looks(*(look(n, "running", 9000, stopped=1) for n in range(10)), look(10, "gone"), look(11, "running"))
    )
    assert what(done) == ["warn", "", "alert+emergency", "", "term", "", "kill", "", "", "", "start", "resolve+normal"]


def test_beat_on_time_resets(rules: Rules) -> None:
    """Late looks count in a row only: after one in time it begins anew."""
    ages = [6000, 7000, 0, 6000, 7000, 8000, 0, 0]
    done = rules(looks(*(look(n, "running", age) for n, age in enumerate(ages))))
    assert what(done) == ["warn", "", "", "warn", "", "alert+emergency", "resolve+normal", ""]


def test_vanished_agent_is_started_at_once_then_with_backoff(rules: Rules) -> None:
    """An agent that dies again and again is started after 0, 1, 2, 4, 8 s, and then given up."""
    lines = looks(*(look(n, "gone", alive=1) for n in range(30)))
    done = what(rules(lines))
    assert [n for n, actions in enumerate(done) if "start" in actions] == [0, 1, 3, 7, 15]
    assert done[0] == "died+start"
    assert [n for n, actions in enumerate(done) if "give_up" in actions] == [16]
    assert done[16] == "died+give_up"
    assert done.count("emergency") == 1
    assert set(done[17:]) == {""}  # the emergency monitor stays, and nothing else is done


def test_backoff_is_a_minute_at_most(rules: Rules) -> None:
    """However often it was started, a minute is the longest that is waited."""
    lines = looks(*(look(n, "gone") for n in range(600)), config="config 1000 5000 40 1 0")
    started = [n for n, actions in enumerate(what(rules(lines))) if "start" in actions]
    assert [b - a for a, b in pairwise(started)][:7] == [1, 2, 4, 8, 16, 32, 60]
    assert {b - a for a, b in pairwise(started[7:])} == {60}


def test_starts_are_forgotten_after_ten_minutes(rules: Rules) -> None:
    """Five restarts in ten minutes are the limit; five in a day are not."""
    parts = [part for n in range(20) for part in (look(700 * n, "gone"), look(700 * n + 1, "running"))]
    done = what(rules(looks(*parts)))
    assert done == ["died+start", "back"] * 20


def test_emergency_monitor_is_there_while_the_agent_is_away(rules: Rules) -> None:
    """When a start has to wait for longer than a beat may be late, the emergency monitor is started meanwhile."""
    done = what(rules(looks(*(look(n, "gone") for n in range(16)), look(16, "starting"), look(17, "running"))))
    assert done[14:] == ["emergency", "start", "", "back+normal"]


def test_emergency_monitor_that_dies_is_started_again(rules: Rules) -> None:
    """It is started again while it is needed, ten seconds apart."""
    lines = looks(*(look(n, "running", 9000, alive=0) for n in range(35)), config="config 1000 5000 5 0 0")
    started = [n for n, actions in enumerate(what(rules(lines))) if "emergency" in actions]
    assert started == [2, 12, 22, 32]


def test_orderly_end_ends_the_watchdog(rules: Rules) -> None:
    """An agent that says that it has stopped is not started again; an emergency monitor is ended."""
    assert what(rules(looks(look(0), look(1, "stopping"), look(9, "stopping"), look(10, "ended")))) == [
        "",
        "",
        "",
        "end",
    ]
    late = [look(n, "running", 9000) for n in range(3)]
    assert what(rules(looks(*late, look(3, "ended"))))[-1] == "resolve+normal+end"


def test_end_after_our_signal_is_no_orderly_end(rules: Rules) -> None:
    """An agent that ends in an orderly way because the watchdog asked it to is started again."""
    done = what(rules(looks(*(look(n, "running", 9000) for n in range(5)), look(5, "stopping"), look(6, "ended"))))
    assert done[-3:] == ["term", "", "start"]


def test_slow_end_is_no_hang(rules: Rules) -> None:
    """An agent that is stopping may take its time."""
    assert what(rules(looks(*(look(n, "stopping") for n in range(60))))) == [""] * 60


def test_another_agent_has_its_own_watchdog(rules: Rules) -> None:
    """Where another agent is at work than the one that we were told of, the watchdog ends and touches nothing."""
    given_up = looks(*(look(n, "gone") for n in range(17)), look(17, "other"))
    assert what(rules(given_up))[-1] == "back+recovered+normal+end"


def test_agent_that_was_given_up_may_come_back(rules: Rules) -> None:
    """A hung agent is not killed when no restart is left; should it beat again, that is told."""
    lines = looks(*(look(n, "running", 9000) for n in range(6)), look(6, "running"), config="config 1000 5000 0 1 0")
    assert what(rules(lines)) == ["warn", "", "alert+emergency", "", "give_up", "", "resolve+recovered+normal"]


def test_new_agent_is_given_time_for_its_first_beat(rules: Rules) -> None:
    """A process that was just started is late after 10 s, and then ended as any other."""
    done = what(rules(looks(look(0, "gone"), *(look(n, "starting") for n in range(1, 20)))))
    assert [n for n, actions in enumerate(done) if actions] == [0, 11, 13, 15, 17]
    assert done[15] == "term"
    assert done[17] == "kill"


def test_supervised_agent_is_ended_and_not_started(rules: Rules) -> None:
    """Under systemd a hung agent is ended; who supervises it starts the next one, and that one its watchdog."""
    config = "config 1000 5000 5 0 1"
    assert what(rules(looks(*(look(n, "running", 9000) for n in range(5)), look(5, "gone"), config=config)))[-2:] == [
        "term",
        "end",
    ]
    assert what(rules(looks(look(0), look(1, "gone"), config=config)))[-1] == "died+end"


def test_agent_that_can_not_be_started_again_is_never_ended(rules: Rules) -> None:
    """Without a command that starts one, a late agent is told of, and left alone."""
    lines = looks(*(look(n, "running", 9000) for n in range(30)), config="config 1000 5000 5 0 0")
    assert not {"term", "kill", "start"} & set("+".join(what(rules(lines))).split("+"))


def test_own_delay_is_not_the_others(rules: Rules) -> None:
    """A look that comes late itself by more than a beat may be late does not count, however old everything seems."""
    late = "look 100000 1000 running 99000 0 1"
    done = rules(
        looks(
            look(0, "running", 0, "drain 7 1 agent 0"), look(1, "running", 0, "drain 7 2 agent 0"),
            [late, "drain 7 2 agent 0", "loop 8 99000 5000 0", "go"], look(101, "running", 300, "drain 7 3 agent 0"),
        )
    )  # fmt: skip
    assert what(done) == ["", "", "skip", ""]


def passing(start: int, count: int) -> list[list[str]]:
    """Looks at a drain of the agent's that passes."""
    return [look(start + n, "running", 0, f"drain 7 {start + n} agent 0") for n in range(count)]


def test_hung_drain_has_the_agent_started_again_once(rules: Rules) -> None:
    """The fifth late look at a drain of the agent's restarts it; if that does not help, it is not done again."""
    hung = [look(3 + n, "running", 0, "drain 7 2 agent 0") for n in range(12)]
    rest = [
        look(16, "running", 0, "drain 7 2 agent 0"),
        *(look(17 + n, "running", 0, "drain 7 2 agent 0") for n in range(99)),
    ]
    done = what(rules(looks(*passing(0, 3), *hung, look(15, "gone", 0, "drain 7 2 agent 0"), *rest)))
    assert [(n, actions) for n, actions in enumerate(done) if actions][:4] == [
        (8, "warn"), (10, "alert+emergency"), (12, "term"), (14, "kill"),
    ]  # fmt: skip
    assert done[15] == "start"
    assert not any("term" in actions for actions in done[16:])


def test_drain_that_goes_on_resolves(rules: Rules) -> None:
    """A drain that passes again ends the emergency monitor, and says so."""
    hung = [look(3 + n, "running", 0, "drain 7 2 embedded 0") for n in range(9)]
    begun = [look(n, "running", 0, f"drain 7 {n} embedded 0") for n in range(3)]
    done = rules(looks(*begun, *hung, look(12, "running", 0, "drain 7 3 embedded 0")))
    assert what(done)[-2:] == ["", "resolve+normal"]
    assert not any("term" in actions for actions in what(done))  # the program's own drain: it is never touched


def test_drain_of_a_stopped_program_is_no_hang(rules: Rules) -> None:
    """A program that somebody stopped, a debugger say, is told of once, and nothing is done about its drain."""
    begun = [look(n, "none", 0, f"drain 7 {n} embedded 0") for n in range(3)]
    done = rules(looks(*begun, *(look(3 + n, "none", 0, "drain 7 2 embedded 1") for n in range(30))))
    assert [actions for actions in done if actions] == [["warn embedded 7 1"]]


def test_slow_drain_is_not_late(rules: Rules) -> None:
    """A drain that passes each 20 s is late after three of its periods, not after 5 s."""
    lines = looks(*(look(n, "none", 0, f"drain 7 {n // 20} embedded 0") for n in range(200)))
    assert what(rules(lines)) == [""] * 200


def test_missing_drain_is_alerted(rules: Rules) -> None:
    """A segment that the agent should drain and nobody does is told of; it is no reason to end the agent."""
    done = what(rules(looks(*(look(n, "running", 0, "drain 7 0 missing 0") for n in range(30)))))
    assert [(n, actions) for n, actions in enumerate(done) if actions] == [(11, "warn"), (13, "alert+emergency")]


def test_missing_drain_while_the_agent_is_away_says_nothing_new(rules: Rules) -> None:
    """While the agent itself is late or away, segments without a drain are only what follows from it."""
    lines = looks(*(look(n, "running", 9000, "drain 7 0 missing 0") for n in range(5)), *(
        look(n, "stopping", 0, "drain 7 0 missing 0") for n in range(5, 40)))  # fmt: skip
    assert not any("missing" in line for actions in rules(lines) for line in actions)


def test_hung_loop_is_alerted_and_nothing_else(rules: Rules) -> None:
    """A loop of a program that does not beat gives a warning and an alert: no emergency monitor, no signal, ever."""
    lines = looks(
        *(look(n, "running", 0, f"loop 9 {n * 1000} 3000 0") for n in range(40)),
        look(40, "running", 0, "loop 9 0 3000 0"),
    )
    done = rules(lines)
    assert [(n, actions) for n, actions in enumerate(done) if actions] == [
        (4, ["warn loop 9 0"]), (6, ["alert loop 9 0"]), (40, ["resolve loop 9 0"]),
    ]  # fmt: skip


def test_subject_that_is_no_more_resolves(rules: Rules) -> None:
    """A program that ends while its alert is raised resolves it."""
    lines = looks(*(look(n, "running", 0, "loop 9 9000 3000 0") for n in range(4)), look(4))
    assert what(rules(lines)) == ["warn", "", "alert", "", "resolve"]


STATES = ("none", "starting", "running", "running", "running", "stopping", "gone", "ended", "other")


@st.composite
def any_looks(draw: st.DrawFn) -> list[str]:
    """Looks in which anything may happen."""
    flag = st.integers(0, 1)
    lines = [
        f"config 1000 {draw(st.sampled_from((100, 1000, 5000)))} {draw(st.integers(0, 6))} {draw(flag)} {draw(flag)}"
    ]
    now = 0
    for _ in range(draw(st.integers(1, 60))):
        now += draw(st.sampled_from((1, 500, 1000, 1000, 1000, 20_000, 700_000)))
        due = now - draw(st.sampled_from((0, 0, 0, 3000, 60_000)))
        age = draw(st.sampled_from((0, 400, 2000, 7000, 1 << 40)))
        lines.append(f"look {now} {due} {draw(st.sampled_from(STATES))} {age} {draw(flag)} {draw(flag)}")
        for key in draw(st.lists(st.integers(1, 5), unique=True, max_size=4)):
            kind = draw(st.sampled_from(("agent", "embedded", "missing")))
            lines.append(f"drain {key} {draw(st.integers(0, 2))} {kind} {draw(flag)}")
        loops = draw(st.lists(st.integers(6, 8), unique=True, max_size=2))
        lines += [f"loop {key} {age} {draw(st.sampled_from((0, 1000, 5000)))} {draw(flag)}" for key in loops]
        lines.append("go")
    return lines


@settings(max_examples=150)
@given(any_looks())
def test_both_do_the_same(lines: list[str]) -> None:
    """Whatever they see, the C program and its twin do the same."""
    assert by_program(lines) == by_twin(lines)


def test_bad_table_is_refused() -> None:
    """The program's test mode does not guess what a line may mean."""
    import subprocess

    with pytest.raises(subprocess.CalledProcessError):
        by_program(["look sometime"])
