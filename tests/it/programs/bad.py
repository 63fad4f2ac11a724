"""Does what an op says, which is nothing good. `add` counts."""

import json
import os
import socket
import struct
import sys
import time

connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ["LASTHIT_RULES"])
file = connection.makefile("rb")


def send(message):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    connection.sendall(struct.pack(">I", len(body)) + body)


send({"type": "hello", "protocol": 1, "name": "bad", "version": 1})
print("bad is here", flush=True)
while True:
    head = file.read(4)
    if len(head) < 4:
        sys.exit()
    message = json.loads(file.read(struct.unpack(">I", head)[0]))
    if message["type"] == "ping":
        send({"type": "pong", "id": message["id"]})
        continue
    decisions, count = [], message["state"] or 0
    for event in message["events"]:
        op = event.get("op")
        if op == "garbage":
            send(b"garbage \x00\x1b[2J" * 100)
        elif op == "too_many":
            decisions += [{"outcome": "granted"}] * (1 + len(message["events"]))
        elif op == "too_late":
            time.sleep(2)
        elif op == "other_request":
            message["id"] += 1
        elif op == "unknown_field":
            decisions.append({"outcome": "granted", "hat": 1})
            continue
        elif op == "whisper":
            decisions.append({"outcome": "granted", "to": [event["args"]]})
            continue
        elif op == "nothing":
            decisions = []
            break
        elif op == "large_frame":
            connection.sendall(b"\xff\xff\xff\xff")
        elif op == "exit":
            sys.exit("going")
        elif op == "large_state":
            decisions.append({"outcome": "granted", "state": "x" * (2 << 20)})
            continue
        elif op == "add":
            count += 1
            decisions.append({"outcome": "granted", "body": count, "state": count})
            continue
        decisions.append({"outcome": "granted"})
    send({"type": "resolved", "id": message["id"], "decisions": decisions})
