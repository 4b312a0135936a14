"""What monitoring does to the program that it monitors: the same load bare and instrumented, judged by hard limits.

Nothing here is imported by a program that records; ``otel-trading impact`` runs it, in child processes.  The method is
in docs/impact.md.
"""
