"""Which alerts are sent: severe enough, not the same again, not too many."""

from __future__ import annotations

from otel_trading.alerts.alert import SEVERITIES, Alert

_MOST_KNOWN = 1_024  # alerts that are told apart; past them the one that was sent longest ago is forgotten
_MINUTE = 60.0


class _Sent:
    __slots__ = ("again", "resolved", "when")

    def __init__(self, when: float, *, resolved: bool) -> None:
        self.when = when
        self.resolved = resolved
        self.again = 0  # times that it came since, and was not sent


class Admission:
    """Decides of each alert whether it is sent; not for several threads at once.

    ``repeat`` in seconds, ``rate`` a minute; as many may be sent at once as in a minute.
    """

    def __init__(self, severity: str, repeat: float, rate: float) -> None:
        """Begin with nothing sent."""
        self._least = SEVERITIES.index(severity)
        self._repeat = repeat
        self._rate = rate
        self._sent: dict[object, _Sent] = {}
        self._tokens = rate
        self._filled: float | None = None
        self._left_out = 0  # for want of tokens, since the last one that was sent

    def admit(self, alert: Alert, now: float) -> bool:
        """Tell whether to send it; ``now`` in seconds, monotonic.  What was left out is put into its details."""
        if SEVERITIES.index(alert.severity) < self._least and not alert.resolved:
            return False
        before = self._sent.get(alert.identity)
        if before is None and alert.resolved and SEVERITIES.index(alert.severity) < self._least:
            return False
        if before is not None and before.resolved == alert.resolved and now - before.when < self._repeat:
            before.again += 1
            return False
        self._fill(now)
        if self._tokens < 1.0:
            self._left_out += 1
            return False
        self._tokens -= 1.0
        if before is not None and before.again:
            alert.details["came_again"] = before.again
        if self._left_out:
            alert.details["alerts_left_out"] = self._left_out
            self._left_out = 0
        self._sent.pop(alert.identity, None)  # the newest stand at the end
        self._sent[alert.identity] = _Sent(now, resolved=alert.resolved)
        if len(self._sent) > _MOST_KNOWN:
            del self._sent[next(iter(self._sent))]
        return True

    def _fill(self, now: float) -> None:
        since = 0.0 if self._filled is None else max(0.0, now - self._filled)
        self._filled = now
        self._tokens = min(max(self._rate, 1.0) if self._rate else 0.0, self._tokens + since * self._rate / _MINUTE)
