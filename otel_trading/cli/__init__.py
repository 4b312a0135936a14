"""The command ``otel-trading``: one module a subcommand, whose docstring is its help text."""
