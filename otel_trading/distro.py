"""The distro and the configurator: what ``opentelemetry-instrument`` and ``otel-trading run`` start in a process.

Both are found by entry point and called by OpenTelemetry's loader: the distro's ``configure``, the configurator's,
then the distro's ``load_instrumentor`` for each library.  Nothing here raises: mistakes in the configuration are told
once, and the program starts without telemetry.
"""

from __future__ import annotations

from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined,unused-ignore]

from otel_trading.faults import report
from otel_trading.run import outcomes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from typing import Any

    from otel_trading.config import Settings

NAME = "otel_trading"
"""The name of our entry points."""

_CHECK = "otel-trading config check tells more."
_REFUSED = "the configuration has mistakes"
_STREAMS = ("websockets", "ccxt")  # the instrumentors that the keys websockets.* are for


def _settings() -> Settings | None:
    """Resolve the configuration of this process, or tell, once, why that cannot be."""
    from otel_trading import config
    from otel_trading.errors import ConfigurationError

    try:
        return config.resolve()
    except ConfigurationError as error:
        _refuse(str(error))
        return None


def _refuse(message: str, reason: str = _REFUSED) -> None:
    outcomes.current.refused = reason
    report("configuration", f"{message}\nThe program runs without telemetry. {_CHECK}")


def _stream_options(settings: Settings) -> dict[str, Any]:
    return {
        "venues": settings.websockets_venues,
        "propagate": settings.websockets_propagate,
        "current_after_receive": settings.websockets_current_after_receive,
    }


class OtelTradingDistro(BaseDistro):  # type: ignore[misc,unused-ignore]  # not typed
    """Sets defaults in the environment, where the user has set nothing, and loads the instrumentors."""

    def _configure(self, **kwargs: object) -> None:  # noqa: ARG002  the interface's
        if outcomes.current.settings is not None:
            return
        settings = _settings()
        if settings is None:
            return
        try:
            from otel_trading.run import defaults

            outcomes.current.put_provider = defaults.put(settings)
        except Exception as error:  # noqa: BLE001  the program starts whatever happens here
            report("distro", f"no defaults are set: {error!r}")
        outcomes.current.settings = _settings()  # the defaults are in the environment now

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Instrument one library; what goes wrong is remembered with its reason, and the next one is loaded."""
        name = entry_point.name
        told = outcomes.current
        reason = told.refused or outcomes.switched_off(name, told.settings)
        if reason is not None:
            told.skip(name, reason)
            return
        from opentelemetry.instrumentation.dependencies import DependencyConflictError

        if name in _STREAMS and told.settings is not None:
            kwargs = {**_stream_options(told.settings), **kwargs}
        try:
            super().load_instrumentor(entry_point, raise_exception_on_conflict=True, **kwargs)
        except ModuleNotFoundError as error:
            told.skip(name, f"{error.name} is not installed" if error.name else str(error))
        except DependencyConflictError as error:
            told.skip(name, str(error))
        except Exception as error:  # noqa: BLE001  one instrumentor must not abort the rest, nor the program
            told.fail(name, f"{type(error).__name__}: {error}")
            report(f"instrumentor:{name}", f"instrumentor {name} failed and is left out: {error!r}")
        else:
            told.instrumented.append(name)


class OtelTradingConfigurator:
    """Sets the tracer, meter and logger providers; a second call does nothing."""

    def configure(self, **kwargs: Any) -> None:
        """Configure this process; ``auto_instrumentation_version`` goes into the resource."""
        told = outcomes.current
        if told.configured or told.refused is not None:
            return
        from otel_trading.config import sdk_disabled

        if sdk_disabled():
            return
        settings = told.settings or _settings()  # another distro may have been chosen
        if settings is None:
            return
        told.settings = settings
        told.configured = True
        from otel_trading.errors import OtelTradingError
        from otel_trading.run import defaults

        done = False
        try:
            from otel_trading.run import providers

            providers.install(settings, kwargs.get("auto_instrumentation_version"))
            done = True
        except OtelTradingError as error:
            _refuse(str(error))
        except Exception as error:  # noqa: BLE001  the program starts whatever happens here
            _refuse(f"telemetry is not set up: {error!r}", "it could not be set up")
        # The provider is set, or never will be: what the API would load it by is of no more use.
        if not done or told.put_provider:
            defaults.withdraw()
