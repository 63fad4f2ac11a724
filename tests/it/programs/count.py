"""Counts in a room's state, and tells which process began the room: a state that was made anew would say another one.

With the word `plain`, it only counts.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "rules", "python"))
import lasthit_rules


def state():
    return {"count": 0, "pid": None if sys.argv[1:] == ["plain"] else os.getpid()}


def add(ctx, _):
    ctx.state["count"] += 1
    return {"count": ctx.state["count"], "pid": ctx.state["pid"]}


lasthit_rules.run(name="count", version=1, state=state, on={"add": add})
