#!/usr/bin/env python3
"""Turns a screen that `attnscope run --keys ... | cat` printed into an SVG picture.

    target/release/attnscope run --keys "n<wait:idle>q" | .ci/screenshot.py > views/screens/overview.svg
"""

import re
import sys
from html import escape
from unicodedata import east_asian_width

BASE = ["#1b1d23", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#c8ccd4"]
BRIGHT = ["#6b7280", "#ff7b86", "#b5e890", "#ffd68a", "#82c4ff", "#e29bf5", "#7fdbe6", "#ffffff"]
PAPER, INK = "#14161b", "#c8ccd4"
W, H = 8, 17  # cell, pixels


def indexed(n):
    if n < 16:
        return (BASE + BRIGHT)[n]
    if n < 232:
        n -= 16
        return "#%02x%02x%02x" % tuple(0 if v == 0 else 55 + 40 * v for v in (n // 36, n // 6 % 6, n % 6))
    return "#%02x%02x%02x" % ((8 + 10 * (n - 232),) * 3)


class Pen:
    def __init__(self):
        self.fg, self.bg, self.bold, self.reverse = INK, PAPER, False, False

    def apply(self, codes):
        codes = iter([int(c or 0) for c in codes.split(";")])
        for c in codes:
            if c == 0:
                self.__init__()
            elif c == 1:
                self.bold = True
            elif c == 7:
                self.reverse = True
            elif c in (22, 27):
                self.bold, self.reverse = self.bold and c != 22, self.reverse and c != 27
            elif c in (38, 48):
                mode = next(codes)
                colour = indexed(next(codes)) if mode == 5 else "#%02x%02x%02x" % (next(codes), next(codes), next(codes))
                if c == 38:
                    self.fg = colour
                else:
                    self.bg = colour
            elif 30 <= c <= 37 or 90 <= c <= 97:
                self.fg = BASE[c - 30] if c < 90 else BRIGHT[c - 90]
            elif 40 <= c <= 47 or 100 <= c <= 107:
                self.bg = BASE[c - 40] if c < 100 else BRIGHT[c - 100]
            elif c == 39:
                self.fg = INK
            elif c == 49:
                self.bg = PAPER

    def look(self):
        fg, bg = (self.bg, self.fg) if self.reverse else (self.fg, self.bg)
        return fg, bg, self.bold


def cells(line):
    """(character, (ink, paper, bold)) of every cell."""
    pen, out, at = Pen(), [], 0
    for m in re.finditer(r"\x1b\[([0-9;]*)m|(.)", line):
        if m.group(2) is None:
            pen.apply(m.group(1))
        else:
            out.append((m.group(2), pen.look()))
            if east_asian_width(m.group(2)) in "WF":
                out.append(("", pen.look()))
    return out


BLOCKS = {"▀": (0, 0, 1, 0.5), "▄": (0, 0.5, 1, 0.5), "█": (0, 0, 1, 1), "▌": (0, 0, 0.5, 1), "▐": (0.5, 0, 0.5, 1)}


def main():
    lines = [cells(line) for line in sys.stdin.read().split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    width = max(len(line) for line in lines)
    boxes, words = [], []
    for y, line in enumerate(lines):
        x = 0
        while x < len(line):
            look, start = line[x][1], x
            text = ""
            while x < len(line) and line[x][1] == look and (line[x][0] not in BLOCKS or line[x][0] == line[start][0]):
                if (line[start][0] in BLOCKS) != (line[x][0] in BLOCKS):
                    break
                text += line[x][0]
                x += 1
            fg, bg, bold = look
            if bg != PAPER:
                boxes.append(f'<path fill="{bg}" d="M{start * W} {y * H}h{(x - start) * W}v{H}H{start * W}z"/>')
            if text[:1] in BLOCKS:
                bx, by, bw, bh = BLOCKS[text[0]]
                if bw == 1:
                    left, top, wide, tall = start * W, (y + by) * H, (x - start) * W, bh * H
                    boxes.append(f'<path fill="{fg}" d="M{left} {top:g}h{wide}v{tall:g}H{left}z"/>')
                else:
                    for i in range(start, x):
                        boxes.append(f'<path fill="{fg}" d="M{(i + bx) * W:g} {y * H}h{bw * W:g}v{H}h-{bw * W:g}z"/>')
            elif text.strip():
                weight = ' font-weight="bold"' if bold else ""
                words.append(
                    f'<text x="{start * W}" y="{y * H + 13}" fill="{fg}"{weight} textLength="{(x - start) * W}">{escape(text)}</text>'
                )
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width * W} {len(lines) * H}" '
        f'font-family="DejaVu Sans Mono,Menlo,Consolas,monospace" font-size="13" shape-rendering="crispEdges" xml:space="preserve">'
        f'<rect width="100%" height="100%" fill="{PAPER}"/>{"".join(boxes)}{"".join(words)}</svg>'
    )


main()
