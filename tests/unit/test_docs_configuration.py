"""docs/configuration.md: its table is the code's, and its file is a configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_trading.config import resolve
from otel_trading.config.effective import Effective
from otel_trading.config.keys import KEYS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("_budget")
def test_the_table_lists_every_key() -> None:
    """Each key stands in the table with its default, meaning and variables, in the code's order."""
    rows = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in PAGE.splitlines()
        if re.match(r"\| `[a-z_.]+` \|", line)
    ]
    shown = {line.split()[0]: line.split()[1] for line in Effective().lines()}
    assert [row[0].strip("`") for row in rows] == list(KEYS)
    for (name, default, meaning, variables), described in zip(rows, KEYS.values(), strict=True):
        assert default == shown[name.strip("`")], name
        assert meaning == described.meaning
        assert tuple(re.findall(r"`(\w+)`", variables)) == described.variables


def test_the_file_is_one(tmp_path: Path) -> None:
    """The example is read without a mistake, and says what its comments say."""
    found = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert found
    (tmp_path / "bot.yaml").write_text(found[1], encoding="utf-8")
    settings = resolve(config=tmp_path / "bot.yaml")
    assert settings.tiers == (("order.*", 0), ("risk.*", 0), ("HTTP *", 3))
    assert (settings.metrics_port, settings.shutdown_timeout, settings.logs_correlation) == (9464, 2.0, True)
