"""Kernels alone, from `bench --kernels --json`: kernels.py PROGRAM, the report on standard output of the program.

Limits: products with 1 GiB of weights at 70 % of the bandwidth of copying; sampling in one faster than a product and
separate sampling, which is PyTorch's matmul, softmax and multinomial on the same card; a map of 32,768 positions in 16 ms
without memory that grows as the square of the positions.
"""

import json
import os
import statistics
import subprocess
import sys

from verdict import absent, at_least, at_most, judge, told

TINY = bool(os.environ.get("GPU_TINY"))


def separate(sizes, device):
    """Microseconds of matmul + softmax + multinomial for each (vocab, width, batch)."""
    import torch

    torch.set_grad_enabled(False)
    found = {}
    for vocab, width, batch in sizes:
        weights = torch.randn(vocab, width, device=device).half()
        x = torch.randn(batch, width, device=device).half()

        def draw(x=x, weights=weights):
            return torch.multinomial(torch.softmax((x @ weights.T).float(), dim=-1), 1)

        found[vocab, width, batch] = timed(torch, draw, device)
    return found


def timed(torch, work, device, runs=10, repeats=9):
    if device == "cpu":
        import time

        start = time.perf_counter()
        work()
        return 1e6 * (time.perf_counter() - start)
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(runs):
            work()
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end) / runs)
    return statistics.median(times)


def main():
    program = sys.argv[1]
    command = [program, "bench", "--kernels", "--json", "--device", "cuda", *(["--tiny"] if TINY else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        judge("bench --kernels", False, " ".join(done.stderr.split())[-300:], "it runs")
        return
    report = json.loads(done.stdout)
    copy = report["copy_bytes_s"]
    told("copying, read and written together", f"{copy / 1e9:.0f} GB/s")

    def limited(judged, what, value, limit, unit=""):
        # figures of a machine without a card say nothing
        told(what, f"{value:.4g}{unit}") if TINY else judged(what, value, limit, unit)

    for p in report["products"]:
        what = f"{p['kernel']} of {p['format']}, {p['bytes'] / 1e9:.2f} GB, in {p['width']}"
        limited(at_least, what, 100 * p["share"], 70, " % of copying")
    sizes = [(s["vocab"], s["width"], s["batch"]) for s in report["sampling"]]
    try:
        apart = separate(sizes, os.environ.get("GPU_EAGER", "cuda"))
    except Exception as error:  # PyTorch is not there, or has no card
        apart = {}
        absent("separate sampling in PyTorch", " ".join(str(error).split())[:120])
    for s in report["sampling"]:
        what = f"sampling, {s['vocab']} x {s['width']}, batch {s['batch']}"
        other = apart.get((s["vocab"], s["width"], s["batch"]))
        times = f"{s['flash_us']:.1f} us, product alone {s['product_us']:.1f} us"
        told(what, times + (f", PyTorch {other:.1f} us" if other else ""))
        if other:
            limited(at_most, f"{what}: time of PyTorch's", s["flash_us"] / other, 1)
    for m in report["maps"]:
        what = f"map, {m['positions']} positions, D {m['dim']}, {m['fold']}"
        limited(at_most, what, m["ms"], 16, " ms")
        told(f"{what}: with memory and copy", f"{m['whole_ms']:.3f} ms")
        grown = m["bytes"] / m["bytes_of_half"]
        at_most(f"{what}: memory to half's", grown, 2)
    for a in report["attention"]:
        what = f"decode attention, {a['lanes']} lanes, {a['slots']} slots"
        told(what, f"{a['us']:.1f} us a layer, {100 * a['share']:.0f} % of copying")


if __name__ == "__main__":
    main()
