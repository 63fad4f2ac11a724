"""Rules for lasthit in Python (3.9 or newer, nothing else needed).

    import lasthit_rules

    def press(ctx, args):
        if ctx.state.get("pressed"):
            return ctx.late("buzzer")
        ctx.state["pressed"] = True
        ctx.win("buzzer")

    lasthit_rules.run(name="buzzer", version=1, on={"press": press})

A handler gets `ctx` and the action's arguments; what it returns is the verdict's body. It may change `ctx.state`, which is plain data:
None, bool, int, float, str, lists, and dicts with str keys. It must not look at a clock, at random numbers or at anything else outside
of `ctx`: the same events must always give the same decisions. If it raises, nothing is changed, and the verdict is void.
"""

import json
import os
import socket
import struct
import sys
import traceback

PROTOCOL = 1
# An answer that is longer ends early: lasthit asks for the rest again.
ANSWER_BYTES = 4 << 20
FRAME_BYTES = 16 << 20
STACK_LINES = 10


class Context:
    """What a handler sees of an event, and how it decides."""

    def __init__(self, event, state):
        self._event = event
        self._outcome = None
        self._said = {}
        self._timers = []
        self._draws = None
        self.state = state
        #: The player who acts, the session's role (`player` or `server`), and the session; None for timers.
        self.player = event.get("player")
        self.role = event.get("role")
        self.session = event.get("session")
        #: How many sessions the player has inside; 0 for timers.
        self.sessions = event.get("sessions", 0)
        #: The contest that the action names.
        self.contest = event.get("contest")
        #: The room's time: milliseconds since 1970.
        self.now = event["now"]

    def random(self):
        """A random number from 0 up to 1, without 1."""
        if self._draws is None:
            self._draws = _sfc32(*self._event["seed"])
        high, low = next(self._draws), next(self._draws)
        return ((high >> 5) * 67108864 + (low >> 6)) / 9007199254740992

    def win(self, contest=None):
        """The event wins the contest's current round."""
        self._decide("won", contest=self._contest("win", contest))

    def late(self, contest=None):
        """The event comes after the contest's current round was won."""
        self._decide("late", contest=self._contest("late", contest))

    def deny(self, reason):
        """The event has no effect."""
        if not isinstance(reason, str):
            raise TypeError('ctx.deny: give a short reason, as in ctx.deny("too_late")')
        self._decide("denied", reason=reason)

    def next_round(self, contest=None):
        """A new round of the contest begins with this event."""
        self._about(self._contest("next_round", contest))
        self._said["next_round"] = True

    def to(self, audience):
        """Who sees the verdict: "room", "sender", "server", or a list of players."""
        if not isinstance(audience, (str, list)):
            raise TypeError('ctx.to: give "room", "sender", "server", or a list of players')
        self._said["to"] = audience

    def timer(self, name, after=None, at=None, every=None, cron=None, offset=None, data=None):
        """Sets a timer, or sets it anew: `after`, `at` and `every` are milliseconds."""
        given = {"after": after, "at": at, "every": every, "cron": cron}
        given = {key: value for key, value in given.items() if value is not None}
        if len(given) != 1:
            raise TypeError("ctx.timer: say when by one of after, at, every, cron")
        timer = {"name": name, **given, "data": data}
        if offset is not None:
            timer["offset"] = offset
        self._timers.append(timer)

    def cancel(self, name):
        """Cancels a timer. If there is none of this name, nothing happens."""
        self._timers.append({"name": name, "cancel": True})

    def _contest(self, what, contest):
        contest = self.contest if contest is None else contest
        if not isinstance(contest, str):
            raise TypeError("ctx.%s: name the contest, because the action names none" % what)
        return contest

    def _about(self, contest):
        before = self._said.setdefault("contest", contest)
        if before != contest:
            raise ValueError("a verdict is about one contest: it was %r before" % before)

    def _decide(self, outcome, contest=None, **said):
        if self._outcome is not None:
            raise ValueError("this event was decided before: call one of win, late and deny, once")
        if contest is not None:
            self._about(contest)
        self._outcome = outcome
        self._said.update(said)

    def _decision(self, body):
        decision = {"outcome": self._outcome or "granted", **self._said}
        if self.contest is not None:
            decision.setdefault("contest", self.contest)
        if body is not None:
            decision["body"] = body
        if self._timers:
            decision["timers"] = self._timers
        return decision


def _sfc32(a, b, c, d):
    while True:
        t = (a + b + d) & 0xFFFFFFFF
        d = (d + 1) & 0xFFFFFFFF
        a = b ^ (b >> 9)
        b = (c + (c << 3)) & 0xFFFFFFFF
        c = ((c << 21) | (c >> 11)) & 0xFFFFFFFF
        c = (c + t) & 0xFFFFFFFF
        yield t


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)


def _text(value):
    return _encoder.encode(value)


class Program:
    """Handlers by name."""

    def __init__(self, state=None, on_open=None, on_data=None, on_end=None, on_error=None, on_close=None, on=None, timers=None, migrate=None):
        self.state = state or dict
        self.socket = {"open": on_open, "end": on_end, "error": on_error, "close": on_close}
        self.on_data, self.on, self.timers, self.migrate = on_data, on or {}, timers or {}, migrate

    def _run(self, ctx, event):
        kind = event["event"]
        if kind == "data":
            handler = self.on.get(event["op"])
            if handler is not None:
                return handler(ctx, event["args"])
            if self.on_data is not None:
                return self.on_data(ctx, event["args"], event["op"])
            return ctx.deny("unknown_op")
        if kind == "timer":
            # What follows a colon only tells timers of one handler apart.
            handler = self.timers.get(event["name"]) or self.timers.get(event["name"].split(":")[0])
            if handler is None:
                # All see it, as they see what timers do.
                ctx.to("room")
                return ctx.deny("unknown_timer")
            return handler(ctx, {key: event[key] for key in ("data", "due", "late_ns", "missed")})
        handler = self.socket.get(kind)
        if handler is None:
            return None
        return handler(ctx, {key: event[key] for key in ("code", "reason") if key in event})

    def resolve(self, state, events):
        """The decisions on events, as JSON, each with the state after it if that has changed."""
        state = self.state() if state is None else state
        before, answer, size = _text(state), [], 0
        for event in events:
            ctx = Context(event, state)
            try:
                text = _text(ctx._decision(self._run(ctx, event)))
                after = _text(ctx.state)
                if after == "null":
                    raise TypeError("ctx.state is None: keep a dict there")
                if after != before:
                    text = '%s,"state":%s}' % (text[:-1], after)
                said = text.encode()
                before = after
            except Exception as error:
                frames = reversed(traceback.extract_tb(error.__traceback__))
                where = ["%s (%s:%s)" % (frame.name, frame.filename, frame.lineno) for frame in frames][:STACK_LINES]
                failed = {"outcome": "failed", "error": "%s: %s" % (type(error).__name__, error), "stack": where}
                said = json.dumps(failed).encode()
            # Every event begins with what is stored.
            state = json.loads(before)
            answer.append(said)
            size += len(said)
            if size > ANSWER_BYTES:
                break
        return answer


class _Connection:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb", 1 << 16)

    def send(self, message):
        self.write(_text(message).encode(errors="replace"))

    def write(self, body):
        self.socket.sendall(struct.pack(">I", len(body)) + body)

    def receive(self):
        head = self.file.read(4)
        if len(head) < 4:
            return None
        (length,) = struct.unpack(">I", head)
        if length > FRAME_BYTES:
            raise ValueError("a frame of %d bytes" % length)
        body = self.file.read(length)
        return json.loads(body) if len(body) == length else None


_connection = None


def log(text):
    """Writes a line into the worker's log, while an event is handled."""
    if _connection is not None:
        _connection.send({"type": "log", "text": str(text)})


def run(name, version, **handlers):
    """Serves the program until the worker closes its socket. The path of that is in LASTHIT_RULES."""
    global _connection
    program = Program(**handlers)
    path = os.environ.get("LASTHIT_RULES")
    if not path:
        sys.exit("LASTHIT_RULES is not set: let a worker start this program, or give it the socket that one listens on")
    _connection = _Connection(path)
    _connection.send({"type": "hello", "protocol": PROTOCOL, "name": name, "version": version})
    while True:
        message = _connection.receive()
        if message is None:
            return
        kind = message["type"]
        if kind == "migrate":
            said = {"type": "migrated", "id": message["id"]}
            try:
                state = message["state"]
                said["state"] = program.migrate(state, message["from"]) if program.migrate else state
                _text(said)
            except Exception as error:
                said = {"type": "migrated", "id": message["id"], "error": "%s: %s" % (type(error).__name__, error)}
            _connection.send(said)
        elif kind == "resolve":
            answer = program.resolve(message["state"], message["events"])
            _connection.write(b'{"type":"resolved","id":%d,"decisions":[%b]}' % (message["id"], b",".join(answer)))
        elif kind == "ping":
            _connection.send({"type": "pong", "id": message["id"]})
        elif kind == "refused":
            sys.exit(message["error"])
