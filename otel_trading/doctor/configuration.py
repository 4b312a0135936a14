"""Whether the configuration is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_trading.doctor.check import FAIL, OK, WARN, Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_trading.doctor.check import Situation

_NAME = "configuration"


def checks(situation: Situation) -> Iterator[Check]:
    """Give each mistake and each note."""
    found = situation.effective
    for problem in found.problems:
        yield Check(_NAME, FAIL, str(problem), "correct it; then: otel-trading config check")
    for note in found.notes:
        yield Check(_NAME, WARN, note, "correct or remove it")
    from otel_trading.config import sdk_disabled

    if sdk_disabled():
        yield Check(_NAME, WARN, "OTEL_SDK_DISABLED is true: nothing is recorded", "unset OTEL_SDK_DISABLED")
    elif not situation.settings.enabled:
        source = situation.settings.sources["enabled"]
        yield Check(_NAME, WARN, f"recording is switched off by {source}", "set enabled to true")
    if not found.problems:
        changed = sum(source != "default" for source in situation.settings.sources.values())
        where = found.file or "without a file"
        yield Check(_NAME, OK, f"{where}; {changed} of {len(situation.settings.sources)} settings are not the default")
