"""The directory that ``otel-trading run`` puts first on PYTHONPATH; Python itself imports its ``sitecustomize``."""
