"""The tables of models/README.md, from what evaluate.py measured.

    python card.py MODELS
"""

import json
import sys
from pathlib import Path

import passkey


def table(head: list[str], rows: list[list]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines) + "\n"


def growth(depth: dict, kind: str, points) -> list[str]:
    return [f"{depth[kind]['mean'][p]:.2f}" for p in points]


def main(models: Path):
    measured = json.loads((models / "measured.json").read_text())
    twins = list(measured)
    kinds = list(measured[twins[0]]["held_out"])
    print("Held-out loss (nats per token)\n")
    print(table(["set", *twins], [[k, *(f"{measured[t]['held_out'][k]:.3f}" for t in twins)] for k in kinds]))
    print("Passkey found, by depth\n")
    rows = [[t, size, *(f"{100 * v:.0f} %" for v in row)] for t in twins for size, row in measured[t]["passkey"].items()]
    print(table(["twin", "tokens", *passkey.DEPTHS], rows))
    points = range(0, 25)
    print("RMS over depth\n")
    rows = []
    for p in points:
        row = [p]
        for t in twins:
            depth = measured[t]["depth"]
            row.append(f"{depth['stream']['mean'][p]:.2f}")
            row.append("" if p == 0 else f"{depth['output']['mean'][p - 1]:.2f}")
            if "input" in depth:
                row.append(f"{depth['input']['mean'][p]:.2f}")
        rows.append(row)
    print(table(["after sublayer", "plain: stream", "plain: output", "attnres: block sum", "attnres: output",
                 "attnres: mix read next"], rows))
    print("Depth weights\n")
    rows = []
    for r in measured["attnres"]["depth"]["weights"]:
        mean = [f"{v:.3f}" for v in r["mean"]] + [""] * (5 - r["sources"])
        rows.append([r["target"], *mean, f"{r['entropy']:.3f}", f"{r['uniform']:.3f}", f"{r['effective']:.2f}",
                     f"{r['from_uniform']:.3f}", f"{r['token_std']:.3f}"])
    print(table(["target", "embedding", "block 1", "block 2", "block 3", "block 4", "entropy", "uniform", "effective sources",
                 "max from uniform", "std over tokens"], rows))
    for kind in ("greedy", "sampled"):
        for t in twins:
            for start, text in measured[t][kind].items():
                print(f"* {t}, {kind}: **{start}**{text.replace(chr(10), ' / ')}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
