"""Write a trained twin as a Hugging Face folder, and read one back.

    python export.py plain|attnres DATA RUN MODELS
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from model import Decoder, Shape
from train import BLOCKS

FOLDER = {"plain": "twin-plain", "attnres": "twin-attnres"}


def config(s: Shape) -> dict:
    found = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": s.vocab, "hidden_size": s.hidden,
        "num_hidden_layers": s.layers, "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads,
        "head_dim": s.head_dim, "intermediate_size": s.ff, "hidden_act": "silu", "max_position_embeddings": s.context,
        "rms_norm_eps": s.eps, "rope_theta": s.theta, "rope_scaling": None, "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "bfloat16",
    }
    if s.blocks:
        found |= {"architectures": ["LlamaAttnResForCausalLM"], "model_type": "llama_attnres", "attnres_mode": "block",
                  "attnres_num_blocks": s.blocks, "attnres_gate_type": "bias"}
    return found


def write(model: Decoder, tokenizer: Path, folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v.detach().bfloat16().contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    (folder / "config.json").write_text(json.dumps(config(model.s), indent=2) + "\n")
    shutil.copy(tokenizer, folder / "tokenizer.json")


def read(folder: Path) -> Decoder:
    """The exported weights in float32."""
    c = json.loads((folder / "config.json").read_text())
    shape = Shape(vocab=c["vocab_size"], hidden=c["hidden_size"], layers=c["num_hidden_layers"],
                  heads=c["num_attention_heads"], kv_heads=c["num_key_value_heads"], head_dim=c["head_dim"],
                  ff=c["intermediate_size"], context=c["max_position_embeddings"], eps=c["rms_norm_eps"],
                  theta=c["rope_theta"], blocks=c.get("attnres_num_blocks", 0))
    model = Decoder(shape)
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({k.removeprefix("model."): v.float() for k, v in tensors.items()})
    return model.eval()


def main(twin: str, data: Path, run: Path, models: Path):
    model = Decoder(Shape().with_blocks(BLOCKS[twin]))
    model.load_state_dict(torch.load(run / f"{twin}.pt")["model"])
    write(model, data / "tokenizer.json", models / FOLDER[twin])


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:5]))
