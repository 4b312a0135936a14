"""The agent: a process that drains the segments of other processes, one child for each (docs/agent.md)."""
