"""What metrics are made of, and that it takes none of the libraries that the stock exporters need."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HEAVY = ("google.protobuf", "requests", "ssl", "importlib.metadata", "opentelemetry.proto", "grpc")

ENCODED = """
import json, sys
from otel_trading.drain import metric_export, metric_wire, otlp_metrics
from otel_trading.drain.histogram import ExponentialHistogram
from otel_trading.drain.metric_model import Resource
from otel_trading.drain.metrics import Stream, explicit_wanted
from otel_trading.drain.series import COUNTER, GAUGE, HISTOGRAM, Family, Point

families = [
    Family("orders", COUNTER, "{order}", "Orders.", [Point({"venue": "a"}, 3)]),
    Family("depth", GAUGE, "", "", [Point({}, 3.5)]),
    Family("duration", HISTOGRAM, "s", "", [Point({}, ExponentialHistogram.of([1.0, 2.0]), [(1.0, 1, 2, 3)])]),
]
stream = Stream(Resource({"service.name": "bot"}), *otlp_metrics.preferred(), explicit=explicit_wanted())
data = stream.data(families, 1, 2)
sizes = [len(otlp_metrics.encode(piece)) for piece in metric_wire.divided(data, 1)]
print(json.dumps({"sizes": sizes, "loaded": sorted(sys.modules)}))
"""


def test_encoding_takes_no_heavy_library(run_python: Callable[..., Any]) -> None:
    """From families to a request's bytes, neither the SDK nor protobuf, requests and importlib.metadata is loaded."""
    told = json.loads(run_python(ENCODED).stdout)
    assert len(told["sizes"]) == 3
    loaded = set(told["loaded"])
    assert not loaded.intersection(HEAVY)
    sdk = {name for name in loaded if name.startswith("opentelemetry.sdk")}
    assert sdk <= {"opentelemetry.sdk", "opentelemetry.sdk.environment_variables"}
