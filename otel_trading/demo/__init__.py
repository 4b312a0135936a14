"""The demo: a paper exchange, an order gateway and a bot, each a process, and the runner that shows them.

``otel-trading demo`` starts all of it; ``docs/demo.md`` tells what is shown and how it is measured.
"""
