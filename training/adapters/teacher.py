"""What LookaheadKV learns from: keys and values of a prompt, and how much the model's own answer looks at each entry.

One folder: N.npy holds keys and values f16 [layers, 2, G, T, D] (keys turned), N.json kind and ids,
N.target.npy f16 [layers, H, T]: attention of the answer's rows to the prompt, mean over the rows, made to sum to 1.
The answer is greedy and the model's own, ANSWER tokens or up to the end of its turn.
"""

import json
import random
from pathlib import Path

import numpy as np
import torch

from base import norm
from prompts import Prompts

ANSWER, GROUP = 24, 8
END = 2  # <|im_end|>


@torch.no_grad()
def answered(model, prompts):
    """Of prompts (lists of ids): caches [layers, 2, G, T, D] and targets [layers, H, T] each, and the answers."""
    layers, heads, groups = model.layers_count, model.heads, model.kv_heads
    caches, firsts = [], []
    for ids in prompts:
        cache = torch.empty(layers, 2, groups, len(ids), model.head_dim)

        def keep(layer, k, v):
            cache[layer, 0], cache[layer, 1] = k[0], v[0]

        x = model.stream(torch.tensor([ids]), keep)
        firsts.append(model.logits(x[0, -1]).argmax())
        caches.append(cache)
    sizes = torch.tensor([len(ids) for ids in prompts])
    longest, many = int(sizes.max()), len(prompts)
    space = torch.zeros(layers, 2, many, groups, longest + ANSWER, model.head_dim)
    for i, cache in enumerate(caches):
        space[:, :, i, :, longest - sizes[i] : longest] = cache
    hidden = torch.arange(longest + ANSWER)[None] < (longest - sizes)[:, None]  # left of a prompt
    looked = torch.zeros(many, layers, heads, longest)
    token, alive, rows, answers = torch.stack(firsts), torch.ones(many, dtype=torch.bool), torch.zeros(many), []
    for i in range(ANSWER):
        answers.append(torch.where(alive, token, END))
        angles = [model.tables(sizes[j : j + 1] + i) for j in range(many)]
        cos, sin = (torch.stack(part)[:, None] for part in zip(*angles))  # [B, 1, 1, D]
        x, end = model.embedding[token][:, None], longest + i + 1
        for layer in range(layers):
            q, k, v = model.qkv(layer, norm(x, model.layers[layer].attention_norm, model.eps), cos, sin)
            space[layer, 0, :, :, end - 1 : end], space[layer, 1, :, :, end - 1 : end] = k, v
            keys, values = space[layer, :, :, :, :end]
            scores = q.view(many, groups, -1, model.head_dim) @ keys.transpose(-1, -2) / model.head_dim**0.5
            a = scores.masked_fill(hidden[:, None, None, :end], -torch.inf).softmax(-1)
            looked[:, layer] += alive[:, None, None] * a.flatten(1, 2)[..., :longest]
            x = x + model.linear(layer, "o", (a @ values).reshape(many, 1, -1))
            x = x + model.mlp(layer, x)
        rows += alive
        alive = alive & (token != END)
        token = model.logits(x[:, 0]).argmax(-1)
    targets = [looked[i, :, :, longest - sizes[i] :] for i in range(many)]
    targets = [t / t.sum(-1, keepdim=True) for t in targets]
    return caches, targets, [[int(step[i]) for step in answers][: int(rows[i])] for i in range(many)]


def make(model, documents, seed: int, count: int, folder: Path):
    """`count` prompts and what belongs to them; goes on where it was ended."""
    folder.mkdir(parents=True, exist_ok=True)
    source = Prompts(model.tok, documents, random.Random(seed))
    for first in range(0, count, GROUP):
        group = [source.next() for _ in range(min(GROUP, count - first))]
        if (folder / f"{first + len(group) - 1}.json").exists():
            continue
        found = answered(model, [ids for _, ids in group])
        for i, ((kind, ids), cache, target, answer) in enumerate(zip(group, *found), first):
            np.save(folder / f"{i}.npy", cache.half().numpy())
            np.save(folder / f"{i}.target.npy", target.half().numpy())
            (folder / f"{i}.json").write_text(json.dumps({"kind": kind, "ids": ids, "answer": answer}))
