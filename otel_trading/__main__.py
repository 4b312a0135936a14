"""``python -m otel_trading`` is the command ``otel-trading``."""

from __future__ import annotations

import sys

from otel_trading.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
