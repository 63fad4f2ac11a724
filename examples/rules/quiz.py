"""A quiz: the first right answer to a question wins it. After 20 seconds the question is over.

Start it with a worker:    [[rooms]]
                           pattern = "quiz-*"
                           rules = { process = ["python3", "examples/rules/quiz.py"] }

A game server (role `server`) asks: {"op": "ask", "args": {"question": "What is 6 x 7?", "answer": "42"}}. Players answer:
{"op": "answer", "contest": "question", "args": "42"}.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "rules", "python"))
import lasthit_rules

SECONDS = 20


def state():
    return {"question": None, "answer": None, "winner": None, "scores": {}}


def on_open(ctx, _):
    # What a new session finds. The answer stays here.
    return {"question": ctx.state["question"], "winner": ctx.state["winner"], "scores": ctx.state["scores"]}


def ask(ctx, args):
    if ctx.role != "server":
        return ctx.deny("not_the_server")
    if not isinstance(args, dict) or not all(isinstance(args.get(key), str) for key in ("question", "answer")):
        return ctx.deny("bad_args")
    ctx.state.update(question=args["question"], answer=args["answer"].strip().lower(), winner=None)
    ctx.next_round("question")
    ctx.timer("over", after=SECONDS * 1000)
    return {"question": args["question"]}


def answer(ctx, args):
    if ctx.state["winner"] is not None:
        return ctx.late("question")
    if ctx.state["answer"] is None:
        return ctx.deny("no_question")
    if not isinstance(args, str) or args.strip().lower() != ctx.state["answer"]:
        return ctx.deny("wrong")
    scores = ctx.state["scores"]
    scores[ctx.player] = scores.get(ctx.player, 0) + 1
    ctx.state["winner"] = ctx.player
    ctx.win("question")
    ctx.cancel("over")
    return {"answer": ctx.state["answer"], "scores": scores}


def over(ctx, _):
    # Nobody knew. The next question begins a new round.
    answer = ctx.state["answer"]
    ctx.state.update(question=None, answer=None)
    return {"answer": answer}


if __name__ == "__main__":
    lasthit_rules.run(
        name="quiz", version=1, state=state, on_open=on_open, on={"ask": ask, "answer": answer}, timers={"over": over}
    )
