"""Run a command with every Python in it instrumented.

    otel-trading run -- python bot.py
    otel-trading run --service bot --exporter otlp -- python -m bot

Spans of OpenTelemetry's API and of every installed instrumentation library go through the recorder; child processes
are instrumented too.  What is not Python runs as it would without us.  The command takes the place of this one: its
pid, signals, standard streams and exit code are its own.

With OTEL_TRADING_HOST=agent the segments are drained by the user's agent, which is started where none runs, and ends
by itself some time after the last program (agent.idle).

When that Python has loaded, a checklist goes to standard error: what is instrumented, what was skipped, and why.

Exit codes are the command's; 127 where there is no such command, 126 where it is not executable, 2 for wrong options.
"""

from __future__ import annotations

import argparse

from otel_trading.errors import OtelTradingError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.usage = "otel-trading run [options] -- COMMAND [ARGUMENT …]"
    parser.add_argument("--service", metavar="NAME", help="the program's name (default: OTEL_SERVICE_NAME)")
    parser.add_argument("--dir", metavar="DIR", help="where segments are made (default: OTEL_TRADING_DIR, or /dev/shm)")
    parser.add_argument("--config", metavar="FILE", help="our YAML file (default: OTEL_TRADING_CONFIG)")
    parser.add_argument(
        "--exporter",
        metavar="NAMES",
        help="exporters of spans and metrics, with commas between: otlp, console, none, … "
        "(default: OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER, or otlp)",
    )
    parser.add_argument("--quiet", action="store_true", help="print no checklist")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run, with its arguments")


def run(arguments: argparse.Namespace) -> int:
    """Become the command; returns only where that can not be."""
    from otel_trading.run import launch

    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise OtelTradingError("run what? Write: otel-trading run -- python bot.py")
    options = launch.Options(
        service=arguments.service,
        directory=arguments.dir,
        config=arguments.config,
        exporter=arguments.exporter,
        quiet=arguments.quiet,
    )
    environment = launch.environment(options, launch.own_environment())
    launch.provide_agent(command, environment)
    launch.replace(command, environment)
