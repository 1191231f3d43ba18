"""How well LookaheadKV chooses beside other policies, measured by the program itself on held-out prompts.

    python table.py WORK PROGRAM ADAPTER [--out measured.json] [--prompts 16]

Prompts are of the kinds the adapter was trained on, from texts it has not seen (another novel, the Debian Developer's
Reference). `PROGRAM compare` reads each, lets lane 0 write STEPS tokens and feeds these to all lanes. Means over prompts of:
recall of the entries that those steps looked at most, covered mass (as a share of what the best choice has), KL of the
next token to that of the full cache (nats, mean over the steps), and how often the most probable token is the same.
"""

import argparse
import json
import random
import subprocess
from pathlib import Path

import gguf

import base
import texts
from prompts import Prompts

SEED, STEPS, BUDGETS = 11, 24, (16, 32, 64)


def lanes(adapter: Path) -> dict[str, str]:
    """Spec by its label, `@` for the budget."""
    near = "window=8,kernel=1"  # what suits budgets this small: 8 rows vote, nothing is pooled
    return {"snapkv": "snapkv@", f"snapkv:{near}": f"snapkv@:{near}", "laq": "laq@", f"laq:{near}": f"laq@:{near}",
            "laq:with=nobody,window=1,kernel=1": "laq@:with=nobody,window=1,kernel=1",
            "lookahead:kernel=1": f"lookahead@:file={adapter},kernel=1", "lookahead": f"lookahead@:file={adapter}",
            "oracle": f"oracle@:tokens={STEPS}"}


def compared(program: Path, model: Path, ids: list[int], adapter: Path) -> dict:
    """Measures by (label, budget)."""
    names = [(name, budget) for name in lanes(adapter) for budget in BUDGETS]
    command = [str(program), "compare", "--model", str(model), "--ids", ",".join(map(str, ids)), "--steps", str(STEPS),
               "--teacher-forced", "--json"]
    for name, budget in names:
        command += ["--lane", lanes(adapter)[name].replace("@", f"@{budget}")]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["lanes"][1:]
    return {name: {"recall": lane["hindsight"]["recall"], "covered": lane["hindsight"]["covered"],
                   "of_best": lane["hindsight"]["of_best"], "kl": sum(lane["kl_teacher_forced"]) / STEPS,
                   "top1": lane["top1_agree"]} for name, lane in zip(names, found, strict=True)}


def row(name, measures):
    cells = [name]
    for budget in BUDGETS:
        m = measures[str(budget)]
        cells += [f"{100 * m['recall']:.1f}", f"{100 * m['of_best']:.1f}", f"{m['kl']:.3f}", f"{100 * m['top1']:.0f}"]
    return "| " + " | ".join(cells) + " |"


def main(given):
    path = base.fetch(given.work)
    tok = base.tokenizer(gguf.GGUFReader(str(path)))
    source = Prompts(tok, list(texts.held_out(given.work).values()), random.Random(SEED))
    prompts = [source.next() for _ in range(given.prompts)]
    total = {name: {str(budget): {} for budget in BUDGETS} for name in lanes(given.adapter)}
    for _, ids in prompts:
        for (name, budget), measures in compared(given.program, path, ids, given.adapter).items():
            into = total[name][str(budget)]
            for measure, value in measures.items():
                into[measure] = into.get(measure, 0) + value / len(prompts)
    tokens = [len(ids) for _, ids in prompts]
    print(f"{len(prompts)} prompts of {min(tokens)} to {max(tokens)} tokens, {STEPS} steps\n")
    head = [f"{what} @{budget}" for budget in BUDGETS for what in ("recall %", "mass, % of best", "KL", "top-1 %")]
    print("| policy | " + " | ".join(head) + " |\n|" + "---|" * (len(head) + 1))
    for name, measures in total.items():
        print(row(name, measures))
    if given.out:
        kinds = sorted({kind for kind, _ in prompts})
        found = {"prompts": len(prompts), "tokens": tokens, "steps": STEPS, "kinds": kinds, "policies": total}
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("program", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--prompts", type=int, default=16)
    main(parser.parse_args())
