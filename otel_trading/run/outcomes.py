"""What became of each instrumentor in this process, and why."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from otel_trading.config import Settings

INSTRUMENTED, SKIPPED, FAILED = "instrumented", "skipped", "failed"
_ALL = "*"


class Outcomes:
    """The state of the distro: one a process."""

    def __init__(self) -> None:
        """Begin with nothing done."""
        self.settings: Settings | None = None
        self.configured = False
        self.put_provider = False  # whether the distro has named our tracer provider in the environment
        self.refused: str | None = None  # why nothing is instrumented at all
        self.instrumented: list[str] = []
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    def skip(self, name: str, reason: str) -> None:
        """Remember that an instrumentor was left out."""
        self.skipped[name] = reason

    def fail(self, name: str, reason: str) -> None:
        """Remember that an instrumentor raised."""
        self.failed[name] = reason

    def rows(self) -> list[tuple[str, str, str]]:
        """Give (name, outcome, reason) of every installed instrumentor, those included that the loader passed over."""
        rows = [(name, INSTRUMENTED, "") for name in self.instrumented]
        rows += [(name, FAILED, reason) for name, reason in self.failed.items()]
        rows += [(name, SKIPPED, reason) for name, reason in self.skipped.items()]
        known = {row[0] for row in rows}
        from importlib.metadata import entry_points

        for point in entry_points(group="opentelemetry_instrumentor"):
            if point.name not in known:
                known.add(point.name)
                reason = switched_off(point.name, self.settings) or conflict(point.dist) or self.refused
                rows.append((point.name, SKIPPED, reason or "OpenTelemetry's loader did not come to it"))
        order = (INSTRUMENTED, FAILED, SKIPPED)
        return sorted(rows, key=lambda row: (order.index(row[1]), row[0]))


current = Outcomes()
"""This process's."""


def switched_off(name: str, settings: Settings | None) -> str | None:
    """Tell which setting leaves an instrumentor out, if one does."""
    if settings is None:
        variable = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
        disabled = {item.strip() for item in os.environ.get(variable, "").split(",")}
        return f"disabled by {variable}" if disabled & {name, _ALL} else None
    if name in settings.instrumentors_disabled or _ALL in settings.instrumentors_disabled:
        return f"disabled by {settings.sources['instrumentors.disabled']}"
    if settings.instrumentors_enabled is not None and name not in settings.instrumentors_enabled:
        return f"not among instrumentors.enabled of {settings.sources['instrumentors.enabled']}"
    return None


def conflict(distribution: object) -> str | None:
    """Tell which library an instrumentor's package misses, or has in a version that it does not know."""
    from opentelemetry.instrumentation.dependencies import get_dist_dependency_conflicts

    if distribution is None:
        return None
    found = get_dist_dependency_conflicts(distribution)  # type: ignore[arg-type,unused-ignore]
    if found is None:
        return None
    # Each is a requirement with its marker: the extra that asks for it.
    asked = [found.required] if found.required else (found.required_any or ())
    wanted = " or ".join(str(one).partition(";")[0].strip() for one in asked)
    has = found.found or ", ".join(map(str, found.found_any or ()))
    return f"needs {wanted}; {has} is installed" if has else f"{wanted} is not installed"
