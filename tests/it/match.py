"""A match of last_hit, played by a client that knows docs/protocol.md and nothing else.

    python3 match.py ws://127.0.0.1:7777 [ws://127.0.0.1:7787]

A server session spawns a target, two players fight it (on two gateways when two are given), one gets the last hit, the
other is late and learns by how much, the target comes back for a second round. In JSON, and in MessagePack with the few
lines below. Needs the package websockets.
"""

import asyncio
import itertools
import json
import struct
import sys
import time

from websockets.legacy.client import connect

PATIENCE_S = 20


def pack(value):
    """MessagePack, as much of it as a client sends."""
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        if 0 <= value < 128:
            return bytes([value])
        return b"\xcf" + struct.pack(">Q", value) if value >= 0 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, str):
        data = value.encode()
        return b"\xd9" + bytes([len(data)]) + data
    return b"\xde" + struct.pack(">H", len(value)) + b"".join(pack(key) + pack(item) for key, item in value.items())


SIZED = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q", 0xCA: ">f", 0xCB: ">d"}
STRINGS = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
LISTS = {0xDC: ">H", 0xDD: ">I"}
MAPS = {0xDE: ">H", 0xDF: ">I"}


class Unpacker:
    """MessagePack, as much of it as a gateway sends."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        assert self.at <= len(self.data), "truncated"
        return self.data[self.at - count : self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def value(self):
        head = self.take(1)[0]
        if head < 0x80:
            return head
        if head >= 0xE0:
            return head - 256
        if head < 0x90:
            return self.map(head & 0x0F)
        if head < 0xA0:
            return [self.value() for _ in range(head & 0x0F)]
        if head < 0xC0:
            return self.take(head & 0x1F).decode()
        if head in SIZED:
            return self.number(SIZED[head])
        if head in STRINGS:
            return self.take(self.number(STRINGS[head])).decode()
        if head in LISTS:
            return [self.value() for _ in range(self.number(LISTS[head]))]
        if head in MAPS:
            return self.map(self.number(MAPS[head]))
        return {0xC0: None, 0xC2: False, 0xC3: True}[head]

    def map(self, count):
        return {self.value(): self.value() for _ in range(count)}


def unpack(data):
    unpacker = Unpacker(data)
    value = unpacker.value()
    assert unpacker.at == len(data), "trailing bytes"
    return value


class Session:
    """One session, which keeps the count."""

    numbers = itertools.count()

    @classmethod
    async def join(cls, url, room, player, encoding, role="player"):
        self = cls()
        self.binary, self.player = encoding == "msgpack", player
        target = f"{url}/v1/room/{room}?player={player}&role={role}"
        self.ws = await connect(target, subprotocols=[f"lasthit.v1.{encoding}"])
        assert self.ws.subprotocol == f"lasthit.v1.{encoding}", self.ws.subprotocol
        self.welcome = await self.hear()
        assert self.welcome["t"] == "welcome" and self.welcome["player"] == player, self.welcome
        self.seen = self.welcome["seq"]
        return self

    async def hear(self):
        data = await asyncio.wait_for(self.ws.recv(), PATIENCE_S)
        assert isinstance(data, bytes) == self.binary, data
        return unpack(data) if self.binary else json.loads(data)

    async def send(self, op, contest, args=None):
        id = f"py-{next(self.numbers)}"
        action = {"op": op, "id": id, "contest": contest}
        if args is not None:
            action["args"] = args
        await self.ws.send(pack(action) if self.binary else json.dumps(action))
        return id

    async def verdict(self, wanted):
        while True:
            message = await self.hear()
            assert message["t"] == "verdict", message
            first = message.get("from", message["seq"])
            assert first == self.seen + 1, f"a gap: {self.seen}, then {message}"
            self.seen = message["seq"]
            if wanted(message):
                return message

    async def answer(self, id):
        return await self.verdict(lambda v: v.get("id") == id and v["player"] == self.player)

    async def act(self, op, contest, args=None):
        return await self.answer(await self.send(op, contest, args))


def nanoseconds(value, binary):
    assert isinstance(value, int if binary else str), value
    return int(value)


async def match(urls, encoding):
    room = f"python-{encoding}-{time.time_ns()}"
    first, last = urls[0], urls[-1]
    keeper = await Session.join(first, room, "keeper", encoding, role="server")
    ann = await Session.join(first, room, "ann", encoding)
    bob = await Session.join(last, room, "bob", encoding)
    assert bob.welcome["state"] == {"targets": {}}, bob.welcome

    spawned = await keeper.act("spawn", "baron", {"hp": 1000})
    assert (spawned["outcome"], spawned["round"]) == ("granted", 1), spawned
    denied = await ann.act("spawn", "baron", {"hp": 1})
    assert (denied["outcome"], denied["reason"]) == ("denied", "server_only"), denied

    for player, hp in ((ann, 700), (bob, 400), (ann, 100)):
        hit = await player.act("hit", "baron", {"damage": 300})
        assert (hit["outcome"], hit["body"]["hp"]) == ("granted", hp), hit

    # Both strike at what is left; bob's send comes first.
    bobs, anns = await bob.send("hit", "baron", {"damage": 300}), await ann.send("hit", "baron", {"damage": 300})
    won, late = await bob.answer(bobs), await ann.answer(anns)
    assert (won["outcome"], won["body"]["hp"], won["body"]["overkill"], won["round"]) == ("granted", 0, 200, 1), won
    assert (late["outcome"], late["reason"], late["round"]) == ("denied", "late", 1), late
    margin = nanoseconds(late["behind_ns"], ann.binary)
    assert margin == nanoseconds(late["arrival_ns"], ann.binary) - nanoseconds(won["arrival_ns"], ann.binary) > 0, late
    told = await keeper.verdict(lambda v: v.get("id") == anns)
    assert told == late, (told, late)

    respawned = await keeper.act("spawn", "baron", {"hp": 5})
    assert (respawned["outcome"], respawned["round"]) == ("granted", 2), respawned
    again = await ann.act("hit", "baron", {"damage": 5})
    assert (again["outcome"], again["body"]["hp"], again["round"]) == ("granted", 0, 2), again

    cid = await Session.join(last, room, "cid", encoding)
    baron = cid.welcome["state"]["targets"]["baron"]
    assert baron == {"hp": 0, "max_hp": 5, "round": 2, "winner": "ann"}, baron
    for session in (cid, bob, ann):
        await session.ws.close()
    await keeper.verdict(lambda v: v["event"] == "close" and v["player"] == "ann")
    await keeper.ws.close()
    print(f"{encoding}: bob took the last hit, ann was {margin / 1000:.0f} µs late, and won round 2")


async def main():
    for encoding in ("json", "msgpack"):
        await match(sys.argv[1:], encoding)


asyncio.run(main())
