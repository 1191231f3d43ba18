"""Free text to train and to measure on, out of Debian packages (downloaded, not installed).

Training: five of Jane Austen's novels (public domain), the Debian Administrator's Handbook (GPL-2+ or CC-BY-SA-3.0) and our
own stories. Held out: the sixth novel, Persuasion, and the Debian Developer's Reference (GPL-2+), a source of its own.
"""

import gzip
import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import austen
import stories

PERSUASION = 3  # place in austen.load
VERSIONS = {"debian-handbook": "11.20220922", "developers-reference": "12.18"}


def unpacked(work: Path, package: str) -> Path:
    folder = work / package
    if not folder.exists():
        if not list(work.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=work, check=True)
        found = next(work.glob(f"{package}_*.deb"))
        if f"_{VERSIONS[package]}_" not in found.name:
            print(f"{found.name}: made with {VERSIONS[package]}; the text may differ", file=sys.stderr)
        subprocess.run(["dpkg-deb", "-x", found, folder], check=True)
    return folder / "usr/share"


class Paragraphs(HTMLParser):
    """Text of `<div class="para">`, without what is nested in it as a block of its own."""

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attrs):
        if tag == "div":
            para = dict(attrs).get("class") == "para"
            self.open.append(para)
            if para:
                self.found.append("")

    def handle_endtag(self, tag):
        if tag == "div" and self.open:
            self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1]:
            self.found[-1] += data


def tidy(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return text.translate(str.maketrans("“”‘’", "\"\"''"))


def handbook(work: Path) -> list[str]:
    """Its paragraphs, in the order of the files' names."""
    out = []
    for path in sorted((unpacked(work, "debian-handbook") / "doc/debian-handbook/html/en-US").glob("*.html")):
        parser = Paragraphs()
        parser.feed(path.read_text(encoding="utf-8"))
        out += [text for text in map(tidy, parser.found) if len(text) > 80]
    return out


def reference(work: Path) -> list[str]:
    """Paragraphs of the Developer's Reference: no headings, lists or commands."""
    with gzip.open(unpacked(work, "developers-reference") / "developers-reference/developers-reference.txt.gz", "rt") as file:
        blocks = file.read().split("\n\n")
    return [tidy(b) for b in blocks if len(b) > 160 and b[0].isupper() and not re.search(r"^ |\*\*\*|===", b, re.M)]


def training(work: Path, rng: random.Random) -> list[list[str]]:
    """Documents, each a list of paragraphs: five novels, the handbook, stories."""
    novels = austen.load(work)
    told = [p for _ in range(2000) for p in stories.story(rng).split("\n\n")]
    return [book for i, book in enumerate(novels) if i != PERSUASION] + [handbook(work), told]


def held_out(work: Path) -> dict[str, list[str]]:
    return {"persuasion": austen.load(work)[PERSUASION], "reference": reference(work)}
