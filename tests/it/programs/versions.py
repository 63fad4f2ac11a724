"""Counts, in the version that a file says: its path is the argument. Version 2 begins at a thousand more. Version 3 takes over nothing."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "rules", "python"))
import lasthit_rules

with open(sys.argv[1]) as file:
    VERSION = int(file.read())


def migrate(state, version):
    if VERSION == 3:
        raise ValueError("version 3 takes over nothing of version %d" % version)
    return {"count": state["count"] + 1000 * (VERSION - version)}


def add(ctx, _):
    ctx.state["count"] += 1
    return {"count": ctx.state["count"], "version": VERSION}


lasthit_rules.run(name="versions", version=VERSION, state=lambda: {"count": 0}, on={"add": add}, migrate=migrate)
