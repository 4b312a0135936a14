"""What is known of a key."""

from __future__ import annotations

from otel_trading.config.values import same_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Key:
    """A key: ``variables`` are asked in turn, and ``parse`` makes of their text what ``read`` takes."""

    __slots__ = ("default", "meaning", "parse", "read", "variables")

    def __init__(
        self,
        default: object,
        read: Callable[[Any], Any],
        meaning: str,
        variables: tuple[str, ...] = (),
        parse: Callable[[str], object] = same_text,
    ) -> None:
        """Describe a key."""
        self.default = default
        self.read = read
        self.meaning = meaning
        self.variables = variables
        self.parse = parse
