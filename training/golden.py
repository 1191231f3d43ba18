"""Reference numbers of the exported twins in float32, for the decoder's tests.

    python golden.py MODELS OUT
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

import export
from model import rope_tables

PROMPTS = {
    "story": "Once upon a time there was a clever fox who lived in a mill beside the river. Every day",
    "needle": "The wind was cold. The code of the blue safe is 73916. The gulls were making a great noise.\n\n"
    "Question: What is the code of the blue safe?\nAnswer: The code of the blue safe is",
}
NEW = 16
FIELDS = {
    "ids": "i64 [P]: the prompt with <|endoftext|> (id 0) in front, as tokenizer.json encodes it",
    "logits": "f32 [V]: of the last position",
    "top.ids": "i64 [P, 5]: the five largest logits of each position, largest first",
    "top.logits": "f32 [P, 5]: their values",
    "stream.rms": "f32 [25, P]: root of the mean square over the d channels. Point 0 is the embedding; point s + 1 is the "
    "stream after sublayer s (0 is attention of layer 0, 1 its MLP, 2 attention of layer 1, ...). AttnRes: the sum of the "
    "sublayer outputs of the block so far (the partial, sublayer s included), which starts again at each block's first "
    "sublayer (layers 0, 3, 6, 9) and at a block's last sublayer is the block's sum",
    "input.rms": "f32 [25, P]: of h, what enters the pre-norm of sublayer s; row 24 enters the final norm. Plain: equal to "
    "stream.rms. AttnRes: the mix (row 0: the embedding)",
    "alpha": "f32 [25, 5, P], AttnRes only: weight of source n (0 the embedding, n >= 1 the sum of block n, complete or "
    "partial) in the mix for target s (0..23 the sublayers, 24 the output); 0 where a source does not exist yet; row 0 has 1 "
    "on the embedding by definition",
    "greedy": f"i64 [{NEW}]: the arg max continuation (id 0 would end it; none does or it is fed on)",
}


@torch.no_grad()
def measure(model, ids: list[int]) -> dict:
    s, size = model.s, len(ids)
    points = 2 * s.layers + 1
    stream, entering = torch.zeros(points, size), torch.zeros(points, size)
    alpha = torch.zeros(points, s.blocks + 1, size)
    alpha[0, 0] = 1

    def probe(kind, point, value):
        if kind == "alpha":
            alpha[point, : len(value)] = value[:, 0]
        elif kind in ("stream", "input"):
            (stream if kind == "stream" else entering)[point] = value[0].square().mean(-1).sqrt()

    h = model.hidden(torch.tensor([ids]), *rope_tables(s, size), probe)
    logits = (model.norm(h) @ model.embed_tokens.weight.T)[0]
    values, best = logits.topk(5)
    found = {"ids": torch.tensor(ids), "logits": logits[-1], "top.ids": best, "top.logits": values, "stream.rms": stream,
             "input.rms": entering if s.blocks else stream.clone()}
    if s.blocks:
        assert torch.allclose(alpha.sum(1), torch.ones(points, size), atol=1e-5)
        found["alpha"] = alpha
    greedy = list(ids)
    for _ in range(NEW):
        greedy.append(int(model(torch.tensor([greedy]), *rope_tables(s, len(greedy)))[0, -1].argmax()))
    found["greedy"] = torch.tensor(greedy[size:])
    return {k: v.contiguous() for k, v in found.items()}


def main(models: Path, out: Path):
    out.mkdir(parents=True, exist_ok=True)
    index = {"what": "The twins of models/ in float32 PyTorch, weights as exported (bfloat16 read as float32). The forward "
                     "pass is defined in training/README.md. Files are TWIN.PROMPT.safetensors.",
             "fields": FIELDS, "prompts": PROMPTS, "texts": {}}
    for twin, folder in export.FOLDER.items():
        model = export.read(models / folder)
        tok = Tokenizer.from_file(str(models / folder / "tokenizer.json"))
        for name, text in PROMPTS.items():
            found = measure(model, tok.encode(text).ids)
            save_file(found, out / f"{twin}.{name}.safetensors")
            index["texts"][f"{twin}.{name}"] = tok.decode(found["greedy"].tolist())
    for path in out.iterdir():
        path.chmod(0o644)
    (out / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
