"""Each cause brought about for real, once: a child trades, gets into trouble, and dies; the right cause is told.

``tests/chaos/causes.py`` does the same many times.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from chaos.causes import TROUBLES, Told, provoke

from otel_trading.forensics import report

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def provoked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Told | None]]]:
    """Have all of them get into trouble, three at a time, while the tests wait for theirs."""
    directory = tmp_path_factory.mktemp("causes")
    with ThreadPoolExecutor(3) as pool:
        yield {name: pool.submit(provoke, name, directory / name) for name in TROUBLES}


@pytest.mark.parametrize("name", list(TROUBLES))
def test_the_cause_is_told(provoked: dict[str, Future[Told | None]], name: str) -> None:
    """What was provoked is what is told, with evidence, and a report comes of it."""
    told = provoked[name].result(timeout=180)
    if told is None:
        pytest.skip("needs a memory control group, which may not be made here")
    assert told.verdict.cause == TROUBLES[name].cause, (told.end, told.verdict)
    assert told.verdict.evidence
    assert told.end.certainty == 1.0
    document = report.document(told.evidence, told.end)
    assert document["cause"]["name"] == TROUBLES[name].cause
    assert document["process"]["service"] == "bot"
    assert document["order_flow"]["by_second"]
    assert document["timeline"]
