"""Train LookaheadKV for SmolLM2-135M-Instruct: 16 soft tokens and their LoRA pairs of rank 4.

    python lookahead.py teach WORK      # prompts, the model's own answers, what these look at
    python lookahead.py train WORK      # WORK/lookahead/{state.pt, log.jsonl}; goes on from its last checkpoint
    python lookahead.py write WORK MODELS GOLDEN
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

import base
import teacher
import texts
from lookahead_model import ALPHA, LOOK, RANK, Lookahead, divergence

SEED, HELD_OUT_SEED = 9, 10
PROMPTS, HELD_OUT = 320, 24
GOLDEN = 120  # tokens of the prompt whose scores are kept for the program's tests
STEPS, BATCH, WARM, RATE, EVERY = 260, 6, 20, 2e-3, 25


def teach(work: Path):
    model = base.Base(base.fetch(work), torch.bfloat16)
    teacher.make(model, list(texts.held_out(work).values()), HELD_OUT_SEED, HELD_OUT, work / "lookahead/held_out")
    teacher.make(model, texts.training(work, random.Random(SEED)), SEED, PROMPTS, work / "lookahead/training")


class Taught:
    def __init__(self, folder: Path):
        self.folder, self.count = folder, len(list(folder.glob("*.target.npy")))

    def __getitem__(self, at):
        """Cache f16 [layers, 2, G, T, D], mapped from its file, and target f32 [layers, H, T]."""
        cache = torch.from_numpy(np.load(self.folder / f"{at}.npy", mmap_mode="c"))
        return cache, torch.from_numpy(np.load(self.folder / f"{at}.target.npy")).float()


@torch.no_grad()
def measured(look, taught, size=32):
    """Over prompts: mean divergence, and recall of the `size` entries a kv head's answer rows look at most."""
    loss = recall = 0
    groups = look.base.kv_heads
    for at in range(taught.count):
        cache, target = taught[at]
        (scores,) = look([cache])
        loss += divergence(target, scores).item() / taught.count
        best, chosen = (s.unflatten(1, (groups, -1)).mean(2).topk(size).indices for s in (target, scores.exp()))
        hit = (best[..., :, None] == chosen[..., None, :]).any(-1).float().mean().item()
        recall += hit / taught.count
    return {"held_out": round(loss, 4), f"recall@{size}": round(recall, 4)}


def train(work: Path, steps: int):
    torch.manual_seed(SEED)
    folder = work / "lookahead"
    look = Lookahead(base.Base(base.fetch(work), torch.bfloat16))
    adam = torch.optim.AdamW(look.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    training, held_out = Taught(folder / "training"), Taught(folder / "held_out")
    step = 0

    def write(line):
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")

    if (folder / "state.pt").exists():
        kept = torch.load(folder / "state.pt")
        look.load_state_dict(kept["look"])
        adam.load_state_dict(kept["adam"])
        step = kept["step"]
    else:
        write({"step": 0, **measured(look, held_out)})
    while step < steps:
        began = time.time()
        epoch, place = divmod(step * BATCH, training.count - training.count % BATCH)
        order = random.Random(SEED + epoch).sample(range(training.count), training.count)
        caches, targets = zip(*(training[at] for at in order[place : place + BATCH]))
        for group in adam.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARM) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
        loss = sum(divergence(target, scores) for target, scores in zip(targets, look(caches))) / BATCH
        adam.zero_grad()
        loss.backward()
        size = torch.nn.utils.clip_grad_norm_(look.parameters(), 1.0)
        adam.step()
        step += 1
        line = {"step": step, "loss": round(loss.item(), 4), "gradient": round(size.item(), 3)}
        if step % (4 * EVERY) == 0 or step == steps:
            line |= measured(look, held_out)
        if step % EVERY == 0 or step == steps:
            torch.save({"look": look.state_dict(), "adam": adam.state_dict(), "step": step}, folder / "state.pt")
        write(line | {"seconds": round(time.time() - began, 1)})


@torch.no_grad()
def write(work: Path, models: Path, golden: Path):
    kept = torch.load(work / "lookahead/state.pt")
    look = Lookahead(base.Base(base.fetch(work)))
    look.load_state_dict(kept["look"])
    for value in look.parameters():
        value.copy_(value.bfloat16())  # what the file holds is what is measured
    tensors = {name: value.bfloat16().contiguous() for name, value in look.tensors().items()}
    notes = {"lora_alpha": str(ALPHA), "base": base.ID, "rank": str(RANK), "soft_tokens": str(LOOK), "step": str(kept["step"])}
    folder = models / "smollm2-lookahead"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "lookahead.safetensors", metadata=notes)
    ids = json.loads((work / "lookahead/held_out/0.json").read_text())["ids"][:GOLDEN]
    cache = torch.empty(look.base.layers_count, 2, look.base.kv_heads, len(ids), look.base.head_dim)

    def keep(layer, k, v):
        cache[layer, 0], cache[layer, 1] = k[0], v[0]

    look.base.stream(torch.tensor([ids]), keep)
    (scores,) = look.scores([cache])
    scores = scores.unflatten(1, (look.base.kv_heads, -1)).mean(2).contiguous()
    save_file({"ids": torch.tensor(ids), "scores": scores}, golden / "lookahead.safetensors")
    for path in (folder / "lookahead.safetensors", golden / "lookahead.safetensors"):
        path.chmod(0o644)
    print(kept["step"], measured(look, Taught(work / "lookahead/held_out")))


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["teach", "train", "write"])
    parser.add_argument("work", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    if given.what == "teach":
        teach(given.work)
    elif given.what == "train":
        train(given.work, given.steps)
    else:
        write(given.work, *given.folders)
