"""Arguments of the command line, with a suggestion for what was mistyped."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn


def nearest(word: str, known: Iterable[str]) -> str:
    """Give "; did you mean X?", or nothing where nothing is near."""
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


class Parser(argparse.ArgumentParser):
    """Takes docstrings as they are, and says what a mistyped option or choice may have meant."""

    def __init__(self, **options: Any) -> None:
        """Take ``argparse.ArgumentParser``'s options."""
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Tell what is wrong, what may have been meant, and where help is; exit code 2."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}{self._meant(message)}\nNext: {self.prog} --help\n")

    def _meant(self, message: str) -> str:
        unknown = re.match(r"unrecognized arguments: ([^\s=]+)", message)
        if unknown:
            return nearest(unknown[1], [option for action in self._actions for option in action.option_strings])
        wrong = re.search(r"invalid choice: '([^']*)'", message)
        if wrong:
            return nearest(wrong[1], [str(choice) for action in self._actions for choice in action.choices or ()])
        return ""
