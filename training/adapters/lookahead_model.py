"""LookaheadKV (arXiv 2603.10899): soft tokens behind a prompt whose attention foresees what the answer will look at.

LOOK rows P [LOOK, d] enter the first layer at positions T, T + 1, ...; they see the prompt and those before them, and
every linear weight is W + ALPHA / RANK B A for them alone. The score of prompt entry t in head h is the mean over the
rows of A[h, P_i, t]; it learns to be what the rows of the true answer give.
"""

import torch
import torch.nn.functional as F

from base import LINEAR, norm

LOOK, RANK, ALPHA = 16, 4, 16
MODULES = {name: f"self_attn.{name}_proj" for name in "qkvo"} | {name: f"mlp.{name}_proj" for name in ("gate", "up", "down")}


class Lookahead(torch.nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base
        words = torch.randint(1000, 30000, (LOOK,))  # neither control tokens nor the rarest
        self.soft = torch.nn.Parameter(base.embedding[words].clone())
        self.down, self.up = torch.nn.ParameterList(), torch.nn.ParameterList()
        for layer in base.layers:
            for name in LINEAR:
                outputs, inputs = layer.weights[name].shape
                self.down.append(torch.nn.Parameter(torch.empty(RANK, inputs).uniform_(-1, 1) / inputs**0.5))
                self.up.append(torch.nn.Parameter(torch.zeros(outputs, RANK)))

    def linear(self, layer, name, x):
        at = layer * len(LINEAR) + LINEAR.index(name)
        return self.base.linear(layer, name, x) + ALPHA / RANK * (x @ self.down[at].T) @ self.up[at].T

    def forward(self, caches):
        """Of prompts' caches [layers, 2, G, T, D]: logarithms of the scores, each made to sum to 1 [layers, H, T]."""
        return [(s / s.sum(-1, keepdim=True)).clamp(min=1e-12).log() for s in self.scores(caches)]

    def scores(self, caches):
        """What the program calls the score, by query head [layers, H, T] each."""
        base, many = self.base, len(caches)
        sizes = [cache.shape[-2] for cache in caches]
        longest = max(sizes)
        tables = [base.tables(torch.arange(size, size + LOOK)) for size in sizes]
        cos, sin = (torch.stack(part)[:, None] for part in zip(*tables))
        hidden = torch.zeros(many, LOOK, longest + LOOK, dtype=torch.bool)
        for i, size in enumerate(sizes):
            hidden[i, :, size:longest] = True
        hidden[:, :, longest:] = torch.ones(LOOK, LOOK, dtype=torch.bool).triu(1)
        x, found = self.soft.expand(many, -1, -1), []
        for layer in range(base.layers_count):
            weights, linear = base.layers[layer], lambda name, h: self.linear(layer, name, h)
            q, k, v = base.qkv(layer, norm(x, weights.attention_norm, base.eps), cos, sin, self.linear)
            past = torch.zeros(2, many, base.kv_heads, longest, base.head_dim)
            for i, cache in enumerate(caches):
                past[:, i, :, : sizes[i]] = cache[layer]
            keys, values = torch.cat((past[0], k), -2), torch.cat((past[1], v), -2)
            q = q.reshape(many, base.kv_heads, -1, base.head_dim)  # the query heads of a group, one behind the other
            scores = (q @ keys.transpose(-1, -2) / base.head_dim**0.5).unflatten(2, (-1, LOOK))
            a = scores.masked_fill(hidden[:, None, None], -torch.inf).softmax(-1)
            found.append(a[..., :longest].mean(-2).flatten(1, 2))
            out = (a.flatten(2, 3) @ values).view(many, base.heads, LOOK, -1)
            x = x + linear("o", out.transpose(1, 2).flatten(-2))
            h = norm(x, weights.mlp_norm, base.eps)
            x = x + linear("down", F.silu(linear("gate", h)) * linear("up", h))
        scores = torch.stack(found, 1)  # [B, layers, H, longest]
        return [scores[i, :, :, :size] for i, size in enumerate(sizes)]

    def tensors(self):
        """As peft writes them, and the soft tokens."""
        found = {"lookahead.embeddings": self.soft.detach()}
        for at, (a, b) in enumerate(zip(self.down, self.up)):
            name = f"base_model.model.model.layers.{at // len(LINEAR)}.{MODULES[LINEAR[at % len(LINEAR)]]}"
            found[f"{name}.lora_A.weight"], found[f"{name}.lora_B.weight"] = a.detach(), b.detach()
        return found


def divergence(target, scores):
    """Mean over layers and heads of KL(target || scores) in nats; target [layers, H, T], scores their logarithms."""
    return F.kl_div(scores, target, reduction="sum") / target.shape[:-1].numel()
