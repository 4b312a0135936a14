"""The child process of a benchmark: ``python -m otel_trading.bench.worker TASK ARGUMENTS``.

Prints JSON lines: ``{"progress": n}`` after each round, and ``{"result": …}`` at the end.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def _say(**line: Any) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(task: str, arguments: str) -> None:
    """Run one task with the JSON object ``arguments``."""
    options = json.loads(arguments)

    def progress(done: int) -> None:
        _say(progress=done)

    if task == "forms":
        from otel_trading.bench.tasks import measure_forms

        result = measure_forms(progress, **options)
    elif task == "drain":
        from otel_trading.bench.tasks import measure_drain

        result = measure_drain(progress, **options)
    elif task == "api":
        from otel_trading.bench.tasks import measure_api

        result = measure_api(progress, **options)
    elif task == "export":
        from otel_trading.bench.export_task import measure_export

        result = measure_export(**options)
    elif task == "paced":
        from otel_trading.bench.trading import measure_paced

        result = measure_paced(**options)
    else:
        message = f"no task {task!r}"
        raise ValueError(message)
    _say(result=result)


if __name__ == "__main__":
    main(*sys.argv[1:])
