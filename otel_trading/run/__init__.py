"""What an instrumented process does at its start, and how ``otel-trading run`` brings it there."""
