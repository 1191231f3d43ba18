"""A Llama in plain PyTorch that keeps all attention probabilities, as Hugging Face's eager attention does.

As a program, a peer of `attnscope bench --serve`: eager.py MODEL [DEVICE] reads `pp N`, `tg N` and `ids N` and answers with
seconds, and with the ids fed so far. MODEL is a GGUF file (F32, F16, BF16, Q8_0, Q4_0, Q4_1) or a folder with
config.json and model.safetensors. Where transformers is there, it is what runs, on the same weights.
"""

import json
import math
import os
import struct
import sys
import time

import torch

# --- weights ---

GGUF_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
# type: (numbers of a block, bytes)
GGUF_BLOCKS = {0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34)}


def gguf_value(file, kind):
    if kind == 8:
        return file.read(struct.unpack("<Q", file.read(8))[0]).decode("utf-8", "replace")
    if kind == 9:
        of, count = struct.unpack("<IQ", file.read(12))
        return [gguf_value(file, of) for _ in range(count)]
    form = GGUF_NUMBERS[kind]
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def decoded(data, kind):
    """Blocks as numbers, float32."""
    if kind in (0, 1, 30):
        return data.view({0: torch.float32, 1: torch.float16, 30: torch.bfloat16}[kind]).float()
    blocks = data.view(-1, GGUF_BLOCKS[kind][1])
    scale = blocks[:, :2].contiguous().view(torch.float16).float()
    if kind == 8:
        return blocks[:, 2:].contiguous().view(torch.int8).float() * scale
    first = 4 if kind == 3 else 2
    nibbles = torch.cat([blocks[:, first:] & 15, blocks[:, first:] >> 4], dim=1).float()
    if kind == 2:
        return (nibbles - 8) * scale
    return nibbles * scale + blocks[:, 2:4].contiguous().view(torch.float16).float()


def of_gguf(path):
    with open(path, "rb") as file:
        magic, version, tensors, fields = struct.unpack("<4sIQQ", file.read(24))
        assert magic == b"GGUF" and version >= 2, f"{path} is no GGUF file"
        known = {}
        for _ in range(fields):
            name = gguf_value(file, 8)
            known[name] = gguf_value(file, struct.unpack("<I", file.read(4))[0])
        places = {}
        for _ in range(tensors):
            name = gguf_value(file, 8)
            dims = struct.unpack("<I", file.read(4))[0]
            shape = struct.unpack(f"<{dims}Q", file.read(8 * dims))
            places[name] = (shape, *struct.unpack("<IQ", file.read(12)))
        align = known.get("general.alignment", 32)
        base = (file.tell() + align - 1) // align * align
        weights = {}
        for name, (shape, kind, offset) in places.items():
            if kind not in GGUF_BLOCKS:
                raise SystemExit(f"{name} is stored in a type that this script does not decode ({kind})")
            numbers, size = GGUF_BLOCKS[kind]
            file.seek(base + offset)
            data = torch.frombuffer(bytearray(file.read(math.prod(shape) // numbers * size)), dtype=torch.uint8)
            weights[name] = decoded(data, kind).reshape(*reversed(shape))
    if known["general.architecture"] != "llama":
        raise SystemExit("plain PyTorch code is here for Llama alone")
    of = lambda name, otherwise=None: known.get(f"llama.{name}", otherwise)
    heads, hidden = of("attention.head_count"), of("embedding_length")
    shape = {
        "layers": of("block_count"),
        "heads": heads,
        "kv_heads": of("attention.head_count_kv", heads),
        "dim": of("rope.dimension_count", hidden // heads),
        "eps": of("attention.layer_norm_rms_epsilon"),
        # llama.cpp's order of rows: channels that turn together are neighbours
        "neighbours": True,
    }
    half = shape["dim"] // 2
    turns = of("rope.freq_base", 10000.0) ** -(torch.arange(half, dtype=torch.float64) / half)
    if "rope_freqs.weight" in weights:
        turns /= weights.pop("rope_freqs.weight").double()
    return shape, turns, weights


HF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def llama3_turns(turns, rope):
    """Long wavelengths are stretched, those between blended (Llama 3.1)."""
    long = 2 * math.pi / turns
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    blend = (rope["original_max_position_embeddings"] / long - rope["low_freq_factor"]) / (
        rope["high_freq_factor"] - rope["low_freq_factor"]
    )
    between = (1 - blend) * turns / rope["factor"] + blend * turns
    return torch.where(long > low, turns / rope["factor"], torch.where(long < high, turns, between))


def of_folder(path):
    with open(os.path.join(path, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    if config["model_type"] != "llama":
        raise SystemExit("plain PyTorch code is here for Llama alone")
    weights, types = {}, {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    with open(os.path.join(path, "model.safetensors"), "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            start, end = entry["data_offsets"]
            file.seek(8 + length + start)
            data = torch.frombuffer(bytearray(file.read(end - start)), dtype=types[entry["dtype"]])
            for theirs, ours in HF_NAMES.items():
                name = name.replace(theirs, ours)
            weights[name.replace("model.layers.", "blk.")] = data.float().reshape(entry["shape"])
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    shape = {
        "layers": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "dim": config.get("head_dim") or config["hidden_size"] // heads,
        "eps": config["rms_norm_eps"],
        "neighbours": False,
    }
    half, base = shape["dim"] // 2, rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    turns = base ** -(torch.arange(half, dtype=torch.float64) / half)
    kind = rope.get("rope_type", "default")
    if kind == "llama3":
        turns = llama3_turns(turns, rope)
    elif kind != "default":
        raise SystemExit(f"plain PyTorch code knows nothing of rope {kind}")
    return shape, turns, weights


# --- the decoder ---


class Llama:
    def __init__(self, path, device, dtype):
        shape, turns, weights = of_folder(path) if os.path.isdir(path) else of_gguf(path)
        self.shape, self.device = shape, device
        self.turns = turns.float().to(device)
        self.weights = {name: tensor.to(device, dtype) for name, tensor in weights.items()}
        self.head = self.weights.get("output.weight", self.weights["token_embd.weight"])
        self.vocab = self.head.shape[0]
        self.reset()

    def reset(self):
        self.cache, self.length = [None] * self.shape["layers"], 0

    def norm(self, x, name):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.shape["eps"])
        return self.weights[name] * wide.to(x.dtype)

    def turn(self, x, cos, sin):
        if self.shape["neighbours"]:
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    def forward(self, ids):
        """Logits [V] after the last id, and the attention probabilities of each layer [H, n, T]."""
        heads, kv_heads, dim = self.shape["heads"], self.shape["kv_heads"], self.shape["dim"]
        w, n = self.weights, len(ids)
        x = w["token_embd.weight"][torch.tensor(ids, device=self.device)]
        at = torch.arange(self.length, self.length + n, device=self.device)
        angle = at[:, None].float() * self.turns
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        self.length += n
        hidden = torch.arange(self.length, device=self.device) > at[:, None]
        maps = []
        for layer in range(self.shape["layers"]):
            name = f"blk.{layer}."
            y = self.norm(x, name + "attn_norm.weight")
            q, k, v = (y @ w[f"{name}attn_{part}.weight"].T for part in "qkv")
            q = self.turn(q.view(n, heads, dim).transpose(0, 1), cos, sin)
            k = self.turn(k.view(n, kv_heads, dim).transpose(0, 1), cos, sin)
            v = v.view(n, kv_heads, dim).transpose(0, 1)
            if self.cache[layer] is not None:
                k = torch.cat([self.cache[layer][0], k], dim=1)
                v = torch.cat([self.cache[layer][1], v], dim=1)
            self.cache[layer] = (k, v)
            group = heads // kv_heads
            k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
            scores = (q @ k.transpose(1, 2)) / math.sqrt(dim)
            scores = scores.masked_fill(hidden, float("-inf"))
            p = torch.softmax(scores, dim=-1, dtype=torch.float32).to(x.dtype)
            maps.append(p)
            x = x + (p @ v).transpose(0, 1).reshape(n, heads * dim) @ w[name + "attn_output.weight"].T
            y = self.norm(x, name + "ffn_norm.weight")
            gate, up = y @ w[name + "ffn_gate.weight"].T, y @ w[name + "ffn_up.weight"].T
            x = x + (torch.nn.functional.silu(gate) * up) @ w[name + "ffn_down.weight"].T
        return self.norm(x[-1], "output_norm.weight") @ self.head.T, maps


class Transformers:
    """The same through Hugging Face."""

    def __init__(self, path, device, dtype):
        from transformers import AutoModelForCausalLM

        file = {} if os.path.isdir(path) else {"gguf_file": os.path.basename(path)}
        where = os.path.dirname(os.path.abspath(path)) if file else path
        model = AutoModelForCausalLM.from_pretrained(where, dtype=dtype, attn_implementation="eager", **file)
        self.model, self.device = model.to(device).eval(), device
        self.vocab = model.config.get_text_config().vocab_size
        self.reset()

    def reset(self):
        self.cache = None

    def forward(self, ids):
        given = torch.tensor([ids], device=self.device)
        out = self.model(
            given, past_key_values=self.cache, use_cache=True, output_attentions=True, output_hidden_states=True
        )
        self.cache = out.past_key_values
        return out.logits[0, -1], out.attentions


def opened(path, device, dtype):
    try:
        return Transformers(path, device, dtype), "transformers, eager"
    except Exception as error:  # whatever is not as it should be: missing packages, a model it does not know
        return Llama(path, device, dtype), f"plain PyTorch (transformers: {' '.join(str(error).split())[:60]})"


def main():
    path, device = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "cuda"
    torch.set_grad_enabled(False)
    model, name = opened(path, device, torch.float32 if device == "cpu" else torch.bfloat16)
    print(f"ready {name}", flush=True)
    fed, following = [], None
    for line in sys.stdin:
        order, count = line.split()[0], int(line.split()[1])
        if order == "ids":
            print(",".join(map(str, fed)), flush=True)
            continue
        start = time.perf_counter()
        if order == "pp":
            model.reset()
            ids = max(1, min(40_000, model.vocab))
            # the ids of `attnscope bench`
            fed = [(i * 37 + 11) % ids for i in range(count)]
            following = int(model.forward(fed)[0].argmax())
        for _ in range(count if order == "tg" else 0):
            fed.append(following)
            following = int(model.forward([following])[0].argmax())
        print(f"{time.perf_counter() - start:.6f}", flush=True)


if __name__ == "__main__":
    main()
