"""Measure an exported twin: held-out losses, recall, growth, depth weights, samples.

    python evaluate.py plain|attnres DATA MODELS      writes into MODELS/measured.json
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import austen
import export
import passkey
from model import rope_tables

EACH = 20  # prompts of each length and depth
STARTS = [
    "Once upon a time there was a clever fox who lived in",
    "One morning Marta could not find",
    "The fisherman and the little girl walked along the river until",
    "She was the youngest of the two daughters of a most affectionate",
]


def logits_of(model):
    return lambda ids: model(ids, *rope_tables(model.s, ids.shape[1]))


@torch.no_grad()
def held_out(model, data: Path) -> dict:
    """Mean next-token loss in nats over foreseeable tokens; for tasks also over answers."""
    result = {}
    for name in ("stories", "novel", "tasks"):
        with np.load(data / f"held-{name}.npz") as f:
            ids, w = torch.from_numpy(f["ids"].astype(np.int64)), torch.from_numpy(f["weights"].astype(np.int64))
        each = []
        for rows in ids.split(8):
            logits = logits_of(model)(rows[:, :-1])
            each.append(F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none").view(len(rows), -1))
        each, w = torch.cat(each), w[:, 1:]
        result[name] = each[w > 0].mean().item()
        if name == "tasks":
            result["answers"] = each[w > 2].mean().item()
            result["second half of the row"] = each[:, 256:][w[:, 256:] > 0].mean().item()
    return result


@torch.no_grad()
def continued(model, tok, text: str, count: int, temperature: float, seed: int) -> str:
    gen = torch.Generator().manual_seed(seed)
    ids = tok.encode(text).ids
    start = len(ids)
    for _ in range(count):
        last = logits_of(model)(torch.tensor([ids]))[0, -1]
        if temperature == 0.0:
            new = int(last.argmax())
        else:
            new = int(torch.multinomial((last / temperature).softmax(-1), 1, generator=gen))
        if new == 0:
            break
        ids.append(new)
    return tok.decode(ids[start:])


@torch.no_grad()
def depth(model, data: Path, rows: int = 16) -> dict:
    """Growth and depth weights over held-out stories and novel text; position 0 (the sink) left out.

    RMS of every point of the stream (embedding, then after each sublayer), of what enters each sublayer and of what it
    writes: root of the mean square over channels, then the mean and the median over tokens.
    """
    s, kept = model.s, {}

    def probe(kind, point, value):
        value = value.detach()
        if kind == "alpha":
            kept.setdefault((kind, point), []).append(value[:, :, 1:].flatten(1))
        else:
            kept.setdefault((kind, point), []).append(value[:, 1:].square().mean(-1).sqrt().flatten())

    for name in ("stories", "novel"):
        with np.load(data / f"held-{name}.npz") as f:
            ids = torch.from_numpy(f["ids"][:rows, :-1].astype(np.int64))
        model.hidden(ids, *rope_tables(s, ids.shape[1]), probe)
    result = {}
    for kind in ("stream", "input", "output"):
        points = sorted(p for k, p in kept if k == kind)
        values = [torch.cat(kept[kind, p]) for p in points]
        if points:
            result[kind] = {"mean": [v.mean().item() for v in values], "median": [v.median().item() for v in values]}
    rows = []
    for point in sorted(p for k, p in kept if k == "alpha"):
        a = torch.cat(kept["alpha", point], dim=1).double()
        mean = a.mean(1)
        each = -(a * a.clamp_min(1e-30).log()).sum(0)
        rows.append({
            "target": "output" if point == 2 * s.layers else f"{'attention' if point % 2 == 0 else 'MLP'} {point // 2}",
            "sources": len(mean), "mean": mean.tolist(), "entropy": each.mean().item(), "uniform": float(np.log(len(mean))),
            "effective": each.exp().mean().item(), "from_uniform": (mean - 1 / len(mean)).abs().max().item(),
            "token_std": a.std(1).max().item(),
        })
    if rows:
        result["weights"] = rows
    return result


def rounded(value):
    """Five digits are more than these numbers are good for."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


def main(twin: str, data: Path, models: Path):
    tok = Tokenizer.from_file(str(data / "tokenizer.json"))
    novels = austen.load(data)
    persuasion = [novels[3][len(novels[3]) * 4 // 5 :]]
    model = export.read(models / export.FOLDER[twin])
    found = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "held_out": held_out(model, data),
        "passkey": passkey.table(logits_of(model), tok, persuasion, EACH),
        "depth": depth(model, data),
        "greedy": {t: continued(model, tok, t, 80, 0.0, 0) for t in STARTS},
        "sampled": {t: continued(model, tok, t, 80, 0.7, 1) for t in STARTS},
    }
    print(twin, json.dumps({k: found[k] for k in ("held_out", "passkey")}))
    path = models / "measured.json"
    measured = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(measured | {twin: rounded(found)}, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], *map(Path, sys.argv[2:4]))
