"""``otel-trading run``: the command is itself, but for being instrumented."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import child_environment, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

RUN = [sys.executable, "-m", "otel_trading", "run"]
PYTHON = sys.executable

# Tells, as JSON on standard output, how this process is instrumented.
STATE = """
import json, os, sys
from opentelemetry import trace
provider = type(trace.get_tracer_provider())
print(json.dumps({"pid": os.getpid(), "provider": f"{provider.__module__}.{provider.__qualname__}",
                  "argv": sys.argv[1:], "path": os.environ["PYTHONPATH"].split(os.pathsep)[0]}), flush=True)
"""
OURS = "otel_trading.api.provider.TracerProvider"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Give an environment in which nothing is exported, with segments in the test's directory."""
    directory = tmp_path / "segments"
    return child_environment(directory, OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none")


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Give a function that runs a command by ``otel-trading run``; ``options`` are run's own."""

    def done(
        *command: str, options: tuple[str, ...] = ("--quiet",), stdin: str | None = None, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*RUN, *options, "--", *command],
            env={**environment, **changes},
            cwd=tmp_path,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return done


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_codes(run: Callable[..., subprocess.CompletedProcess[str]], code: int) -> None:
    """The exit code is the command's, of Python and of anything else."""
    assert run(PYTHON, "-c", f"raise SystemExit({code})").returncode == code
    assert run("sh", "-c", f"exit {code}").returncode == code


def test_commands_that_are_not_there(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """127 for a command that is not there, 126 for one that is not executable; one line says so."""
    (tmp_path / "bot.py").write_text("")
    for command, code in (("no-such-command", 127), ("./bot.py", 126), (str(tmp_path), 126)):
        done = run(command)
        assert done.returncode == code
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("otel-trading: ")


def test_python_is_instrumented(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The provider is ours without a change of the program, and its arguments reach it."""
    done = run(PYTHON, "-c", STATE, "--quiet", "--service", "x", "a b")
    state = json.loads(done.stdout)
    assert state["provider"] == OURS
    assert state["argv"] == ["--quiet", "--service", "x", "a b"]
    assert done.stderr == ""


def test_the_checklist_is_printed_once(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """One checklist, on standard error, of the process that was started; none of its children."""
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {STATE!r}], check=True)"
    done = run(PYTHON, "-c", child, options=("--service", "checked"))
    assert done.returncode == 0
    assert json.loads(done.stdout)["provider"] == OURS
    assert done.stderr.count("otel-trading:") == 1
    assert "checked-" in done.stderr
    assert "\u2713 websockets" in done.stderr
    assert "spans go to no exporter" in done.stderr


def test_what_is_not_python_runs_untouched(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Standard streams of another program are its own, and it prints no checklist."""
    done = run("sh", "-c", "cat; echo told >&2", stdin="a\nb\n", options=())
    assert (done.stdout, done.stderr, done.returncode) == ("a\nb\n", "told\n", 0)


def test_a_reader_that_leaves_ends_the_command(environment: dict[str, str]) -> None:
    """SIGPIPE has its default action, which Python itself does not leave to a child by exec."""
    with subprocess.Popen(
        [*RUN, "--quiet", "--", "yes"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(2)
        process.stdout.close()
        assert process.wait(30) == -signal.SIGPIPE


def test_the_pid_is_the_commands(environment: dict[str, str]) -> None:
    """The command has taken the place of what was started: its pid, and its parent."""
    with subprocess.Popen(
        [*RUN, "--quiet", "--", PYTHON, "-c", STATE], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        out, _ = process.communicate(timeout=60)
        assert json.loads(out)["pid"] == process.pid


def test_sigterm_ends_it_as_it_would_without_us(environment: dict[str, str], tmp_path: Path) -> None:
    """SIGTERM to the pid ends the command by SIGTERM, and the open span is not lost meanwhile."""
    program = (
        "import signal, otel_trading as ot\n"
        "with ot.probe('waiting'):\n    print('ready', flush=True)\n    signal.pause()\n"
    )
    with subprocess.Popen(
        [*RUN, "--quiet", "--exporter", "console", "--", PYTHON, "-c", program],
        env={**environment, "OTEL_METRICS_EXPORTER": "none"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert '"name": "waiting"' in out
    assert list((tmp_path / "segments").glob("*.seg")) == []


def test_a_handler_of_the_programs_gets_the_signal(environment: dict[str, str]) -> None:
    """A program that handles SIGTERM itself does so."""
    program = (
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\nsignal.pause()\n"
    )
    with subprocess.Popen(
        [*RUN, "--quiet", "--", PYTHON, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 42


def test_ctrl_c_on_a_terminal(environment: dict[str, str]) -> None:
    """Ctrl-C on the terminal interrupts the command, once, and the terminal is its standard streams."""
    program = (
        "import signal, sys\nassert sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()\n"
        "try:\n    print('ready', flush=True)\n    signal.pause()\n"
        "except KeyboardInterrupt:\n    print('interrupted', flush=True)\n    sys.exit(3)\n"
    )
    # A process between, which has the terminal's other end.  A suite that runs in the background ignores SIGINT, and
    # what is ignored is inherited.
    terminal = (
        "import os, pty, signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    )
    with subprocess.Popen(
        [PYTHON, "-c", terminal, *RUN, "--quiet", "--", PYTHON, "-c", program],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("\x03")
        process.stdin.flush()
        out = process.stdout.read()
        assert process.wait(60) == 3
    assert out.count("interrupted") == 1


def test_children_are_instrumented(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """Processes of a spawning pool, and their own children, are instrumented too, and print nothing more."""
    program = tmp_path / "pools.py"
    program.write_text(
        """
import json, multiprocessing, subprocess, sys
from opentelemetry import trace

def name():
    provider = type(trace.get_tracer_provider())
    return f"{provider.__module__}.{provider.__qualname__}"

def inner(_):
    code = "import pools, json; print(json.dumps(pools.name()))"
    return name(), json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        print(json.dumps(pool.map(inner, range(2))))
""",
        encoding="utf-8",
    )
    done = run(PYTHON, str(program), options=(), PYTHONSAFEPATH="")
    assert json.loads(done.stdout) == [[OURS, OURS]] * 2
    assert done.stderr.count("otel-trading:") == 1


def test_pythons_own_helper_makes_no_segment(
    run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """The resource tracker, which multiprocessing starts beside its children, is left alone."""
    program = (
        "import os, otel_trading as ot\nfrom multiprocessing import resource_tracker as r, shared_memory\n"
        "memory = shared_memory.SharedMemory(create=True, size=16)\n"
        "memory.close(); memory.unlink()\nr._resource_tracker._stop()\n"
        f"print(len(os.listdir({str(tmp_path / 'segments')!r})))\n"
    )
    done = run(PYTHON, "-c", program)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_another_sitecustomize_still_runs(
    run: Callable[..., subprocess.CompletedProcess[str]], environment: dict[str, str], tmp_path: Path
) -> None:
    """A sitecustomize that ours hides from Python is run, before ours."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text("import builtins\nbuiltins.theirs = 1\n")
    path = os.pathsep.join([str(tmp_path / "theirs"), environment["PYTHONPATH"]])
    done = run(PYTHON, "-c", STATE + "\nassert theirs == 1 and sys.modules['sitecustomize'].builtins", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["provider"] == OURS


def test_a_python_without_our_package(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """A Python that has not got otel-trading runs as it is; the checklist says why, and nothing else is said."""
    program = tmp_path / "python"
    # -S leaves out the packages of the environment, and with them our own; sitecustomize is then ours to call.
    program.write_text(f'#!/bin/sh\nexec {PYTHON} -S -c "import sitecustomize; print(5)"\n')
    program.chmod(0o700)
    done = run(str(program), options=(), PYTHONPATH=str(tmp_path / "nowhere"), PYTHONSAFEPATH="1")
    assert done.stdout == "5\n"
    assert done.stderr.count("\n") == 1
    assert "has no otel-trading" in done.stderr


def test_mistakes_do_not_stop_the_program(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """With a wrong configuration the program runs, uninstrumented, and every mistake is told once."""
    (tmp_path / "bot.yaml").write_text("ring.slot: 5\nexport.queue: none\n", encoding="utf-8")
    program = (
        "from opentelemetry import trace\n"
        "with trace.get_tracer('x').start_as_current_span('y') as span:\n    print(span.is_recording())\n"
    )
    done = run(PYTHON, "-c", program, options=("--quiet", "--config", "bot.yaml"))
    assert (done.stdout, done.returncode) == ("False\n", 0)
    assert done.stderr.count("ring.slot: no such key; did you mean ring.slots?") == 1
    assert done.stderr.count("export.queue: 'none' is not a whole number") == 1


def test_options_reach_the_program(run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """The service's name and the directory are those of the options."""
    program = (
        "import os, otel_trading as ot\nfrom otel_trading.segment import segments\n"
        "(one,) = segments()\nprint(one.service, one.pid == os.getpid(), os.path.dirname(one.path))\n"
    )
    done = run(PYTHON, "-c", program, options=("--quiet", "--service", "named", "--dir", "other"))
    assert done.stdout == f"named True {tmp_path / 'other'}\n"


def test_the_locale_is_the_one_that_was_given(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """What Python sets for itself in the C locale does not reach the command."""
    given = {"LC_ALL": "", "LANG": "C"}
    assert "LC_CTYPE" not in run("env", **given).stdout
    assert "LC_CTYPE=C\n" in run("env", LC_CTYPE="C", **given).stdout


def test_a_killed_command_leaves_its_segment(environment: dict[str, str], tmp_path: Path) -> None:
    """SIGKILL gives the shell's 137 to whoever waits, and what was open is still in the segment."""
    program = (
        "import os, signal, otel_trading as ot\nwith ot.probe('last'):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with subprocess.Popen([*RUN, "--quiet", "--", PYTHON, "-c", program], env=environment) as process:
        assert process.wait(60) == -signal.SIGKILL
    wait_until(lambda: list((tmp_path / "segments").glob("*.seg")))
