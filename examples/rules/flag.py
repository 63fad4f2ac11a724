"""Capture the flag: who grabs it first has it, until it is dropped or half a minute is over. The same rules as flag.mjs and flag.pl.

    rules = { process = ["python3", "examples/rules/flag.py"] }
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "rules", "python"))
import lasthit_rules


def on_open(ctx, _):
    return {"holder": ctx.state["holder"], "grabs": ctx.state["grabs"]}


def grab(ctx, args):
    if ctx.state["holder"] is not None:
        return ctx.late("flag")
    ctx.state["holder"] = ctx.player
    ctx.state["grabs"] += 1
    ctx.win("flag")
    ctx.timer("free", after=args["ms"] if args else 30_000, data={"from": ctx.player})
    return {"grabs": ctx.state["grabs"]}


def drop(ctx, _):
    if ctx.state["holder"] != ctx.player:
        return ctx.deny("not_yours")
    ctx.state["holder"] = None
    ctx.next_round("flag")
    ctx.cancel("free")


def free(ctx, timer):
    ctx.state["holder"] = None
    ctx.next_round("flag")
    return {"free": True, "from": timer["data"]["from"]}


def tell(ctx, args):
    ctx.to(args["to"])
    return {"text": args["text"]}


def who(ctx, _):
    ctx.to("sender")
    return {"player": ctx.player, "role": ctx.role, "sessions": ctx.sessions}


def roll(ctx, _):
    return {"roll": int(ctx.random() * 6) + 1}


def cheat(ctx, _):
    ctx.state["holder"] = ctx.player
    raise ValueError("nobody cheats here")


if __name__ == "__main__":
    lasthit_rules.run(
        name="flag",
        version=1,
        state=lambda: {"holder": None, "grabs": 0},
        on_open=on_open,
        on={"grab": grab, "drop": drop, "tell": tell, "who": who, "roll": roll, "cheat": cheat},
        timers={"free": free},
    )
