"""Train the depth queries of SmolLM2: an adapter of 140 kB that mixes the outputs of all sublayers before each of them.

    python depth.py train WORK [--steps 120] [--rate 2e-4]
    python depth.py write WORK MODELS GOLDEN      # adapter, measurements, reference numbers for the decoder

`train` keeps WORK/depth/{query.pt, log.jsonl}; a run that was ended goes on from its last checkpoint.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import base
import texts
from depth_model import Depth

SEED, ROWS, SIZE, WARM, EVERY = 5, 2, 192, 10, 10
HANDBOOK = 5  # place in texts.training
STEPS, RATE = 120, 2e-4
HELD_OUT_ROWS, HELD_OUT_SIZE = 24, 256
PROMPT = "The capital of France is Paris, and the river"  # of the reference numbers


def rows(tok, documents, rng, size):
    """Endless rows [size] of ids: a document, a place in it, and the paragraphs from there on."""
    while True:
        document = rng.choice(documents)
        at, ids = rng.randrange(len(document) - 12), []
        while len(ids) < size and at < len(document):
            ids += tok.encode(document[at] + "\n\n").ids
            at += 1
        if len(ids) >= size:
            yield ids[:size]


def held_out(work, tok):
    """By source, rows [HANDBOOK = 5  # place in texts.training
STEPS, RATE = 120, 2e-4
HELD_OUT_ROWS, HELD_OUT_SIZE] from places spread evenly over it."""
    found = {}
    for name, paragraphs in texts.held_out(work).items():
        ids = tok.encode("\n\n".join(paragraphs)).ids
        gap = len(ids) // HELD_OUT_ROWS
        found[name] = torch.tensor([ids[i * gap : i * gap + HELD_OUT_SIZE] for i in range(HELD_OUT_ROWS)])
    return found


def train(work: Path, steps: int, rate: float):
    model = base.Base(base.fetch(work), torch.bfloat16)
    rng = random.Random(SEED)
    documents = texts.training(work, rng)
    data = rows(model.tok, documents + 4 * documents[HANDBOOK:][:1], rng, SIZE)  # as often as the five novels
    query = torch.zeros(2 * model.layers_count + 1, model.d)
    adam = torch.optim.Adam([query], lr=rate, betas=(0.9, 0.99))
    folder = work / "depth"
    folder.mkdir(exist_ok=True)
    step = 0
    if (folder / "query.pt").exists():
        kept = torch.load(folder / "query.pt")
        query.copy_(kept["query"])
        adam.load_state_dict(kept["adam"])
        step = kept["step"]
        for _ in range(step * ROWS):
            next(data)
    depth = Depth(model, query)
    while step < steps:
        began = time.time()
        ids = torch.tensor([next(data) for _ in range(ROWS)])
        for group in adam.param_groups:
            group["lr"] = rate * min(1, (step + 1) / WARM) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / steps)) / 2)
        loss, grad = depth.gradient(ids)
        size = grad.norm(dim=1, keepdim=True)
        query.grad = grad / size.clamp(min=1e-12) * size.clamp(max=1)
        adam.step()
        step += 1
        line = {"step": step, "loss": round(loss, 4), "gradient": round(grad.norm().item(), 4),
                "largest": round(query.abs().max().item(), 4), "seconds": round(time.time() - began, 1)}
        if step % EVERY == 0:  # what the same rows cost without the adapter
            with torch.no_grad():
                line["plain"] = round(depth.nll(model.stream(ids), ids).item(), 4)
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        if step % EVERY == 0 or step == steps:
            torch.save({"query": query, "adam": adam.state_dict(), "step": step}, folder / "query.pt")


@torch.no_grad()
def weights(depth: Depth, ids):
    """By target, means over the tokens of rows; `from_uniform` is the total variation distance, `most` the heaviest source."""
    _, _, alphas, *_ = depth.forward(ids)
    found = {name: [] for name in ("entropy", "uniform", "effective", "embedding", "distance", "most", "times_uniform", "from_uniform")}
    for t, alpha in enumerate(alphas):
        entropy = -(alpha * alpha.clamp(min=1e-30).log()).sum(0)
        mean, far = alpha.mean(1), torch.arange(t, -1, -1.0)
        most = int(mean.argmax())
        row = {"entropy": entropy.mean(), "uniform": math.log(t + 1), "effective": entropy.exp().mean(), "embedding": mean[0],
               "distance": (mean * far).sum(), "most": most, "times_uniform": (t + 1) * mean[most],
               "from_uniform": (alpha - 1 / (t + 1)).abs().sum(0).mean() / 2}
        for name, value in row.items():
            found[name].append(value if name == "most" else round(float(value), 4))
    return found


def write(work: Path, models: Path, golden: Path):
    model = base.Base(base.fetch(work))
    kept = torch.load(work / "depth/query.pt")
    depth, plain = Depth(model, kept["query"]), Depth(model, torch.zeros_like(kept["query"]))
    folder = models / "smollm2-depth"
    folder.mkdir(parents=True, exist_ok=True)
    golden.mkdir(parents=True, exist_ok=True)
    notes = {"format": "attnscope-depth-adapter", "base": base.ID, "layers": str(model.layers_count), "hidden": str(model.d),
             "eps": f"{model.eps:.6g}", "scale": "sources"}
    save_file({"depth.query": kept["query"].contiguous()}, folder / "depth.safetensors", metadata=notes)
    ids = torch.tensor([model.tok.encode(PROMPT).ids])
    with torch.no_grad():
        _, _, alphas, _, _, h = depth.forward(ids)
        alpha = torch.zeros(depth.targets, depth.targets, ids.shape[1])
        for t, a in enumerate(alphas):
            alpha[t, : t + 1] = a
        numbers = {"ids": ids[0], "logits": model.logits(h)[0, -1].contiguous(), "alpha": alpha}
    save_file(numbers, golden / "smollm2.safetensors", metadata={"prompt": PROMPT, "adapter": f"{folder.name}/depth.safetensors"})
    measured = {"steps": kept["step"], "tokens": kept["step"] * ROWS * SIZE, "held_out": {}, "weights": {}}
    for name, rows in held_out(work, model.tok).items():
        parts = rows.split(4)
        mean = lambda depth: round(sum(depth.loss(part) for part in parts) / len(parts), 4)
        measured["held_out"][name] = {"before": mean(plain), "after": mean(depth)}
        if name == "reference":
            measured["weights"] = weights(depth, rows[::6])
    weights_of = measured.pop("weights")
    text = json.dumps(measured, indent=1)[:-2] + ',\n "weights": {\n'
    text += ",\n".join(f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in weights_of.items()) + "\n }\n}\n"
    (folder / "measured.json").write_text(text)
    for path in [*folder.iterdir(), *golden.iterdir()]:
        path.chmod(0o644)
    print(measured["held_out"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["train", "write"])
    parser.add_argument("work", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=RATE)
    given = parser.parse_args()
    if given.what == "train":
        train(given.work, given.steps, given.rate)
    else:
        write(given.work, *given.folders)
