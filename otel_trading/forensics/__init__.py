"""What a segment tells of a process that died, hangs, or lives: evidence, likely cause, report (docs/forensics.md)."""
