"""The keys of budget, engine, keep rules and rollout; ``Settings.values`` has them, by their names."""

from __future__ import annotations

from math import inf

from otel_trading.config import budget_values as read
from otel_trading.config import values
from otel_trading.config.key import Key

_SHARE = values.share
_ANY = read.number(0.0, 1e9)

LIMITS_OF: dict[str, tuple[str, dict[str, float]]] = {
    "cpu_percent": (
        "CPU that monitoring may use, percent of one core",
        {"normal": 2.5, "high_volatility": 2.5, "stressed": 1.0, "emergency": 0.3},
    ),
    "memory_mb": (
        "memory that it may take, MB",
        {"normal": 30.0, "high_volatility": 30.0, "stressed": 15.0, "emergency": 5.0},
    ),
    "latency_us": (
        "what it may add to an operation, µs",
        {"normal": 200.0, "high_volatility": 200.0, "stressed": 50.0, "emergency": 10.0},
    ),
    "network_kbps": (
        "what it may send, kbit/s",
        {"normal": 256.0, "high_volatility": 256.0, "stressed": 64.0, "emergency": 0.0},
    ),
    "disk_iops": (
        "what it may write, operations a second",
        {"normal": 25.0, "high_volatility": 25.0, "stressed": 5.0, "emergency": 0.0},
    ),
}
"""{name: (meaning, {mode: default})}; each is the key ``budget.MODE.name``, and takes "none"."""

MODES = ("normal", "high_volatility", "stressed", "emergency")

_TRIGGERS = {
    "error": "a span with an error",
    "reject": "a rejected order",
    "sla": "a span over its SLA",
    "risk": "a risk breach",
    "interrupted": "the end of the process",
    "pinned": "`ot.pin`",
    "slow": "a span over its stage's p99",
}

BUDGET: dict[str, Key] = {
    "mode": Key(
        "auto",
        read.mode,
        "the mode to stay in: normal, high_volatility, stressed, emergency; auto lets the engine choose",
        ("OTEL_TRADING_MODE",),
    ),
    "budget.enabled": Key(
        True,
        values.switch,
        "whether budget, engine and keep rules are at work; without them everything is recorded and exported",
        ("OTEL_TRADING_BUDGET_ENABLED",),
        values.switch_text,
    ),
    **{
        f"budget.{mode}.{name}": Key(defaults[mode], read.amount, f"in {mode.upper()}: {meaning}")
        for mode in MODES
        for name, (meaning, defaults) in LIMITS_OF.items()
    },
    "budget.window": Key(1.0, values.seconds(0.05, 60.0), "over which what monitoring uses is measured"),
    "budget.recover": Key(
        5.0, values.seconds(0.05, 3_600.0), "within the budget for so long: one step back to what was given up"
    ),
    "budget.violations": Key(
        3, values.whole(0, 1_000_000), "violations in a row that are borne; one more leaves P0 only, and alerts"
    ),
    "engine.stressed_cpu": Key(0.70, _SHARE, "CPU load above which the mode is STRESSED"),
    "engine.emergency_cpu": Key(0.85, _SHARE, "CPU load above which it is EMERGENCY"),
    "engine.stressed_memory": Key(0.80, _SHARE, "memory load above which the mode is STRESSED"),
    "engine.emergency_memory": Key(0.90, _SHARE, "memory load above which it is EMERGENCY"),
    "engine.margin": Key(0.05, _SHARE, "how far below that a load has to be before the mode is left"),
    "engine.dwell": Key(2.0, values.seconds(0.05, 3_600.0), "how long before a milder mode follows"),
    "engine.volatility": Key(0.8, _ANY, "a year's volatility above which, with the volume, it is HIGH_VOLATILITY"),
    "engine.volume": Key(2.0, _ANY, "volume above which, as a multiple of the usual"),
    "engine.period": Key(
        0.05, values.seconds(0.01, 10.0), "time between two ticks of the governor; pure: 0.1 at least"
    ),
    "keep.hold": Key(5.0, values.seconds(0.0, 600.0), "how long a trace may wait for its verdict"),
    "keep.burst": Key(60.0, values.seconds(1.0, 86_400.0), "the network budget of so much time may be saved up"),
    **{
        f"keep.limits.{trigger}": Key(
            20.0 if trigger == "slow" else inf, read.amount, f"traces a second that are kept for {what}"
        )
        for trigger, what in _TRIGGERS.items()
    },
    "rollout.schedule": Key(
        (), read.schedule, "steps by which P1 to P3 are recorded, each a share and a time: `10% 10m`, `100%`"
    ),
    "rollout.probe": Key(None, values.text, "probe whose p99 is watched; without it all of P0"),
    "rollout.worse": Key(1.2, read.number(1.0, 1_000.0), "times the p99 before, from which the rollout goes back"),
}
