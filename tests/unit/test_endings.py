"""How a process says that it ends: in order, by an exception, or by a signal that it did not come back from."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading._backend import core

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Recorder

    Run = Callable[..., subprocess.CompletedProcess[str]]

native = pytest.mark.skipif(ot.backend != "native", reason="Python can not note a signal that ends it")

NOTHING = {"kind": at.ENDING_NONE, "code": 0, "unix_ns": 0, "name": None}


def ending(recorder: Recorder) -> dict[str, Any]:
    """Read how it ended."""
    ending: dict[str, Any] = recorder.segment.reader.life()["ending"]
    return ending


def told(ending: dict[str, Any]) -> tuple[int, int, str | None]:
    """Give kind, code and name."""
    return ending["kind"], ending["code"], ending["name"]


def test_nothing_is_told_at_first(recorder: Recorder) -> None:
    """A process that lives has told of no end."""
    assert ending(recorder) == NOTHING


def test_what_is_told(recorder: Recorder) -> None:
    """Kind, code, name and time come back."""
    before = time.time_ns()
    core.ending(at.ENDING_EXCEPTION, 1, "ValueError")
    assert told(ending(recorder)) == (at.ENDING_EXCEPTION, 1, "ValueError")
    assert before <= ending(recorder)["unix_ns"] <= time.time_ns()


@pytest.mark.parametrize("code", [0, 1, 255, -1, -(1 << 63), (1 << 63) - 1])
def test_codes(recorder: Recorder, code: int) -> None:
    """A code has a sign."""
    core.ending(at.ENDING_EXIT, code, "")
    assert told(ending(recorder)) == (at.ENDING_EXIT, code, None)


def test_the_first_exception_stays(recorder: Recorder) -> None:
    """Neither an exit nor another exception takes its place; an exception takes an exit's."""
    core.ending(at.ENDING_EXIT, 3, "")
    core.ending(at.ENDING_EXCEPTION, 1, "KeyError")
    core.ending(at.ENDING_EXIT, 0, "")
    core.ending(at.ENDING_EXCEPTION, 1, "ValueError")
    core.ending(at.ENDING_SIGNAL, 11, "")
    assert told(ending(recorder)) == (at.ENDING_EXCEPTION, 1, "KeyError")


def test_the_first_signal_stays(recorder: Recorder) -> None:
    """As an exception does."""
    core.ending(at.ENDING_SIGNAL, 15, "")
    core.ending(at.ENDING_EXIT, 0, "")
    core.ending(at.ENDING_EXCEPTION, 1, "KeyError")
    assert told(ending(recorder)) == (at.ENDING_SIGNAL, 15, None)


def test_taking_it_back(recorder: Recorder) -> None:
    """What was told can be taken back: an exception that somebody caught after all."""
    core.ending(at.ENDING_EXCEPTION, 1, "KeyError")
    core.ending(at.ENDING_NONE, 0, "")
    assert ending(recorder) == NOTHING
    core.ending(at.ENDING_EXIT, 2, "")
    assert told(ending(recorder)) == (at.ENDING_EXIT, 2, None)


def test_kinds_that_are_none(recorder: Recorder) -> None:
    """They are a ValueError."""
    for kind in (-1, 4):
        with pytest.raises(ValueError, match="0 to 3"):
            core.ending(kind, 0, "")
    assert ending(recorder) == NOTHING


def test_without_a_segment() -> None:
    """Nothing happens, whatever is told."""
    assert not core.is_open()
    core.ending(at.ENDING_EXIT, 0, "")
    core.note_signals(True)
    core.note_signals(False)


# ---- signals ----

PREPARE = """
import faulthandler, os, signal, sys, threading, ctypes
import otel_trading as ot
from otel_trading._backend import core
ot.configure("dying")
core.note_signals(False)
"""
SEGFAULT = "ctypes.string_at(0)\n"
NOTE = "core.note_signals(True)\n"
FAULTHANDLER = "faulthandler.enable()\n"


@pytest.fixture
def last_words(run_python: Run, tmp_path: Path) -> Callable[[str], tuple[int, dict[str, Any], str]]:
    """Give a function that runs a program to its end: its exit status, what it told of it, what it wrote to stderr."""

    def run(code: str) -> tuple[int, dict[str, Any], str]:
        done = run_python(PREPARE + code, check=False)
        (path,) = tmp_path.rglob("*.seg")
        with path.open("rb") as file:
            reader = core.Reader(file.fileno())
        ending = reader.life()["ending"]
        reader.close()
        return done.returncode, ending, done.stderr

    return run


CRASHES = [
    (SEGFAULT, signal.SIGSEGV),
    ("os.abort()\n", signal.SIGABRT),
    ("os.kill(os.getpid(), signal.SIGSEGV)\n", signal.SIGSEGV),
    ("os.kill(os.getpid(), signal.SIGBUS)\n", signal.SIGBUS),
    ("signal.raise_signal(signal.SIGFPE)\n", signal.SIGFPE),
    ("signal.raise_signal(signal.SIGILL)\n", signal.SIGILL),
    ("t = threading.Thread(target=ctypes.string_at, args=(0,)); t.start(); t.join()\n", signal.SIGSEGV),
]
ORDERS = [NOTE + FAULTHANDLER, FAULTHANDLER + NOTE, NOTE + FAULTHANDLER + NOTE, NOTE + NOTE]


@native
@pytest.mark.parametrize(
    ("order", "code", "number"),
    [(NOTE, *crash) for crash in CRASHES] + [(order, *crash) for crash in CRASHES[:2] for order in ORDERS],
)
def test_signals(last_words: Callable[[str], Any], order: str, code: str, number: int) -> None:
    """Each is noted, and ends the process as it would have; faulthandler's words come as well, once."""
    before = time.time_ns()
    status, ending, stderr = last_words(order + code)
    assert status == -number
    assert told(ending) == (at.ENDING_SIGNAL, number, None)
    assert before <= ending["unix_ns"] <= time.time_ns()
    assert stderr.count("Fatal Python error") == (1 if FAULTHANDLER in order else 0)


@native
def test_a_stack_that_has_overflown(last_words: Callable[[str], Any]) -> None:
    """The main thread's is noted as well, as the handler has a stack of its own."""
    recurse = """
@ctypes.CFUNCTYPE(ctypes.c_int)
def again():
    return again()
sys.setrecursionlimit(10**9)
again()
"""
    status, ending, _ = last_words(NOTE + recurse)
    assert status == -signal.SIGSEGV
    assert told(ending) == (at.ENDING_SIGNAL, signal.SIGSEGV, None)


@native
def test_an_exception_stays_when_a_signal_follows(last_words: Callable[[str], Any]) -> None:
    """What is told first is the cause."""
    status, ending, _ = last_words(NOTE + 'core.ending(2, 1, "KeyError")\n' + SEGFAULT)
    assert status == -signal.SIGSEGV
    assert told(ending) == (at.ENDING_EXCEPTION, 1, "KeyError")


@native
def test_switched_off_nothing_is_noted(last_words: Callable[[str], Any]) -> None:
    """The status is what it would have been."""
    status, ending, _ = last_words(NOTE + "core.note_signals(False)\n" + SEGFAULT)
    assert status == -signal.SIGSEGV
    assert ending == NOTHING


@native
def test_switched_off_below_faulthandler(last_words: Callable[[str], Any]) -> None:
    """Ours stays where it is then, and only passes on."""
    status, ending, stderr = last_words(NOTE + FAULTHANDLER + "core.note_signals(False)\n" + SEGFAULT)
    assert status == -signal.SIGSEGV
    assert ending == NOTHING
    assert stderr.count("Fatal Python error") == 1


@native
def test_faulthandler_that_is_switched_off_again(last_words: Callable[[str], Any]) -> None:
    """It puts back what was there before it, which is not ours; noting again helps."""
    status, ending, _ = last_words(FAULTHANDLER + NOTE + "faulthandler.disable()\n" + NOTE + SEGFAULT)
    assert status == -signal.SIGSEGV
    assert told(ending) == (at.ENDING_SIGNAL, signal.SIGSEGV, None)


@native
def test_the_programs_own_handler(run_python: Run) -> None:
    """A signal that a handler of the program deals with is no end, and a signal that is ignored stays ignored."""
    run_python(
        PREPARE
        + """
from otel_trading import lifecycle
seen = []
signal.signal(signal.SIGABRT, lambda number, frame: seen.append(number))
signal.signal(signal.SIGFPE, signal.SIG_IGN)
core.note_signals(True)
signal.raise_signal(signal.SIGABRT)
signal.raise_signal(signal.SIGFPE)
signal.raise_signal(signal.SIGABRT)
assert seen == [signal.SIGABRT] * 2, seen
fd = os.open(lifecycle._host.path, os.O_RDONLY)
assert core.Reader(fd).life()["ending"]["kind"] == 0
core.note_signals(False)
signal.raise_signal(signal.SIGABRT)
assert len(seen) == 3
"""
    )


@native
def test_after_the_segment_is_closed(run_python: Run) -> None:
    """The handler has nowhere to write, and the process ends as it would have."""
    done = run_python(PREPARE + NOTE + "ot.shutdown(1.0)\n" + SEGFAULT, check=False)
    assert done.returncode == -signal.SIGSEGV
    done = run_python(PREPARE + NOTE + "core.close()\nos.abort()\n", check=False)
    assert done.returncode == -signal.SIGABRT


@native
def test_the_next_segment(last_words: Callable[[str], Any]) -> None:
    """What is noted is noted in the segment that is open then."""
    status, ending, _ = last_words(NOTE + 'ot.shutdown(1.0)\not.configure("dying")\n' + NOTE + SEGFAULT)
    assert status == -signal.SIGSEGV
    assert told(ending) == (at.ENDING_SIGNAL, signal.SIGSEGV, None)


@native
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork here")
@pytest.mark.parametrize("records", [False, True])
def test_a_forked_child_that_crashes(run_python: Run, *, records: bool) -> None:
    """It ends as it would have, and says so in its own segment, never in its parent's."""
    run_python(
        PREPARE
        + f"""
import pathlib
from otel_trading import lifecycle
core.note_signals(True)
mine = lifecycle._host.path
child = os.fork()
if child == 0:
    if {records}:
        with ot.probe("child"): pass
    ctypes.string_at(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV
told = {{}}
for path in pathlib.Path(mine).parent.rglob("*.seg"):
    fd = os.open(path, os.O_RDONLY)
    told[str(path) == str(mine)] = core.Reader(fd).life()["ending"]["kind"]
assert told == ({{True: 0, False: 3}} if {records} else {{True: 0}}), told
"""
    )


@native
def test_a_closed_segments_memory_is_given_back(run_python: Run) -> None:
    """Noting keeps no part of a file that is closed and removed."""
    run_python(
        PREPARE
        + NOTE
        + """
ot.shutdown(1.0)
maps = open("/proc/self/maps").read()
assert ".seg" not in maps, maps
paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
links = [os.readlink(path) for path in paths if os.path.islink(path)]
assert not any("/stat" in link or ".seg" in link for link in links), links
"""
    )


def test_a_killed_process_has_told_nothing(last_words: Callable[[str], Any]) -> None:
    """SIGKILL leaves no time for it."""
    status, ending, _ = last_words(NOTE + "os.kill(os.getpid(), signal.SIGKILL)\n")
    assert status == -signal.SIGKILL
    assert ending == NOTHING


def test_what_was_told_before_a_kill_is_there(last_words: Callable[[str], Any]) -> None:
    """The segment is shared memory: nothing has to be flushed."""
    status, ending, _ = last_words('core.ending(2, 1, "KeyError")\nos.kill(os.getpid(), signal.SIGKILL)\n')
    assert status == -signal.SIGKILL
    assert told(ending) == (at.ENDING_EXCEPTION, 1, "KeyError")
