"""Loss curves of both twins, and growth over depth: two small SVG files from the measured numbers.

    python plot.py RUN MODELS
"""

import csv
import json
import math
import sys
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP = 640, 300, 48, 28
COLOURS = {"plain": "#888888", "attnres": "#0072b2"}


def curve(run: Path, twin: str, every: int = 10) -> list[dict]:
    """Means over `every` steps: what the CSV in models/ keeps."""
    with (run / f"{twin}.csv").open() as f:
        rows = [[float(v) for v in row] for row in csv.reader(f)]
    out = []
    for at in range(0, len(rows) - every + 1, every):
        part = rows[at : at + every]
        out.append({"step": int(part[-1][0]), "tokens": int(part[-1][1]),
                    "loss": sum(r[3] for r in part) / every, "answers": sum(r[4] for r in part) / every})
    return out


def lines(series: dict, title: str, x_name: str, y_name: str, log: bool) -> str:
    """`series`: name to (colour, dash, [(x, y)])."""
    scale = math.log10 if log else float
    xs = [x for _, _, p in series.values() for x, _ in p]
    ys = [scale(y) for _, _, p in series.values() for _, y in p]
    (x0, x1), (y0, y1) = (min(xs), max(xs)), (min(ys), max(ys))

    def at(x, y):
        return (LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - 16),
                TOP + (1 - (scale(y) - y0) / (y1 - y0)) * (HEIGHT - TOP - 44))

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/><text x="{LEFT}" y="16" font-size="13">{title}</text>']
    for i in range(5):
        value = y0 + (y1 - y0) * i / 4
        value = 10**value if log else value
        y = at(x0, value)[1]
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - 16}" stroke="#ddd"/><text x="4" y="{y + 4:.1f}">{value:.3g}</text>')
        x = x0 + (x1 - x0) * i / 4
        out.append(f'<text x="{at(x, ys[0] if not log else 10**ys[0])[0] - 8:.1f}" y="{HEIGHT - 28}">{x:.3g}</text>')
    for i, (name, (colour, dash, points)) in enumerate(series.items()):
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*p) for p in points))
        out.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.4" stroke-dasharray="{dash}"/>')
        out.append(f'<text x="{LEFT + 145 * i}" y="{HEIGHT - 6}" fill="{colour}">{"--" if dash else "—"} {name}</text>')
    out.append(f'<text x="{WIDTH - 130}" y="16">{y_name} over {x_name}</text></svg>')
    return "\n".join(out) + "\n"


def main(run: Path, models: Path):
    losses, growth = {}, {}
    measured = json.loads((models / "measured.json").read_text())
    with (models / "curves.csv").open("w") as f:
        f.write("twin,step,tokens,loss,answer_loss\n")
        for twin, colour in COLOURS.items():
            rows = curve(run, twin)
            f.writelines(f"{twin},{r['step']},{r['tokens']},{r['loss']:.4f},{r['answers']:.4f}\n" for r in rows)
            losses[f"{twin}: all"] = (colour, "", [(r["tokens"] / 1e6, r["loss"]) for r in rows])
            losses[f"{twin}: answers"] = (colour, "4 3", [(r["tokens"] / 1e6, max(r["answers"], 1e-4)) for r in rows])
            depth = measured[twin]["depth"]
            growth[f"{twin}: stream"] = (colour, "", list(enumerate(depth["stream"]["mean"])))
            growth[f"{twin}: sublayer output"] = (colour, "4 3", list(enumerate(depth["output"]["mean"], 1)))
    (models / "curves.svg").write_text(lines(losses, "Training loss (nats)", "M tokens", "loss (log)", True))
    (models / "growth.svg").write_text(lines(growth, "RMS after each sublayer", "sublayer", "RMS", False))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
