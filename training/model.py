"""The twins: one decoder, with plain residuals or with Block Attention Residuals (arXiv 2603.15031).

Shapes: B sequences, T tokens, d hidden, H query heads, G key/value heads, D head dim, n sources.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Shape:
    vocab: int = 4096
    hidden: int = 192
    layers: int = 12
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 32
    ff: int = 512
    context: int = 512
    eps: float = 1e-5
    theta: float = 10_000.0
    blocks: int = 0  # depth blocks; 0 is plain residuals

    def with_blocks(self, blocks: int) -> "Shape":
        return Shape(**{**asdict(self), "blocks": blocks})

    @property
    def layers_per_block(self) -> int:
        return self.layers // self.blocks


class Norm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight over the last axis, in f32."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rope_tables(shape: Shape, length: int):
    """cos and sin [T, D], the halves of a head as the pairs (the llama convention of Hugging Face)."""
    half = shape.head_dim // 2
    freq = shape.theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), freq)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos().float(), angle.sin().float()


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat([-b, a], dim=-1) * sin.to(x.dtype)


class Attention(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.s = s
        self.q_proj = nn.Linear(s.hidden, s.heads * s.head_dim, bias=False)
        self.k_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.v_proj = nn.Linear(s.hidden, s.kv_heads * s.head_dim, bias=False)
        self.o_proj = nn.Linear(s.heads * s.head_dim, s.hidden, bias=False)

    def forward(self, x, cos, sin):
        s, (b, t, _) = self.s, x.shape
        q = self.q_proj(x).view(b, t, s.heads, s.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(b, t, s.kv_heads, s.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(b, t, s.kv_heads, s.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        group = s.heads // s.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(b, t, s.heads * s.head_dim))


class Mlp(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden, s.ff, bias=False)
        self.up_proj = nn.Linear(s.hidden, s.ff, bias=False)
        self.down_proj = nn.Linear(s.ff, s.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.input_layernorm = Norm(s.hidden, s.eps)
        self.self_attn = Attention(s)
        self.post_attention_layernorm = Norm(s.hidden, s.eps)
        self.mlp = Mlp(s)
        if s.blocks:
            self.attn_res_proj, self.attn_res_norm = depth_query(s)
            self.mlp_res_proj, self.mlp_res_norm = depth_query(s)


def depth_query(s: Shape):
    """A pseudo-query w [1, d], zero at first, and the norm of its keys."""
    proj = nn.Linear(s.hidden, 1, bias=False)
    nn.init.zeros_(proj.weight)
    return proj, Norm(s.hidden, s.eps)


def mix(sources, proj, norm):
    """Σ α_i v_i with α = softmax_i(w · norm(v_i)); gives the mix [B, T, d] and α [n, B, T]."""
    query = (proj.weight[0] * norm.weight).float()
    scores = [(v * query).sum(-1) * torch.rsqrt(v.square().mean(-1) + norm.eps) for v in sources]
    alpha = torch.stack(scores).softmax(0)
    out = sum(a[..., None] * v for a, v in zip(alpha.unbind(0), sources))
    return out, alpha


class Decoder(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.s = s
        self.embed_tokens = nn.Embedding(s.vocab, s.hidden)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.norm = Norm(s.hidden, s.eps)
        if s.blocks:
            self.final_res_proj, self.final_res_norm = depth_query(s)

    def init(self, seed: int):
        """The same numbers for both twins: what only one has draws nothing."""
        gen = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.dim() == 2 and "_res_proj" not in name:
                fan_in = p.shape[1]
                std = 0.5 * fan_in**-0.5
                if name.startswith("embed_tokens"):
                    std = fan_in**-0.5
                elif name.endswith(("o_proj.weight", "down_proj.weight")):
                    std *= (2 * self.s.layers) ** -0.5
                nn.init.normal_(p, 0.0, std, generator=gen)
        return self

    def hidden(self, ids, cos, sin, probe=None):
        """The stream after the last sublayer (or the output mix), before the final norm: [B, T, d].

        `probe(kind, point, tensor)` is told every stream, sublayer output and α when given."""
        tell = probe or (lambda *_: None)
        x = self.embed_tokens(ids)
        tell("stream", 0, x)
        if self.s.blocks:
            return self.hidden_attnres(x, cos, sin, tell)
        for i, layer in enumerate(self.layers):
            f = layer.self_attn(layer.input_layernorm(x), cos, sin).float()
            x = x + f
            tell("output", 2 * i, f), tell("stream", 2 * i + 1, x)
            f = layer.mlp(layer.post_attention_layernorm(x)).float()
            x = x + f
            tell("output", 2 * i + 1, f), tell("stream", 2 * i + 2, x)
        return x

    def hidden_attnres(self, x, cos, sin, tell):
        done, part = [], x
        for i, layer in enumerate(self.layers):
            h = x
            if done:
                h, alpha = mix(done + [part], layer.attn_res_proj, layer.attn_res_norm)
                tell("alpha", 2 * i, alpha)
            if i % self.s.layers_per_block == 0:
                done, part = done + [part], None
            f = layer.self_attn(layer.input_layernorm(h), cos, sin).float()
            part = f if part is None else part + f
            tell("input", 2 * i, h), tell("output", 2 * i, f), tell("stream", 2 * i + 1, part)
            h, alpha = mix(done + [part], layer.mlp_res_proj, layer.mlp_res_norm)
            tell("alpha", 2 * i + 1, alpha)
            f = layer.mlp(layer.post_attention_layernorm(h)).float()
            part = part + f
            tell("input", 2 * i + 1, h), tell("output", 2 * i + 1, f), tell("stream", 2 * i + 2, part)
        h, alpha = mix(done + [part], self.final_res_proj, self.final_res_norm)
        tell("alpha", 2 * self.s.layers, alpha), tell("input", 2 * self.s.layers, h)
        return h

    def forward(self, ids, cos, sin):
        return F.linear(self.norm(self.hidden(ids, cos, sin)), self.embed_tokens.weight)
