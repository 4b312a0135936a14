"""What a process tells of its end: exits, exceptions that nobody caught, signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import otel_trading as ot
from otel_trading import _layout as at
from otel_trading import uncaught
from otel_trading._backend import core

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Recorder

    Run = Callable[..., subprocess.CompletedProcess[str]]

START = """
import os, signal, sys, threading
import otel_trading as ot
from otel_trading import lifecycle
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite that runs in the background ignores it
ot.configure("ends")
os.link(lifecycle.own_segment(), "segment")
"""


@pytest.fixture
def life(run_python: Run, tmp_path: Path) -> Callable[..., tuple[Any, ...]]:
    """Give a function that runs a program, and gives its exit code, what its segment tells of its end, and stderr."""

    def run(code: str, start: str = START) -> tuple[Any, ...]:
        done = run_python(start + code, check=False)
        reader = ot.segment.attach(tmp_path / "segment")
        ending = reader.life()["ending"]
        events = [(event["name"], event["key"]) for event in reader.vitals()]
        reader.close()
        return done.returncode, (ending["kind"], ending["code"], ending["name"]), events, done.stderr

    return run


def test_an_orderly_end(life: Callable[..., Any]) -> None:
    """It is an exit; its code can not be known from inside."""
    code, ending, _, stderr = life("")
    assert (code, ending, stderr) == (0, (at.ENDING_EXIT, -1, None), "")


@pytest.mark.parametrize("code", ["sys.exit(3)", "raise SystemExit('no')"])
def test_exit_codes_are_the_kernel_s(life: Callable[..., Any], code: str) -> None:
    """An exit with a code is none with an exception."""
    status, ending, events, _ = life(code)
    assert status != 0
    assert (ending, events) == ((at.ENDING_EXIT, -1, None), [])


def test_an_exception_that_nobody_caught(life: Callable[..., Any]) -> None:
    """Its type is told, with its module, and never its text; Python shows it as ever."""
    code, ending, _, stderr = life("import json\njson.loads('secret')\n")
    assert (code, ending) == (1, (at.ENDING_EXCEPTION, 1, "json.decoder.JSONDecodeError"))
    assert stderr.rstrip().endswith("JSONDecodeError: Expecting value: line 1 column 1 (char 0)")


def test_an_exception_of_python_itself(life: Callable[..., Any]) -> None:
    """It has no module's name."""
    assert life("1 / 0")[1] == (at.ENDING_EXCEPTION, 1, "ZeroDivisionError")


def test_the_hook_that_was_there_is_called(life: Callable[..., Any]) -> None:
    """Also where it is the program's own, whether put in before or after ours."""
    start = "import sys\nsys.excepthook = lambda *_: print('shown by its own hook', file=sys.stderr)\n" + START
    code, ending, _, stderr = life("1 / 0", start)
    assert (code, ending, stderr) == (1, (at.ENDING_EXCEPTION, 1, "ZeroDivisionError"), "shown by its own hook\n")


def test_a_hook_that_is_called_by_hand_is_no_end(life: Callable[..., Any]) -> None:
    """A program that shows an exception and goes on has not ended by it."""
    ending, stderr = life("try:\n    1 / 0\nexcept ArithmeticError:\n    sys.excepthook(*sys.exc_info())\n")[1::2]
    assert ending == (at.ENDING_EXIT, -1, None)
    assert "ZeroDivisionError" in stderr


def test_a_thread_that_dies_is_no_end(life: Callable[..., Any]) -> None:
    """It is a critical event, with the exception's type."""
    code = "t = threading.Thread(target=lambda: 1 / 0)\nt.start()\nt.join()\n"
    status, ending, events, stderr = life(code)
    assert (status, ending) == (0, (at.ENDING_EXIT, -1, None))
    assert events == [("thread.exception", "ZeroDivisionError")]
    assert stderr.count("ZeroDivisionError") == 1


def test_a_thread_that_exits_is_nothing(life: Callable[..., Any]) -> None:
    """``sys.exit`` in a thread ends only that."""
    assert life("t = threading.Thread(target=sys.exit)\nt.start()\nt.join()\n")[1:3] == ((at.ENDING_EXIT, -1, None), [])


def test_a_task_s_exception_is_no_end(life: Callable[..., Any]) -> None:
    """That is told by asyncio, in its own way."""
    status, ending, events, stderr = life(
        "import asyncio\n"
        "async def fails():\n"
        "    raise RuntimeError\n"
        "async def program():\n"
        "    task = asyncio.create_task(fails())\n"
        "    await asyncio.sleep(0.01)\n"
        "asyncio.run(program())\n"
    )
    assert (status, ending, events) == (0, (at.ENDING_EXIT, -1, None), [])
    assert "never retrieved" in stderr


def test_a_keyboard_interrupt_is_a_signal(life: Callable[..., Any]) -> None:
    """Python ends by SIGINT itself then."""
    status, ending, _, _ = life("signal.raise_signal(signal.SIGINT)")
    assert (status, ending) == (-signal.SIGINT, (at.ENDING_SIGNAL, int(signal.SIGINT), "KeyboardInterrupt"))


def test_sigterm(life: Callable[..., Any]) -> None:
    """It is told, and does what it always did."""
    status, ending, _, _ = life("os.kill(os.getpid(), signal.SIGTERM)\nsignal.pause()\n")
    assert (status, ending) == (-signal.SIGTERM, (at.ENDING_SIGNAL, int(signal.SIGTERM), None))


@pytest.mark.parametrize("how", ["os._exit(4)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_can_not_be_known(life: Callable[..., Any], how: str) -> None:
    """Nothing is told of an end that leaves no time for it."""
    assert life(how)[1] == (at.ENDING_NONE, 0, None)


@pytest.mark.skipif(sys.platform != "linux", reason="the native backend notes these on Linux")
def test_a_fault_of_the_machine(life: Callable[..., Any]) -> None:
    """The native backend tells the signal; Python can not."""
    status, ending, _, _ = life("import ctypes\nctypes.string_at(0)\n")
    told = (at.ENDING_SIGNAL, int(signal.SIGSEGV), None) if core.BACKEND == "native" else (at.ENDING_NONE, 0, None)
    assert (status, ending) == (-signal.SIGSEGV, told)


def test_a_fault_of_the_machine_is_shown_by_faulthandler(life: Callable[..., Any]) -> None:
    """What was there before still runs."""
    status, _, _, stderr = life(
        "import ctypes\nctypes.string_at(0)\n", "import faulthandler\nfaulthandler.enable()\n" + START
    )
    assert status == -signal.SIGSEGV
    assert "Segmentation fault" in stderr


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass", [at.ENDING_EXIT, -1, None]),
        ("sys.exit(7)", [at.ENDING_EXIT, 7, None]),
        ("sys.exit('text')", [at.ENDING_EXIT, 1, None]),
        ("1 / 0", [at.ENDING_EXCEPTION, 1, "ZeroDivisionError"]),
    ],
)
def test_a_child_of_multiprocessing(run_python: Run, tmp_path: Path, body: str, expected: list[Any]) -> None:
    """There the code is known: the child runs its finalizers while the exception is on its way out."""
    run_python(
        "import multiprocessing, os, sys, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "import otel_trading as ot\n"
        "from otel_trading import lifecycle\n"
        "def child():\n"
        "    with ot.probe('x'): pass\n"
        "    os.link(lifecycle.own_segment(), 'segment')\n"
        f"    {body}\n"
        "if __name__ == '__main__':\n"
        "    ot.configure('parent')\n"
        "    process = multiprocessing.get_context('fork').Process(target=child)\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    reader = ot.segment.attach(tmp_path / "segment")
    ending = reader.life()["ending"]
    reader.close()
    assert json.loads(json.dumps([ending["kind"], ending["code"], ending["name"]])) == expected


def test_the_first_cause_stays(recorder: Recorder) -> None:
    """An exit replaces nothing but an exit; an exception or a signal replaces that, and stays."""
    seen = []
    for told in (
        (at.ENDING_EXIT, 3, ""),
        (at.ENDING_EXIT, -1, ""),
        (at.ENDING_EXCEPTION, 1, "KeyError"),
        (at.ENDING_SIGNAL, 15, ""),
        (at.ENDING_EXIT, 0, ""),
        (at.ENDING_NONE, 0, ""),
        (at.ENDING_SIGNAL, 15, ""),
    ):
        core.ending(*told)
        ending = recorder.segment.reader.life()["ending"]
        seen.append((ending["kind"], ending["code"], ending["name"], ending["unix_ns"] > 0))
    assert seen == [
        (at.ENDING_EXIT, 3, None, True),
        (at.ENDING_EXIT, -1, None, True),
        (at.ENDING_EXCEPTION, 1, "KeyError", True),
        (at.ENDING_EXCEPTION, 1, "KeyError", True),
        (at.ENDING_EXCEPTION, 1, "KeyError", True),
        (at.ENDING_NONE, 0, None, False),
        (at.ENDING_SIGNAL, 15, None, True),
    ]
    for wrong in ((-1, 0, ""), (4, 0, "")):
        with pytest.raises(ValueError, match="0 to 3"):
            core.ending(*wrong)


@pytest.mark.parametrize(("given", "code"), [(None, 0), (3, 3), (256, 0), (-1, 255), ("text", 1), (True, 1)])
def test_what_sys_exit_makes_of_its_argument(given: object, code: int) -> None:
    """As Python does."""
    assert uncaught.exit_code(given) == code
    code_of_python = f"import sys; sys.stderr = None; sys.exit({given!r})"
    assert subprocess.run([sys.executable, "-c", code_of_python], check=False, timeout=60).returncode == code


@pytest.mark.usefixtures("recorder")
def test_noting_signals_is_on_and_off() -> None:
    """Any number of times."""
    for on in (True, True, False, False, True):
        core.note_signals(on)
