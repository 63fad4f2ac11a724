"""The built-in rules `claim` with audience = "sender", as a process: see claim.js.

`loadtest rules` puts it beside rules/python/lasthit_rules.py and starts it.
"""

import lasthit_rules

CLAIMS_MAX = 100_000
LISTED_MAX = 100


def to_sender(ctx, _):
    ctx.to("sender")


def on_open(ctx, _):
    ctx.to("sender")
    claims = ctx.state["claims"]
    return {"held": len(claims), "claims": {key: claims[key] for key in sorted(claims)[:LISTED_MAX]}}


def claim(ctx, _):
    if ctx.contest is None:
        return ctx.deny("no_contest")
    claims = ctx.state["claims"]
    holder = claims.get(ctx.contest)
    if holder == ctx.player:
        return ctx.deny("already_yours")
    if holder is not None:
        ctx.late()
        ctx.to("sender")
        return {"holder": holder}
    if len(claims) >= CLAIMS_MAX:
        return ctx.deny("too_many_claims")
    claims[ctx.contest] = ctx.player
    ctx.win()
    ctx.to("sender")


def release(ctx, _):
    if ctx.contest is None:
        return ctx.deny("no_contest")
    holder = ctx.state["claims"].get(ctx.contest)
    if holder is None:
        return ctx.deny("not_held")
    if holder != ctx.player and ctx.role != "server":
        ctx.deny("not_holder")
        return {"holder": holder}
    del ctx.state["claims"][ctx.contest]
    ctx.next_round()
    ctx.to("sender")
    return {"holder": holder}


lasthit_rules.run(
    name="claims",
    version=1,
    state=lambda: {"claims": {}},
    on_open=on_open,
    on_end=to_sender,
    on_error=to_sender,
    on_close=to_sender,
    on={"claim": claim, "release": release},
)
