"""What recording costs, measured: paired blocks against a floor, a paced load, the drain, memory.

Nothing here is imported by a program that records; ``otel-trading bench`` runs it, in child processes.
"""
