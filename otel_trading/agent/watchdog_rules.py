"""What the watchdog does about what it sees: no clock, no system call.  The twin of ``_native/watchdog/rules.c``.

Once a look: ``begin``, ``subject`` for each heartbeat but the agent's, ``finish``, which gives what is to be done, in
that order.  Times are milliseconds; a tick is the time between two looks, 1 s but in tests.
"""

from __future__ import annotations

from typing import NamedTuple

WARN, ALERT, RESTART = 1, 3, 5
"""Late looks in a row after which there is a warning, an alert, a restart."""

SIGTERM_TICKS = 2
"""Ticks between SIGTERM and SIGKILL."""
GRACE_TICKS = 10
"""A process that has just started may take so long until its first beat."""
PASS_TICKS = 60
"""The longest period that a drain can be configured to have."""
BACKOFF_TICKS = 60
"""The longest time between two starts."""
WINDOW_TICKS = 600
"""Over which starts are counted."""
EMERGENCY_TICKS = 10
"""Between two starts of the emergency monitor."""
MOST_RESTARTS = 64
MOST_SUBJECTS = 1024

AGENT, DRAIN, EMBEDDED, MISSING, LOOP = "agent", "drain", "embedded", "missing", "loop"
"""What beats: the agent's loop; a drain in a process of the agent's, in the program itself, or nobody although the
agent should; a loop of a program."""

NONE, STARTING, RUNNING, STOPPING, GONE, ENDED, OTHER = (
    "none", "starting", "running", "stopping", "gone", "ended", "other",
)  # fmt: skip
"""The agent: there is none; it has not said anything yet; its beat has an age; it is about to end; its process is gone
without a word, or in an orderly way; another one than ours is at work."""

_WATCHED, _KILLING, _WAITING, _GIVEN_UP = range(4)


class Label(NamedTuple):
    """Whose heartbeat it is: printable ASCII, at most 39 characters each."""

    pid: int = 0
    service: str = ""
    name: str = ""


class Action(NamedTuple):
    """Something to do; ``what`` is one of the words of ``enum wd_what``: skip, warn, alert, resolve, and so on."""

    what: str
    kind: str
    key: int
    stopped: bool
    age: int
    label: Label


class _Subject:
    __slots__ = ("alerted", "changed", "gap", "kind", "label", "looks", "restarted", "seen", "value")

    def __init__(self, kind: str, value: int, now: int, label: Label) -> None:
        self.kind = kind
        self.value = value
        self.changed = now
        self.gap = -1  # the time that the last change took; none was seen yet
        self.looks = 0
        self.alerted = self.restarted = self.seen = False
        self.label = label


class Rules:
    """The state of a watchdog."""

    def __init__(self, tick: int, late: int, restarts: int, *, startable: bool, supervised: bool) -> None:
        """Begin, with everything well.

        ``restarts``: starts in ten minutes, at most; ``startable``: there is a command that starts an agent;
        ``supervised``: somebody else (systemd) starts it again when it has ended.
        """
        self.tick = tick
        self.late = late
        self.restarts = restarts
        self.startable = startable
        self.supervised = supervised
        self.total = 0
        self.ended = False
        self._actions: list[Action] = []
        self._subjects: dict[int, _Subject] = {}
        self._now = 0
        self._since = -1
        self._skipping = self._alerted = self._died = self._gave_up = self._killed = self._wanted = False
        self._emergency = self._emergency_alive = False
        self._state = NONE
        self._phase = _WATCHED
        self._looks = self._term_at = self._down_at = self._emergency_at = 0
        self._started: list[int] = []

    @property
    def gave_up(self) -> bool:
        """Whether the agent is started no more."""
        return self._gave_up

    def _act(self, what: str, *, stopped: bool = False, age: int = 0) -> None:
        self._actions.append(Action(what, AGENT, 0, stopped, age, Label()))

    # ---- starts ----

    def _exhausted(self) -> bool:
        self._started = [at for at in self._started if at > self._now - WINDOW_TICKS * self.tick]
        return len(self._started) >= min(self.restarts, MOST_RESTARTS)

    def _backoff(self) -> int:
        """Nothing before the first start, then 1, 2, 4 … 60 ticks."""
        starts = len(self._started)
        return self.tick * min(1 << min(starts - 1, 6), BACKOFF_TICKS) if starts else 0

    def _give_up(self) -> None:
        self._phase = _GIVEN_UP
        self._gave_up = True
        self._act("give_up")

    def _terminate(self) -> None:
        self._phase = _KILLING
        self._term_at = self._now
        self._killed = False
        self._act("term")

    # ---- the agent ----

    def _all_is_well(self) -> None:
        if self._alerted:
            self._act("resolve")
        if self._died:
            self._act("back")
        if self._gave_up:
            self._act("recovered")
        self._alerted = self._died = self._gave_up = False
        self._looks = 0
        self._phase = _WATCHED

    def _end(self) -> None:
        self._all_is_well()
        if self._emergency:
            self._act("normal")
        self._act("end")
        self._emergency = False
        self.ended = True

    def _is_gone(self) -> None:
        if self._phase == _WATCHED:
            self._died = True
            self._act("died")
        if self.supervised:  # who starts the next one has its watchdog start as well
            self._act("end")
            self.ended = True
            return
        self._phase = _WAITING
        self._down_at = self._now

    def _start_when_due(self) -> None:
        if not self.startable or self._exhausted():
            self._give_up()
            return
        if self._started and self._now < self._started[-1] + self._backoff():
            return
        self._started.append(self._now)
        self.total += 1
        self._phase = _WATCHED
        self._state = STARTING
        self._since = self._now
        self._looks = 0
        self._act("start")

    def _look_at_agent(self, age: int, *, stopped: bool) -> None:
        limit = self.late
        if self._state == STARTING:
            age = self._now - self._since
            limit = max(limit, GRACE_TICKS * self.tick)
        elif self._state != RUNNING:
            return
        if age <= limit:
            if self._state == RUNNING:
                self._all_is_well()
            return
        if self._skipping or self._phase != _WATCHED:
            return
        self._looks += 1
        if self._looks == WARN:
            self._act("warn", stopped=stopped, age=age)
        if self._looks >= ALERT and not self._alerted:
            self._alerted = True
            self._act("alert", stopped=stopped, age=age)
        if self._looks >= RESTART and (self.startable or self.supervised):
            if self._exhausted():
                self._give_up()
            else:
                self._terminate()

    def begin(self, now: int, due: int, state: str, age: int, *, stopped: bool, emergency_alive: bool) -> None:
        """Begin a look at ``now`` that was due at ``due``; ``age`` is the age of the agent's beat, of RUNNING."""
        self._actions = []
        self._wanted = False
        self._now = now
        self._state = state
        self._emergency_alive = emergency_alive
        self._skipping = now - due > self.late
        if self._since < 0:
            self._since = now
        if self._skipping:
            self._act("skip", age=now - due)
        if state == OTHER or (state == ENDED and self._phase != _KILLING):
            self._end()
        elif state in {GONE, ENDED} and self._phase in {_WATCHED, _KILLING}:
            self._is_gone()
        if self.ended:
            return
        if self._phase == _WAITING:
            self._start_when_due()
        elif self._phase == _KILLING:
            if not self._killed and now - self._term_at >= SIGTERM_TICKS * self.tick:
                self._killed = True
                self._act("kill")
        else:
            self._look_at_agent(age, stopped=stopped)

    # ---- everything else that beats ----

    def _agent_is_well(self) -> bool:
        """Only then is a segment that nobody drains more than what follows from that."""
        return self._state == NONE or (self._state == RUNNING and self._phase == _WATCHED and not self._looks)

    def _undecided(self, kind: str) -> bool:
        """Whether this look says nothing of such a heartbeat."""
        return self._skipping or (kind == MISSING and not self._agent_is_well())

    def passed(self, key: int, value: int) -> bool | None:
        """None: such a subject is not known yet; else whether its passes are not those of the look before."""
        found = self._subjects.get(key)
        return None if found is None else found.value != value

    def _pass_limit(self, subject: _Subject) -> int:
        if subject.kind == MISSING:
            return max(self.late, GRACE_TICKS * self.tick)
        if subject.gap < 0:  # how often it passes is not known yet
            return self.late + PASS_TICKS * self.tick
        return max(self.late, 3 * subject.gap)

    def _pass_age(self, subject: _Subject, kind: str, passes: int) -> int:
        if kind != subject.kind:  # another one drains
            subject.kind = kind
            subject.gap = -1
            subject.changed = self._now
        if passes != subject.value:
            subject.gap = min(self._now - subject.changed, PASS_TICKS * self.tick)
            subject.value = passes
            subject.changed = self._now
        if self._undecided(kind):
            subject.changed = self._now
        return self._now - subject.changed

    def subject(self, kind: str, key: int, value: int, limit: int, *, stopped: bool, label: Label) -> None:
        """Take a heartbeat; ``value``: a drain's passes, the age of a loop's beat, with ``limit`` what is late."""
        if self.ended:
            return
        found = self._subjects.get(key)
        if found is None:
            if len(self._subjects) >= MOST_SUBJECTS:
                return
            found = self._subjects[key] = _Subject(kind, value, self._now, label)
        found.seen = True
        age = value
        if kind != LOOP:
            age = self._pass_age(found, kind, value)
            limit = self._pass_limit(found)
        if self._undecided(kind):
            return
        if age <= limit:
            if found.alerted:
                self._actions.append(Action("resolve", kind, key, stopped=False, age=age, label=found.label))
            found.looks = 0
            found.alerted = found.restarted = False
            return
        found.looks += 1
        if found.looks == WARN:
            self._actions.append(Action("warn", kind, key, stopped=stopped, age=age, label=found.label))
        if stopped and kind == EMBEDDED:  # somebody has stopped the program, its drain with it: nothing hangs
            found.looks = WARN
            return
        if found.looks >= ALERT and not found.alerted:
            found.alerted = True
            self._actions.append(Action("alert", kind, key, stopped=stopped, age=age, label=found.label))
        if found.looks >= RESTART and kind == DRAIN and not found.restarted:
            found.restarted = True
            self._wanted = True

    # ---- the end of a look ----

    def _sweep(self) -> bool:
        """Forget the subjects that are no more; gives whether the monitoring of one that is left hangs."""
        hangs = False
        for key, subject in list(self._subjects.items()):
            if not subject.seen:
                if subject.alerted:
                    self._actions.append(
                        Action("resolve", subject.kind, key, stopped=False, age=-1, label=subject.label)
                    )
                del self._subjects[key]
                continue
            hangs = hangs or (subject.alerted and subject.kind != LOOP)
            subject.seen = False
        return hangs

    def finish(self) -> list[Action]:
        """End the look; gives what is to be done."""
        if self.ended:
            return self._actions
        hangs = self._sweep()
        restart = self._wanted and self._state == RUNNING and self._phase == _WATCHED
        if restart and (self.startable or self.supervised) and not self._exhausted():
            self._terminate()
        # Once it is there it stays until an agent beats.
        away = self._phase == _WAITING and (self._emergency or self._now - self._down_at > self.late)
        away = away or (self._state == STARTING and self._emergency)
        want = hangs or self._alerted or self._gave_up or away
        if want and (not self._emergency or (not self._emergency_alive and self._now >= self._emergency_at)):
            self._emergency = True
            self._emergency_at = self._now + EMERGENCY_TICKS * self.tick
            self._act("emergency")
        elif not want and self._emergency:
            self._emergency = False
            self._act("normal")
        return self._actions
