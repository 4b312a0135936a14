"""The command: its subcommands, its help, its exit codes."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import types
from pathlib import Path

import pytest

from otel_trading import __version__
from otel_trading.cli import demo, main
from otel_trading.errors import ConfigurationError, OtelTradingError


class Fake(types.ModuleType):
    """A subcommand that does what a test wants."""

    def __init__(self, what: BaseException | int) -> None:
        """Raise ``what``, or return it."""
        super().__init__("fake_subcommand", "A fake.\n\nIts docstring.")
        self.what = what

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take a flag."""
        parser.add_argument("--flag", action="store_true")

    def run(self, arguments: argparse.Namespace) -> int:
        """End as wanted."""
        assert arguments.flag
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what


def run_fake(monkeypatch: pytest.MonkeyPatch, what: BaseException | int, *arguments: str) -> int:
    """Run the fake as the subcommand ``fake``."""
    monkeypatch.setitem(main.SUBCOMMANDS, "fake", ("fake_subcommand", "a fake"))
    monkeypatch.setitem(sys.modules, "fake_subcommand", Fake(what))
    return main.main(["fake", *(arguments or ("--flag",))])


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_is_the_subcommands(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """What a subcommand returns is the exit code."""
    assert run_fake(monkeypatch, code) == code


class StrictError(OtelTradingError):
    """An error with a code of its own."""

    exit_code = 1


@pytest.mark.parametrize(("error", "code"), [(ConfigurationError("no such key"), 2), (StrictError("no such key"), 1)])
def test_an_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OtelTradingError, code: int
) -> None:
    """An error of ours is told in one line on standard error, without a traceback, and gives the exit code."""
    assert run_fake(monkeypatch, error) == code
    assert capsys.readouterr() == ("", "otel-trading: no such key\n")


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a bug stays visible as one."""
    with pytest.raises(ZeroDivisionError):
        run_fake(monkeypatch, ZeroDivisionError())


def test_ctrl_c_ends_tidily(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C gives 130 and one line."""
    assert run_fake(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "otel-trading: interrupted\n"


def test_a_subcommands_docstring_is_its_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--help`` after the subcommand shows the module's docstring and arguments."""
    with pytest.raises(SystemExit) as ended:
        run_fake(monkeypatch, 0, "--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: otel-trading fake" in shown
    assert "Its docstring." in shown
    assert "--flag" in shown


def test_every_subcommand_has_its_parts() -> None:
    """Each module of the table is there, has a docstring, arguments, and something to run."""
    for module, line in main.SUBCOMMANDS.values():
        assert line
        assert importlib.util.find_spec(module) is not None
        found = importlib.import_module(module)
        assert found.__doc__
        found.add_arguments(argparse.ArgumentParser())
        assert callable(found.run)


def test_without_a_subcommand_the_overview_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The bare command lists the subcommands, and could not run."""
    assert main.main([]) == 2
    shown = capsys.readouterr().out
    assert all(name in shown for name in main.SUBCOMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code", "text"), [(["--version"], 0, __version__), (["nonsense"], 2, "nonsense")]
)
def test_version_and_nonsense(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, text: str) -> None:
    """``--version`` tells it; an unknown subcommand is refused by name."""
    with pytest.raises(SystemExit) as ended:
        main.main(arguments)
    assert ended.value.code == code
    assert text in "".join(capsys.readouterr())


def test_a_subcommand_is_imported_only_when_asked_for() -> None:
    """``--version`` imports no subcommand, and nothing of what one needs."""
    program = (
        "import sys\nfrom otel_trading.cli.main import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit:\n    pass\n"
        "assert not {'otel_trading.cli.demo', 'otel_trading.demo', 'rich', 'asyncio'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_python_m_is_the_command() -> None:
    """``python -m otel_trading`` is the same program."""
    done = subprocess.run(
        [sys.executable, "-m", "otel_trading", "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"otel-trading {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--seconds", "0"],
        ["--seconds", "-1"],
        ["--seconds", "soon"],
        ["--seconds", "nan"],
        ["--rate", "0"],
        ["--rate", "1e9"],
        ["--speed", "-2"],
        ["--seed", "x"],
    ],
)
def test_the_demos_arguments_are_checked(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """A number that makes no sense is refused with the argument's name, before anything starts."""
    with pytest.raises(SystemExit) as ended:
        main.main(["demo", *arguments])
    assert ended.value.code == 2
    assert f"argument {arguments[0]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("called", "typed"),
    [
        ("/some/where/otel_trading/__main__.py", f"{sys.executable} -m otel_trading"),
        ("/opt/x/bin/otel-trading", "/opt/x/bin/otel-trading"),
        ("/usr/venv/bin/otel-trading", "/usr/venv/bin/otel-trading"),
        ("pytest", "otel-trading"),
    ],
)
def test_the_next_command_can_be_typed(monkeypatch: pytest.MonkeyPatch, called: str, typed: str) -> None:
    """What the demo suggests is called as this program was."""
    monkeypatch.setattr(sys, "argv", [called])
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.chdir("/usr")
    typed = typed.removeprefix("/usr/")
    assert demo._command() == typed


def test_a_program_on_path_is_called_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the shell finds the command by its bare name, that is what is suggested."""
    program = tmp_path / "otel-trading"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "argv", [str(program)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo._command() == "otel-trading"
