"""Start a command so that every Python in it instruments itself.

The command takes this process's place (exec).  A parent that stays would have to pass on signals, the terminal's
process group and stopped jobs, and there are always cases in which it does not; a process that is the command itself
has its pid, standard streams, signals and exit code by nature.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
from typing import NamedTuple, NoReturn

from otel_trading.errors import OtelTradingError

NOT_FOUND = 127
NOT_EXECUTABLE = 126

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading.config import Settings

_NAME = "otel_trading"
_INJECT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inject")


class CommandError(OtelTradingError):
    """The command can not be started; ``exit_code`` is the shell's: 127 for none there, 126 for no program."""

    def __init__(self, message: str, exit_code: int) -> None:
        """Say why, and which exit code that is."""
        super().__init__(message)
        self.exit_code = exit_code


class Options(NamedTuple):
    """What the command line of ``run`` says; None is "as the environment has it"."""

    service: str | None = None
    directory: str | None = None
    config: str | None = None
    exporter: str | None = None
    quiet: bool = False


def environment(options: Options, base: dict[str, str]) -> dict[str, str]:
    """Give the command's environment: ``base``, what the options say, our distro, and our folder on PYTHONPATH.

    Raises OtelTradingError for an exporter that is not installed.
    """
    made = dict(base)
    if options.service is not None:
        made["OTEL_SERVICE_NAME"] = options.service
    if options.directory is not None:
        made["OTEL_TRADING_DIR"] = os.path.abspath(options.directory)
    if options.config is not None:
        made["OTEL_TRADING_CONFIG"] = os.path.abspath(options.config)
    if options.exporter is not None:
        made.update(exporters(options.exporter))
    # Where several distros are installed, the first one found would win.
    made["OTEL_PYTHON_DISTRO"] = made["OTEL_PYTHON_CONFIGURATOR"] = _NAME
    path = [entry for entry in made.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != _INJECT]
    made["PYTHONPATH"] = os.pathsep.join([_INJECT, *path])
    made.pop("OTEL_TRADING_CHECKLIST", None)
    if not options.quiet:
        made["OTEL_TRADING_CHECKLIST"] = "1"
    return made


def exporters(names: str) -> dict[str, str]:
    """Give the variables that name these exporters, each for the signals that it is installed for."""
    from importlib.metadata import entry_points

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    found: dict[str, list[str]] = {}
    known: set[str] = {"none", "otlp", "prometheus"}
    for signal_name in ("traces", "metrics"):
        there = {point.name for point in entry_points(group=f"opentelemetry_{signal_name}_exporter")}
        known |= there
        there |= {"none", "otlp"} | ({"prometheus"} if signal_name == "metrics" else set())
        found[signal_name] = [name for name in wanted if name in there]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise OtelTradingError(
            f"--exporter {names}: {', '.join(unknown) or 'nothing'} is no exporter that is installed; "
            f"there are {', '.join(sorted(known))}"
        )
    return {f"OTEL_{each.upper()}_EXPORTER": ",".join(those) or "none" for each, those in found.items()}


def find(command: str, path: str | None = None) -> str:
    """Give the file of a command, as the shell finds it.  Raises CommandError with the shell's exit code."""
    found = shutil.which(command, path=path)
    if found is not None:
        return found
    candidates = [command] if os.sep in command else _candidates(command, path)
    for candidate in candidates:
        try:
            status = os.stat(candidate)
        except (OSError, ValueError):
            continue
        if stat.S_ISDIR(status.st_mode):
            if os.sep in command:
                raise CommandError(f"{command} is a directory, not a program", NOT_EXECUTABLE)
            continue
        hint = f"run it as: python {command}" if command.endswith(".py") else f"chmod +x {candidate}"
        raise CommandError(f"{candidate} is not executable: {hint}", NOT_EXECUTABLE)
    if os.path.isfile(command):
        raise CommandError(f"{command} is not on PATH: for the file here write ./{command}", NOT_FOUND)
    raise CommandError(f"{command}: there is no such command", NOT_FOUND)


def _candidates(command: str, path: str | None) -> list[str]:
    folders = (path if path is not None else os.environ.get("PATH", os.defpath)).split(os.pathsep)
    return [os.path.join(folder or os.curdir, command) for folder in folders]


def provide_agent(command: list[str], environment: dict[str, str]) -> None:
    """Start the agent that the environment asks for, unless there is one; what goes wrong is said, and no more.

    Without it the program's spans wait in its segment, as far as its rings reach.  Raises CommandError where there
    is no such command: then no agent is wanted.
    """
    settings = _settings_of(environment)
    if settings is None or settings.host != "agent":
        return
    find(command[0], environment.get("PATH"))
    from otel_trading.agent import start
    from otel_trading.segment import default_directory

    idle = settings.values["agent.idle"]
    where = os.path.abspath(settings.directory or environment.get("OTEL_TRADING_DIR") or default_directory())
    wrong = start.ensure(where, environment, idle if isinstance(idle, float) else 30.0)
    if wrong is not None:
        sys.stderr.write(f"otel-trading: {wrong}\n")


def _settings_of(environment: dict[str, str]) -> Settings | None:
    """Give what the command's configuration will be; None where it has mistakes, and without telemetry."""
    from otel_trading import config
    from otel_trading.errors import ConfigurationError

    before = dict(os.environ)
    os.environ.update(environment)
    try:
        return None if config.sdk_disabled() else config.resolve()
    except ConfigurationError:
        return None
    finally:
        os.environ.clear()
        os.environ.update(before)


def replace(command: list[str], environment: dict[str, str]) -> NoReturn:
    """Become the command.  Raises CommandError where it can not be started."""
    program = find(command[0], environment.get("PATH"))
    # Python ignores these, and what is ignored stays so through exec: the command would not end when its reader does.
    for number in (signal.SIGPIPE, getattr(signal, "SIGXFSZ", None)):
        if number is not None:
            signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(program, command, environment)  # noqa: S606  without a shell is what is wanted
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        what = "its interpreter is not there" if missing else f"it can not be started ({error.strerror})"
        hint = "" if missing else "; a script needs a first line such as #!/bin/sh"
        raise CommandError(f"{program}: {what}{hint}", NOT_FOUND if missing else NOT_EXECUTABLE) from error


def own_environment() -> dict[str, str]:
    """Give this process's environment without what Python itself has added to it at its start."""
    made = dict(os.environ)
    # In the C locale, Python sets LC_CTYPE for itself; the command is to have the locale that it was given.
    if "LC_CTYPE" not in made:
        return made
    try:
        with open("/proc/self/environ", "rb") as file:
            given = dict(entry.partition(b"=")[::2] for entry in file.read().split(b"\0"))
    except OSError:
        return made
    if b"LC_CTYPE" in given:
        made["LC_CTYPE"] = os.fsdecode(given[b"LC_CTYPE"])
    else:
        del made["LC_CTYPE"]
    return made
