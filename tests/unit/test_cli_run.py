"""What ``otel-trading run`` sets before it becomes the command."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from otel_trading.cli import main
from otel_trading.run import launch
from otel_trading.run.launch import CommandError, Options

if TYPE_CHECKING:
    from collections.abc import Iterator

INJECT = str(Path(launch.__file__).parent / "inject")


def test_the_environment() -> None:
    """Our distro and configurator are forced, our folder is first on PYTHONPATH, and the rest stays."""
    made = launch.environment(Options(), {"A": "b", "PYTHONPATH": "/x:/y", "OTEL_PYTHON_DISTRO": "other"})
    assert made == {
        "A": "b",
        "OTEL_PYTHON_DISTRO": "otel_trading",
        "OTEL_PYTHON_CONFIGURATOR": "otel_trading",
        "OTEL_TRADING_CHECKLIST": "1",
        "PYTHONPATH": os.pathsep.join([INJECT, "/x", "/y"]),
    }


def test_the_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each option is its variable; paths are made absolute, as the command may change its directory."""
    monkeypatch.chdir(tmp_path)
    made = launch.environment(Options("bot", "segments", "bot.yaml", "otlp,console", quiet=True), {})
    assert made["OTEL_SERVICE_NAME"] == "bot"
    assert made["OTEL_TRADING_DIR"] == str(tmp_path / "segments")
    assert made["OTEL_TRADING_CONFIG"] == str(tmp_path / "bot.yaml")
    assert (made["OTEL_TRACES_EXPORTER"], made["OTEL_METRICS_EXPORTER"]) == ("otlp,console", "otlp,console")
    assert "OTEL_TRADING_CHECKLIST" not in made
    assert made["PYTHONPATH"] == INJECT


def test_run_within_run() -> None:
    """A second time, the folder is there once."""
    once = launch.environment(Options(), {})
    assert launch.environment(Options(), once) == once


@pytest.mark.parametrize(
    ("names", "traces", "metrics"),
    [("none", "none", "none"), ("prometheus", "none", "prometheus"), ("otlp, prometheus", "otlp", "otlp,prometheus")],
)
def test_exporters_go_where_they_exist(names: str, traces: str, metrics: str) -> None:
    """An exporter is named for the signals that it is there for."""
    assert launch.exporters(names) == {"OTEL_TRACES_EXPORTER": traces, "OTEL_METRICS_EXPORTER": metrics}


@pytest.mark.parametrize("names", ["zzz", "", "otlp,zzz"])
def test_unknown_exporters(capsys: pytest.CaptureFixture[str], names: str) -> None:
    """An exporter that is not installed is told with those that are, and nothing is run."""
    assert main.main(["run", "--exporter", names, "--", "true"]) == 2
    assert "is no exporter that is installed; there are console" in capsys.readouterr().err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a directory that is the only one on PATH, and the current one elsewhere."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_commands_that_can_not_be_run(folder: Path) -> None:
    """127 where there is no such command, 126 where there is something else; each with what to do."""
    (folder / "bin" / "plain").write_text("")
    (folder / "bin" / "folder").mkdir()
    (folder / "here" / "bot.py").write_text("")
    for command, code, said in [
        ("nosuch", 127, "there is no such command"),
        ("./nosuch", 127, "there is no such command"),
        ("", 127, "there is no such command"),
        ("a\0b", 127, "there is no such command"),
        ("folder", 127, "there is no such command"),
        ("bot.py", 127, "for the file here write ./bot.py"),
        ("./bot.py", 126, "run it as: python ./bot.py"),
        ("plain", 126, "is not executable: chmod +x"),
        (str(folder), 126, "is a directory"),
    ]:
        with pytest.raises(CommandError, match=r".") as caught:
            launch.find(command)
        assert caught.value.exit_code == code, command
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [("echo hi\n", 126, "a script needs a first line"), ("#!/nonexistent/x\n", 127, "its interpreter is not there")],
)
def test_programs_that_the_system_refuses(folder: Path, content: str, code: int, said: str) -> None:
    """What is executable and yet no program is told, with the shell's code."""
    (folder / "bin" / "script").write_text(content)
    (folder / "bin" / "script").chmod(0o700)
    before = signal.getsignal(signal.SIGPIPE), signal.getsignal(signal.SIGXFSZ)
    try:
        with pytest.raises(CommandError) as caught:
            launch.replace(["script"], dict(os.environ))
    finally:
        signal.signal(signal.SIGPIPE, before[0])
        signal.signal(signal.SIGXFSZ, before[1])
    assert caught.value.exit_code == code
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--", "python", "bot.py", "--quiet"], ["python", "bot.py", "--quiet"]),
        (["python", "--", "x"], ["python", "--", "x"]),
        (["--quiet", "--", "--odd", "--service", "x"], ["--odd", "--service", "x"]),
        (["--service", "a", "python", "--service", "b"], ["python", "--service", "b"]),
        (["--", "--", "x"], ["--", "x"]),
    ],
)
def test_the_commands_arguments_are_its_own(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], command: list[str]
) -> None:
    """What follows the command, or "--", reaches it as it is."""
    seen: list[list[str]] = []

    class Replaced(Exception):  # noqa: N818
        pass

    def replace(found: list[str], _environment: dict[str, str]) -> NoReturn:
        seen.append(found)
        raise Replaced

    monkeypatch.setattr(launch, "replace", replace)
    with pytest.raises(Replaced):
        main.main(["run", *arguments])
    assert seen == [command]


def test_run_what(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command, how to write one is told."""
    assert main.main(["run", "--quiet"]) == 2
    assert "otel-trading run -- python bot.py" in capsys.readouterr().err
