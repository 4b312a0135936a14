"""What is wrong in a configuration, each mistake with its place."""

from __future__ import annotations

from otel_trading.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Problem:
    """One mistake: ``key`` is the full path of a key, or the name of a variable; ``line`` counts from 1."""

    __slots__ = ("file", "key", "line", "message")

    def __init__(self, key: str, message: str, file: str | None = None, line: int | None = None) -> None:
        """Say what is wrong with ``key``, and where in a file it is."""
        self.key = key
        self.message = message
        self.file = file
        self.line = line

    def __str__(self) -> str:
        place = f" ({self.file}, line {self.line})" if self.line else f" ({self.file})" if self.file else ""
        return f"{self.key}: {self.message}{place}"

    def __repr__(self) -> str:
        return f"<Problem {self}>"


class InvalidConfigurationError(ConfigurationError):
    """A configuration with mistakes: ``problems`` has all of them.

    ``unreadable`` tells that a file could not be read, so that there may be more.
    """

    def __init__(self, problems: Sequence[Problem], *, unreadable: bool = False) -> None:
        """Take all mistakes, in the order in which they are told."""
        super().__init__("otel-trading cannot be configured:\n  " + "\n  ".join(map(str, problems)))
        self.problems = tuple(problems)
        self.unreadable = unreadable


class ItemsError(ValueError):
    """Mistakes in the items of one value: (what follows the key's path, message) of each."""

    def __init__(self, items: Sequence[tuple[str, str]]) -> None:
        """Take at least one."""
        super().__init__("; ".join(f"{where}: {message}" for where, message in items))
        self.items = tuple(items)
