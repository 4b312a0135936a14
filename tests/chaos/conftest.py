"""How long the chaos suite goes on: a short form in the ordinary suite, the long one by ``make chaos``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def rounds() -> Callable[[int, int], int]:
    """Give a function that chooses between a short and a long number of rounds."""
    long = os.environ.get("CHAOS") == "long"
    return lambda few, many: many if long else few


@pytest.fixture
def figures() -> Callable[..., None]:
    """Give a function that notes what was measured: a line of ``build/chaos.jsonl`` each, where CHAOS=long."""

    def note(what: str, **found: object) -> None:
        if os.environ.get("CHAOS") != "long":
            return
        path = Path(__file__).resolve().parent.parent.parent / "build" / "chaos.jsonl"
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, **found}) + "\n")

    return note
