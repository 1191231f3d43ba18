"""Decoding on a card, this program beside eager attention in PyTorch, in turns: speed.py PROGRAM MODEL.

Peers answer on their standard input and output, as in benches/peers.py: the program with its default probes, with kernel
timings off, with all probes off, and eager.py. Limits: 2,000 tokens/s and 20 times eager (of SmolLM2-135M), probes 10 %
and timings 15 % of a step, eight lanes 1.5 times the time of one.
"""

import json
import os
import statistics
import subprocess
import sys

from verdict import absent, at_least, at_most, judge, told

TINY = bool(os.environ.get("GPU_TINY"))
ROUNDS, PROMPT, STEPS = (1, 16, 4) if TINY else (5, 512, 256)
EAGER_STEPS = 2 if TINY else 64
HERE = os.path.dirname(os.path.abspath(__file__))


class Peer:
    def __init__(self, command, first=()):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        self.rates = []
        ready = self.process.stdout.readline().split(maxsplit=1)
        if not ready or ready[0] != "ready":
            raise RuntimeError(" ".join(self.process.stderr.read().split())[-300:] or "it ended")
        self.name = ready[1].strip() if len(ready) > 1 else ""
        for line in first:
            self.ask(line)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(" ".join(self.process.stderr.read().split())[-300:] or "it ended")
        return answer.strip()

    def round(self, steps):
        self.ask(f"pp {PROMPT}")
        self.rates.append(steps / float(self.ask(f"tg {steps}")))

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    @property
    def rate(self):
        return statistics.median(self.rates)


def decode(program, model, limited):
    ours = [program, "bench", "--serve", "--model", model, "--device", "cuda"]
    device = os.environ.get("GPU_EAGER", "cuda")
    peers = {
        "default probes": Peer(ours),
        "timings off": Peer(ours, ["timings off"]),
        "probes off": Peer(ours, ["probes off"]),
    }
    try:
        eager = Peer([sys.executable, os.path.join(HERE, "eager.py"), model, device])
    except RuntimeError as error:
        eager = None
        absent("decoding: eager attention in PyTorch", str(error))
    # a round that does not count: graphs and libraries become ready
    for turn in range(ROUNDS + 1):
        for peer in peers.values():
            peer.round(STEPS)
        if eager:
            eager.round(EAGER_STEPS)
        if turn == 0:
            for peer in [*peers.values(), eager]:
                if peer:
                    peer.rates.clear()
    rates = {name: peer.rate for name, peer in peers.items()}
    for name, rate in rates.items():
        told(f"decoding, one lane, {name}", f"{rate:.0f} tokens/s")
    if limited:
        at_least("decoding, one lane, default probes", rates["default probes"], 2000, " tokens/s")
    if eager:
        told(f"decoding, {eager.name}", f"{eager.rate:.1f} tokens/s")
        ratio = rates["default probes"] / eager.rate
        at_least("decoding, times eager", ratio, 20) if limited else told("decoding, times eager", f"{ratio:.1f}")
    shares = {
        "probes' share of a step, without timings": (1 - rates["timings off"] / rates["probes off"], 10),
        "timings' share of a step": (1 - rates["default probes"] / rates["timings off"], 15),
    }
    for what, (share, limit) in shares.items():
        at_most(what, 100 * share, limit, " %") if limited else told(what, f"{100 * share:.1f} %")
    for peer in [*peers.values(), eager]:
        if peer:
            peer.close()


def lanes(program, model, limited):
    more = [part for _ in range(7) for part in ("--lane", "streaming@50%")]
    sizes = ["--prompt-tokens", str(PROMPT), "--steps", str(STEPS), "--repeats", str(ROUNDS), "--no-drift", "--json"]
    command = [program, "bench", "--model", model, "--device", "cuda", *more, *sizes]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(" ".join(done.stderr.split())[-300:])
    found = json.loads(done.stdout)["lanes"]
    told("a step of one lane, and of eight", f"{found['one_ms']:.3f} ms, {found['all_ms']:.3f} ms")
    what = "a step of eight lanes, times one's"
    at_most(what, found["ratio"], 1.5) if limited else told(what, f"{found['ratio']:.2f}")


def main():
    program, model = sys.argv[1:3]
    # the limits are of one model
    limited = "smollm2" in os.path.basename(model).lower() and not TINY
    for part in (decode, lanes):
        try:
            part(program, model, limited)
        except (RuntimeError, OSError, ValueError) as error:
            judge(f"speed of {os.path.basename(model)}", False, str(error), "it runs")


if __name__ == "__main__":
    main()
