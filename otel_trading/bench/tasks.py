"""What worker processes measure: the forms, and the drain's rate.

A task takes keyword arguments and gives what JSON can carry.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_trading.bench.measure import Form

QUIET: dict[str, object] = {"export.traces": "none", "export.metrics": "none", "budget.enabled": False}
"""The budget would shed what is to be measured."""


def start_idle(slots: int = 131_072) -> None:
    """Configure recording with a ring of ``slots``, exporting nothing, the drain left to those who call it."""
    import otel_trading as ot
    from otel_trading._backend import core

    ot.configure(service="bench", config={**QUIET, "ring.slots": slots})
    core.drain_stop(5.0)


def measure_forms(
    progress: Callable[[int], object],
    *,
    rounds: int,
    block_ns: int,
    allocation_records: int,
    only: list[str] | None = None,
) -> dict[str, Any]:
    """Time every form, and count what it allocates.

    The drain is left idle during the blocks and run between them: on the pure backend it would take turns with
    what is timed. One more form, "start_stop_drained", is timed with the drain's thread running as it does by default.
    """
    import otel_trading as ot
    from otel_trading.bench.forms import forms
    from otel_trading.bench.measure import Form, allocations, measure

    start_idle()
    chosen = [form for form in forms(ot.backend) if only is None or form.key in only]
    timings = measure(chosen, rounds=rounds, block_ns=block_ns, between=ot.accounts, progress=progress)
    heap = {form.key: allocations(form, allocation_records) for form in chosen}
    ot.shutdown()

    drained: dict[str, Any] = {}
    if only is None or "start_stop_drained" in only:
        ot.configure(service="bench", config=QUIET)
        probe, parent = ot.probe("bench.span"), ot.probe("bench.parent")
        form = Form(
            "start_stop_drained",
            "start / stop, in a trace, flooding the drain",
            "t = p.start(); p.stop(t)",
            {"p": probe, "parent": parent},
            around="parent",
        )
        drained = {
            form.key: {**_form(form), "timing": asdict(measure([form], rounds=rounds, block_ns=block_ns)[form.key])}
        }
        ot.shutdown()
    return {
        "backend": ot.backend,
        "forms": {
            form.key: {**_form(form), "timing": asdict(timings[form.key]), "allocations": asdict(heap[form.key])}
            for form in chosen
        }
        | drained,
    }


def measure_api(progress: Callable[[int], object], *, backend: str, rounds: int, block_ns: int) -> dict[str, Any]:
    """Time the forms of OpenTelemetry's API: on our provider, or on the stock SDK where ``backend`` says so.

    What the spans leave behind is taken away between the blocks: the drain runs there, and so does the SDK's exporter,
    which takes everything and does nothing.
    """
    import otel_trading as ot
    from otel_trading.bench import api_forms
    from otel_trading.bench.measure import measure

    stock = backend == api_forms.SDK
    if not stock:
        start_idle()
    forms = api_forms.forms(backend)
    timings = measure(
        forms, rounds=rounds, block_ns=block_ns, between=None if stock else ot.accounts, progress=progress
    )
    if not stock:
        ot.shutdown()
    return {"forms": {form.key: {**_form(form), "timing": asdict(timings[form.key])} for form in forms}}


def _form(form: Form) -> dict[str, Any]:
    return {"label": form.label, "statement": form.statement, "target": form.target}


def measure_drain(progress: Callable[[int], object], *, rounds: int, slots: int) -> dict[str, Any]:
    """Time passes of the drain, in the calling thread, over a nearly full ring of ``slots``; spans a second."""
    import otel_trading as ot
    from otel_trading._backend import core

    start_idle(slots)
    probe, parent = ot.probe("bench.span"), ot.probe("bench.parent")
    spans = slots - slots // 16
    rates: dict[str, list[float]] = {"plain": [], "attributes": []}
    for done in range(rounds):
        for kind, seconds in rates.items():
            with parent:
                if kind == "plain":
                    for _ in range(spans):
                        token = probe.start()
                        probe.stop(token)
                else:
                    for number in range(spans):
                        with probe.span(symbol="BTCUSDT", qty=number):
                            pass
            begin = time.perf_counter_ns()
            handled = core.drain()
            seconds.append(handled * 1e9 / (time.perf_counter_ns() - begin))
            if handled < spans:
                message = f"the drain handled {handled} of {spans} spans"
                raise RuntimeError(message)
        progress(done + 1)
    ot.shutdown()
    return {"backend": ot.backend, "spans_a_pass": spans, "spans_per_second": rates}
