#!/usr/bin/env python3
"""Speed of attnscope beside llama.cpp and Hugging Face on the same model, measured in turns.

    benches/peers.py MODEL.gguf [--attnscope target/release/attnscope] [--threads 2] [--rounds 7]
                     [--prompt 512] [--steps 128] [--hf FOLDER] [--only NAME,...] [--json]

Every peer is one long-running process that reads lines: `pp N` reads a new prompt of N tokens, `tg N` decodes N
tokens after it; it answers with the seconds that took. Rounds go through all peers in turn, so that a busy machine
is busy for all; a round during which other processes used the processors is marked and left out of the medians.

Peers: attnscope with its default probes, attnscope without probes, llama.cpp (if llama-cpp-python is installed), and
with --hf Hugging Face transformers in float32 with eager attention, attentions and hidden states returned (if torch
and transformers are installed).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

# Share of one processor that others may use during a sample.
FOREIGN = 0.2


def prompt(n, vocab):
    """The same ids as `attnscope bench`."""
    ids = max(1, min(40_000, vocab))
    return [(i * 37 + 11) % ids for i in range(n)]


def obey(read, step):
    """The peer's side of the protocol."""
    print("ready", flush=True)
    for line in sys.stdin:
        order, count = line.split()
        start = time.perf_counter()
        (read if order == "pp" else step)(int(count))
        print(f"{time.perf_counter() - start:.6f}", flush=True)


def llama_peer(model, threads):
    import llama_cpp

    llama = llama_cpp.Llama(
        model, n_ctx=4096, n_batch=512, n_threads=threads, n_threads_batch=threads, verbose=False, logits_all=False
    )
    vocab = llama.n_vocab()

    def greedy():
        logits = llama_cpp.llama_get_logits_ith(llama.ctx, -1)
        # The argmax in C: a loop in Python would be measured, not llama.cpp.
        import numpy

        return int(numpy.ctypeslib.as_array(logits, shape=(vocab,)).argmax())

    def read(n):
        llama.reset()
        llama._ctx.kv_cache_clear()
        llama.eval(prompt(n, vocab))

    def step(n):
        for _ in range(n):
            llama.eval([greedy()])

    obey(read, step)


def hf_peer(folder, threads):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    # A GGUF file is decoded to float32 by transformers (package gguf).
    file = {"gguf_file": os.path.basename(folder)} if folder.endswith(".gguf") else {}
    where = os.path.dirname(os.path.abspath(folder)) if file else folder
    model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, attn_implementation="eager", **file).eval()
    vocab = model.config.get_text_config().vocab_size
    state = {}

    def run(ids):
        with torch.no_grad():
            out = model(
                torch.tensor([ids]),
                past_key_values=state.get("cache"),
                use_cache=True,
                output_attentions=True,
                output_hidden_states=True,
            )
        state["cache"], state["next"] = out.past_key_values, int(out.logits[0, -1].argmax())

    def read(n):
        state.clear()
        run(prompt(n, vocab))

    def step(n):
        for _ in range(n):
            run([state["next"]])

    obey(read, step)


def busy():
    """Processor time used on this machine so far, seconds."""
    fields = [int(x) for x in open("/proc/stat").readline().split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def own(pid):
    """Processor time used by one process so far, seconds."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Peer:
    def __init__(self, name, command, first=()):
        self.name, self.samples = name, {"pp": [], "tg": []}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )
        self.usable = self.process.stdout.readline().strip() == "ready"
        for line in first:
            self.ask(line)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def sample(self, order, count):
        all_before, own_before, start = busy(), own(self.process.pid), time.perf_counter()
        seconds = self.ask(f"{order} {count}")
        wall = time.perf_counter() - start
        foreign = (busy() - all_before - (own(self.process.pid) - own_before)) / wall
        self.samples[order].append((count / seconds, foreign))

    def figures(self, order):
        quiet = [rate for rate, foreign in self.samples[order] if foreign < FOREIGN]
        rates = quiet or [rate for rate, _ in self.samples[order]]
        return {"tok_s": statistics.median(rates), "best": max(rates), "samples": len(rates), "quiet": bool(quiet)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--attnscope", default="target/release/attnscope")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--hf", metavar="FOLDER", help="the same model for transformers: a Hugging Face folder, or the GGUF file itself")
    parser.add_argument("--only", help="names of peers, separated by commas")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer == "llama.cpp":
        return llama_peer(args.model, args.threads)
    if args.peer == "hf":
        return hf_peer(args.model, args.threads)

    ours = [args.attnscope, "bench", "--serve", "--model", args.model, "--threads", str(args.threads)]
    this = [sys.executable, os.path.abspath(__file__), "--threads", str(args.threads)]
    commands = {
        "attnscope": (ours, ()),
        "attnscope-no-probes": (ours, ("probes off",)),
        "llama.cpp": (this + ["--peer", "llama.cpp", args.model], ()),
    }
    if args.hf:
        commands["hf-eager"] = (this + ["--peer", "hf", args.hf], ())
    peers = []
    for name, (command, first) in commands.items():
        if args.only and name not in args.only.split(","):
            continue
        peer = Peer(name, command, first if name != "llama.cpp" else ())
        if peer.usable:
            peers.append(peer)
        else:
            print(f"{name}: not available, left out", file=sys.stderr)
    for _ in range(args.rounds):
        for peer in peers:
            peer.sample("pp", args.prompt)
            peer.sample("tg", args.steps)
    report = {p.name: {"prefill": p.figures("pp"), "decode": p.figures("tg")} for p in peers}
    for peer in peers:
        peer.process.stdin.close()
        peer.process.wait()
    if args.json:
        print(json.dumps(report))
        return
    base = report.get("llama.cpp")
    print(f"{args.model}: prompt {args.prompt}, {args.steps} steps, {args.threads} threads, {args.rounds} rounds")
    for name, figures in report.items():
        for what in ("prefill", "decode"):
            f = figures[what]
            ratio = f", {f['tok_s'] / base[what]['tok_s']:.2f} x llama.cpp" if base and name != "llama.cpp" else ""
            noise = "" if f["quiet"] else ", machine busy"
            print(f"  {name:20} {what:8} {f['tok_s']:9.1f} tok/s (best {f['best']:.1f}, {f['samples']} samples{noise}){ratio}")


if __name__ == "__main__":
    main()
