"""Train one twin on one thread; run the other beside it.

    python train.py plain|attnres DATA RUN

Both read the same rows in the same order. The state is saved every `save_every` steps and taken up again.
"""

import csv
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import optim
from model import Decoder, Shape, rope_tables

BLOCKS = {"plain": 0, "attnres": 4}


@dataclass(frozen=True)
class Recipe:
    seed: int = 20260316
    tokens_per_step: int = 4096
    muon_lr: float = 0.02
    adam_lr: float = 0.004
    momentum: float = 0.95
    decay: float = 0.05
    warmup: int = 40
    clip: float = 1.0  # on what AdamW steps; Muon's step has a fixed size
    late_answers: float = 10.0  # weight of answers from the plan's step `answers` on; 3 before
    long_rate: float = 0.4  # where the rate begins again for the rows with the longest tasks
    long_row: int = 14_000  # the first of these rows in phase b
    save_every: int = 50


def plan(run: Path) -> dict:
    """`total` steps and the first step of: phase `b`, heavier `answers`, the `cooldown` over which the rate falls linearly
    to 0, and the `long` tasks, over which it falls once more.

    Read again at every step, so that both runs can be cut short to fit the time there is."""
    return json.loads((run / "plan.json").read_text())


def rate(step: int, plan: dict, r: Recipe) -> float:
    if step >= plan["long"]:
        return r.long_rate * (plan["total"] - step) / (plan["total"] - plan["long"])
    fall = (plan["long"] - step) / (plan["long"] - plan["cooldown"])
    return min(1.0, (step + 1) / r.warmup, fall)


class Feed:
    """The rows of each phase, in file order; `batch(step)` is a pure function of the step and the plan."""

    def __init__(self, data: Path, r: Recipe):
        self.tokens, self.recipe = r.tokens_per_step, r
        self.phases = {}
        for name in "ab":
            with np.load(data / f"train-{name}.npz") as f:
                self.phases[name] = (f["ids"], f["weights"])

    def batch(self, step: int, plan: dict):
        name = "b" if step >= plan["b"] else "a"
        ids, weights = self.phases[name]
        rows = self.tokens // (ids.shape[1] - 1)
        at = (step - plan["b"] if name == "b" else step) * rows
        if step >= plan["long"]:
            at = self.recipe.long_row + (step - plan["long"]) * rows
        x = torch.from_numpy(ids[at : at + rows].astype(np.int64))
        w = torch.from_numpy(weights[at : at + rows, 1:].astype(np.float32))
        if step >= plan["answers"]:
            w = torch.where(w > 2, self.recipe.late_answers, w)
        return x[:, :-1], x[:, 1:].contiguous(), w


def losses(model, x, cos, sin, y):
    """Next-token loss of each position [B, T] in nats, logits in bf16 matmuls and f32 softmax."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x, cos, sin)
    return F.cross_entropy(logits.float().flatten(0, 1), y.flatten(), reduction="none").view_as(y)


def weighted(model, x, cos, sin, y, w):
    each = losses(model, x, cos, sin, y)
    plain = (w > 0).float()
    return (each * w).sum() / w.sum(), (each.detach() * plain).sum() / plain.sum(), (
        (each.detach() * (w > 2)).sum() / (w > 2).sum().clamp(min=1)
    )


def resumed(path: Path, step: int):
    """The log, open behind the rows of the first `step` steps."""
    rows = path.read_text().splitlines()[:step] if path.exists() else []
    path.write_text("".join(row + "\n" for row in rows))
    return path.open("a")


def main(twin: str, data: Path, run: Path):
    r, shape = Recipe(), Shape().with_blocks(BLOCKS[twin])
    torch.set_num_threads(1)
    model = Decoder(shape).init(r.seed)
    muon, adam = optim.build(model, r)
    feed, step = Feed(data, r), 0
    state = run / f"{twin}.pt"
    if state.exists():
        saved = torch.load(state)
        model.load_state_dict(saved["model"])
        adam.load_state_dict(saved["adam"])
        muon.state, step = saved["muon"], saved["step"]
    loss_of = torch.compile(weighted, dynamic=False)
    tables = {t: rope_tables(shape, t) for t in (256, 512)}
    log_file = resumed(run / f"{twin}.csv", step)
    log = csv.writer(log_file, lineterminator="\n")
    seconds, cpu = time.time(), time.process_time()
    while step < (p := plan(run))["total"]:
        x, y, w = feed.batch(step, p)
        loss, mean, answers = loss_of(model, x, *tables[x.shape[1]], y, w)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([q for g in adam.param_groups for q in g["params"]], r.clip)
        scale = rate(step, p, r)
        muon.step(r.muon_lr * scale)
        for group in adam.param_groups:
            group["lr"] = r.adam_lr * scale
        adam.step()
        model.zero_grad(set_to_none=True)
        step += 1
        log.writerow([step, step * r.tokens_per_step, *(f"{v:.4f}" for v in (loss, mean, answers, norm, scale)),
                      f"{time.time() - seconds:.2f}", f"{time.process_time() - cpu:.2f}"])
        log_file.flush()
        seconds, cpu = time.time(), time.process_time()
        if step % r.save_every == 0 or step == p["total"]:
            parts = {"model": model.state_dict(), "adam": adam.state_dict(), "muon": muon.state, "step": step}
            torch.save(parts, run / f"{twin}.new")
            (run / f"{twin}.new").rename(state)
        if step % 10 == 0:
            print(twin, step, f"{loss:.3f} mean {mean:.3f} answers {answers:.3f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
