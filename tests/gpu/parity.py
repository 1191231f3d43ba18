"""Frames of a card against those of the CPU in f32: parity.py PROGRAM MODEL.

`trace` writes what happens inside, `compare` what policies keep; both on both devices, on the same prompt of token ids.
The reference is always the CPU with --precision f32. Limits are those that the project sets itself: 2e-3 of the largest
logit, 2e-3 in attention probabilities, kept entries that differ only where scores are as close as that, the same greedy
continuation.
"""

import json
import os
import subprocess
import sys
import tempfile

import tensors
from verdict import at_most, judge, told

LIMIT = 2e-3
LANES = ["snapkv@50%", "h2o@50%", "tova@50%", "streaming@25%", "knorm@50%", "adakv+snapkv@50%:window=8"]
TINY = bool(os.environ.get("GPU_TINY"))
STEPS = "4" if TINY else "24"


def run(program, *args):
    done = subprocess.run([program, *args], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{args[0]} ends with {done.returncode}: {' '.join(done.stderr.split())[:400]}")
    return done.stdout


def rows(tensor):
    """Of a tensor [n, width]."""
    (count, width), numbers = tensor
    return [numbers[i * width : (i + 1) * width] for i in range(count)]


def logits_far(found, expected):
    """Largest error of a row relative to the row's largest logit."""
    return max(
        tensors.far(a, b) / (tensors.largest(b) or 1.0) for a, b in zip(rows(found), rows(expected), strict=True)
    )


def trace(program, model, prompt, folder, name, *how):
    out = os.path.join(folder, f"{name}.safetensors")
    run(program, "trace", "--model", model, *prompt, "--steps", STEPS, "--attn", "full", "--out", out, *how)
    return tensors.read(out)


def compare_traces(name, found, expected):
    same = list(found["ids"][1]) == list(expected["ids"][1])
    judge(f"{name}: greedy text", same, f"{STEPS} steps", "the same ids")
    if not same:
        return
    at_most(f"{name}: logits, of the largest", logits_far(found["logits"], expected["logits"]), LIMIT)
    attention = [key for key in expected if key.startswith("attn.") and key[5:].isdigit()]
    at_most(f"{name}: attention", max(tensors.far(found[key][1], expected[key][1]) for key in attention), LIMIT)
    for what, keys in {
        "residual norms, of the largest": ["resid.l2", "resid.rms", "resid.absmax"],
        "entropies, of the largest": ["attn_entropy"],
        "keys and values, of the largest": [k for k in expected if k.startswith(("key_l2", "value_l"))],
    }.items():
        far = [tensors.far(found[k][1], expected[k][1]) / (tensors.largest(expected[k][1]) or 1.0) for k in keys]
        at_most(f"{name}: {what}", max(far), LIMIT)


def gap(kept, reference, scores):
    """Largest difference of scores, of the largest one, between an entry kept here alone and one kept there alone; with
    how many there are of them."""
    worst, count = 0.0, 0
    for layer, (a_layer, b_layer) in enumerate(zip(kept, reference, strict=True)):
        for head, (a, b) in enumerate(zip(a_layer, b_layer, strict=True)):
            only_a, only_b = set(a) - set(b), set(b) - set(a)
            count += len(only_a) + len(only_b)
            if not only_a and not only_b:
                continue
            values = scores[layer][head] if layer < len(scores) and head < len(scores[layer]) else []
            among = [values[p] for p in only_a | only_b if p < len(values)]
            if len(among) < len(only_a | only_b):
                return float("inf"), count
            worst = max(worst, (max(among) - min(among)) / (tensors.largest(values) or 1.0))
    return worst, count


def compare_lanes(name, program, model, prompt):
    lanes = [part for lane in LANES for part in ("--lane", lane)]
    both = [
        json.loads(
            run(program, "compare", "--model", model, *prompt, *lanes, "--steps", STEPS, "--precision", "f32",
                "--scores", "--json", "--device", device)
        )
        for device in ("cuda", "cpu")
    ]  # fmt: skip
    pairs = list(zip(both[0]["lanes"], both[1]["lanes"], strict=True))
    gaps = [gap(card["kept"], cpu["kept"], (cpu.get("scores") or {}).get("values", [])) for card, cpu in pairs]
    worst, count = max(worst for worst, _ in gaps), sum(count for _, count in gaps)
    what = f"{count} entries differ" + (f", by scores of {worst:.2g}" if count else "")
    judge(f"{name}: kept by {len(pairs)} lanes", worst <= LIMIT, what, f"none, or by scores within {LIMIT:g}")
    for what, key in [("greedy text", "ids"), ("bytes", "kv_bytes")]:
        others = [cpu["spec"] for card, cpu in pairs if card[key] != cpu[key]]
        judge(f"{name}: {what} of {len(pairs)} lanes", not others, ", ".join(others) or "none differs", "the same")


def compare_recordings(name, program, model, prompt, folder):
    files = []
    for device in ("cuda", "cpu"):
        files.append(os.path.join(folder, f"{device}.trace"))
        run(program, "run", "--model", model, *prompt, "--steps", STEPS, "--precision", "f32", "--device", device,
            "--record", files[-1])  # fmt: skip
    report = json.loads(run(program, "diff", *files, "--json"))
    same = report["prompts_equal"] and report["shapes_equal"]
    firsts = [(what, step) for lane in report["lanes"] for what, step in lane["first"].items()]
    differ = sorted({f"{what} at step {step}" for what, step in firsts if what != "number" and step is not None})
    found = ", ".join(differ) if same else "other prompts or shapes"
    judge(f"{name}: diff of recordings", same and not differ, found or "same tokens, same kept", "the same")
    worst = {}
    for lane in report["lanes"]:
        for what, at in lane["largest"].items():
            if at and what != "jaccard":
                worst[what] = max(worst.get(what, 0.0), abs(size(at["what"])))
    told(f"{name}: diff, largest", ", ".join(f"{what} {value:.1e}" for what, value in worst.items()))


def size(what):
    """Of a difference, which may come with its place."""
    return what if isinstance(what, (int, float)) else next(v for v in what.values() if isinstance(v, float))


def main():
    program, model = sys.argv[1:3]
    name = os.path.basename(model).split(".")[0]
    folder_alone = os.path.isdir(model) and not os.path.exists(os.path.join(model, "tokenizer.json"))
    count = 24 if TINY else 40
    # weights alone have no tokenizer
    prompt = ["--ids", ",".join(str(i * 37 % 320) for i in range(count))] if folder_alone else ["--sample", "sink"]
    with tempfile.TemporaryDirectory() as folder:
        try:
            exact = ["--device", "cpu", "--precision", "f32"]
            for how, on_card, on_cpu in [
                ("f32", ["--precision", "f32"], []),
                ("native, KV f32", ["--kv", "f32"], []),
                ("native, KV f16", ["--kv", "f16"], ["--kv", "f16"]),
            ]:
                reference = trace(program, model, prompt, folder, "cpu", *exact, *on_cpu)
                found = trace(program, model, prompt, folder, "cuda", "--device", "cuda", *on_card)
                compare_traces(f"{name}, {how}", found, reference)
            compare_lanes(name, program, model, prompt)
            compare_recordings(name, program, model, prompt, folder)
        except (RuntimeError, OSError, KeyError, ValueError, AssertionError) as error:
            judge(f"{name}: parity", False, str(error), "it runs")


if __name__ == "__main__":
    main()
