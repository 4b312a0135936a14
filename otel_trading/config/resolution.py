"""Defaults, the file, the environment and the arguments put together; later ones win."""

from __future__ import annotations

import os

from otel_trading.config.agent_keys import AGENT
from otel_trading.config.budget_keys import BUDGET
from otel_trading.config.keys import KEYS, LIMITS
from otel_trading.config.mapping import flatten
from otel_trading.config.problems import InvalidConfigurationError, ItemsError, Problem
from otel_trading.config.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_trading.config.file import File

_VARIABLE = "OTEL_TRADING_CONFIG"
_SERVICE = "service.name"


class _Level:
    """What one source says: the checked value of each key that it has, and where it has it."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}
        self.sources: dict[str, str] = {}

    def put(self, key: str, value: object, source: str, complain: Callable[[str, str], None], place: str = "") -> None:
        """Check and take a value; mistakes are told as those of ``place``, the key itself by default."""
        if value is None and KEYS[key].default in (None, ()):
            return  # as if it were not there
        place = place or key
        try:
            self.values[key] = KEYS[key].read(value)
            self.sources[key] = source
        except ItemsError as error:
            for where, message in error.items:
                complain(place + where, message)
        except (ValueError, OverflowError) as error:
            complain(place, str(error))

    def finish(self) -> None:
        """Take the service's name out of the resource, where it is a plain attribute."""
        resource = self.values.get("resource")
        if isinstance(resource, dict) and _SERVICE in resource:
            name = resource.pop(_SERVICE)
            if name and "service" not in self.values:
                self.values["service"] = str(name)
                self.sources["service"] = self.sources["resource"]


def sdk_disabled() -> bool:
    """Tell whether ``OTEL_SDK_DISABLED`` asks for no telemetry at all."""
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def resolve(
    service: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    config: Mapping[str, object] | str | os.PathLike[str] | None = None,
) -> Settings:
    """Put defaults, the file, the environment and the arguments together; later ones win.

    The file is that of ``config`` where it is a path, else of ``OTEL_TRADING_CONFIG``.  Attributes of the resource are
    put together one by one, all other keys as a whole.

    Raises InvalidConfigurationError, a ConfigurationError, that has every mistake there is.
    """
    problems: list[Problem] = []
    file = _file(config)
    levels = [
        _of_file(file, problems),
        _of_environment(problems),
        _of_arguments(service, directory, config, problems),
    ]
    for level in levels:
        level.finish()
    settings = combine(levels)
    problems += _contradictions(settings)
    if problems:
        raise InvalidConfigurationError(problems, unreadable=file is not None and file.unreadable)
    return settings


def _file(config: object) -> File | None:
    path = os.environ.get(_VARIABLE, "").strip()
    if isinstance(config, (str, os.PathLike)):
        path = os.fsdecode(config)
        if not path:
            return None
    if not path:
        return None
    from otel_trading.config import file  # with PyYAML

    return file.load(path)


def _of_file(file: File | None, problems: list[Problem]) -> _Level:
    level = _Level()
    if file is None:
        return level
    for key, value in flatten(file.values, file.complain).items():
        level.put(key, value, f"{file.path}, line {file.line(key)}", file.complain)
    if "directory" in level.values:
        level.values["directory"] = os.path.join(os.path.dirname(file.path), str(level.values["directory"]))
    problems += sorted(file.problems, key=lambda problem: problem.line or 0)
    return level


def _of_environment(problems: list[Problem]) -> _Level:
    level = _Level()
    for name, key in KEYS.items():
        for variable in key.variables:
            text = os.environ.get(variable, "").strip()
            if not text:
                continue
            level.put(name, key.parse(text), variable, _complainer(problems), variable)
            break
    return level


def _contradictions(settings: Settings) -> list[Problem]:
    """Tell where thresholds of the engine stand in the wrong order."""
    problems = []
    for what in ("cpu", "memory"):
        mild, hard = f"engine.stressed_{what}", f"engine.emergency_{what}"
        if settings.values[mild] > settings.values[hard]:  # type: ignore[operator]
            problems.append(Problem(hard, f"{settings.values[hard]:g} is below {mild}, {settings.values[mild]:g}"))
    return problems


def _complainer(problems: list[Problem]) -> Callable[[str, str], None]:
    def complain(key: str, message: str) -> None:
        problems.append(Problem(key, message))

    return complain


def _of_arguments(service: object, directory: object, config: object, problems: list[Problem]) -> _Level:
    level = _Level()
    complain = _complainer(problems)
    flat: dict[str, object] = {}
    if hasattr(config, "items"):
        flat = flatten(config, complain)  # type: ignore[arg-type]
    elif config is not None and not isinstance(config, (str, os.PathLike)):
        complain("config", f"{config!r} is neither a mapping nor the path of a file")
    elif config is not None and not os.fsdecode(config):
        complain("config", f"{config!r} is not a path")
    for name, value in (("service", service), ("directory", directory)):
        if value is not None:
            flat[name] = value
    for key, value in flat.items():
        level.put(key, value, "argument", complain)
    return level


def combine(levels: list[_Level]) -> Settings:
    """Take each key from the last level that has it, else its default."""
    settings = Settings()
    settings.values, settings.sources = {}, {}
    for key, described in KEYS.items():
        value, source = described.default, "default"
        for level in levels:
            if key in level.values:
                value, source = level.values[key], level.sources[key]
        settings.values[key], settings.sources[key] = value, source
        if key not in LIMITS and key not in BUDGET and key not in AGENT:
            setattr(settings, key.replace(".", "_"), value)
    settings.limits = tuple(settings.values[key] for key in LIMITS)  # type: ignore[assignment]
    resource: dict[str, object] = {}
    said = []
    for level in levels:
        found = level.values.get("resource")
        if isinstance(found, dict) and found:
            resource.update(found)
            said.append(level.sources["resource"])
    settings.resource = settings.values["resource"] = resource
    settings.sources["resource"] = "; ".join(said) or "default"
    return settings
