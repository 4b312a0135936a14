"""All checks, one after the other; one that breaks is itself a finding."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from otel_trading.config.effective import Effective, plain_settings
from otel_trading.doctor.check import FAIL, Check, Situation
from otel_trading.segment import default_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

CONCERNS = ("configuration", "backend", "recorder", "agent", "budget", "distro", "instrumentors", "exporters", "clocks")


def examine(timeout: float = 5.0) -> Iterator[Check]:
    """Give each finding as it is made."""
    effective = Effective()
    settings = effective.settings or plain_settings()
    situation = Situation(effective, settings, settings.directory or default_directory(), timeout)
    for concern in CONCERNS:
        try:
            yield from importlib.import_module(f"otel_trading.doctor.{concern}").checks(situation)
        except Exception as error:  # noqa: BLE001  the other checks are wanted all the same
            yield Check(concern, FAIL, f"the check itself failed: {type(error).__name__}: {error}", "report this")
