"""Tiers by name: the globs of the key ``tiers``."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def matcher(tiers: Sequence[tuple[str, int]]) -> Callable[[str], int | None]:
    """Give a function that tells the tier of a name: that of the first glob that matches, None without one.

    Globs are the shell's: ``*``, ``?``, ``[seq]``; case counts, and ``*`` takes dots too.
    """
    if not tiers:
        return lambda _name: None
    import re
    from fnmatch import translate

    compiled = [(re.compile(translate(glob)).match, tier) for glob, tier in tiers]

    def tier_of(name: str) -> int | None:
        for match, tier in compiled:
            if match(name):
                return tier
        return None

    return tier_of
