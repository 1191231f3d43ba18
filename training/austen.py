"""Jane Austen's six novels (public domain) out of Debian's package r-cran-janeaustenr (MIT), without R."""

import hashlib
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

PACKAGE = "r-cran-janeaustenr"
SHA256 = "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95"  # version 1.0.0-1
DATA = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
STRSXP, CHARSXP = 16, 9


def download(folder: Path) -> Path:
    """Fetch the package by apt (no installation) and give the path of its data file."""
    found = list(folder.glob(f"{PACKAGE}_*.deb"))
    if not found:
        subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True)
        found = list(folder.glob(f"{PACKAGE}_*.deb"))
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"{found[0]}: sha256 {digest} instead of {SHA256}: another version; the text may differ")
    subprocess.run(["dpkg-deb", "-x", found[0], folder / "austen"], check=True)
    return folder / "austen" / DATA


def r_strings(block: bytes) -> list[str]:
    """The first character vector of an R serialization (format X, version 3)."""
    at = 14
    at += 4 + struct.unpack_from(">i", block, at)[0]  # native encoding
    flags, count = struct.unpack_from(">ii", block, at)
    at += 8
    assert flags & 0xFF == STRSXP, "a character vector"
    lines = []
    for _ in range(count):
        flags, size = struct.unpack_from(">ii", block, at)
        assert flags & 0xFF == CHARSXP
        lines.append(block[at + 8 : at + 8 + size].decode("utf-8"))
        at += 8 + size
    return lines


def novels(rdb: bytes) -> list[list[str]]:
    """The lines of each novel: blocks of a big-endian length and a zlib stream."""
    books, at = [], 0
    while at < len(rdb):
        stream = zlib.decompressobj()
        books.append(r_strings(stream.decompress(rdb[at + 4 :])))
        at = len(rdb) - len(stream.unused_data)
    return books


def paragraphs(lines: list[str]) -> list[str]:
    """Join wrapped lines; drop headings and the marks of italics; plain quotes."""
    out = []
    for block in "\n".join(lines).split("\n\n"):
        text = re.sub(r"\s+", " ", block.replace("_", "").replace("--", " - ")).strip()
        text = text.translate(str.maketrans("“”‘’", "\"\"''"))
        if len(text) > 60 and not text.isupper() and text.isascii():
            out.append(text)
    return out


def load(folder: Path) -> list[list[str]]:
    """Paragraphs by novel: Emma, Mansfield Park, Northanger Abbey, Persuasion, Pride and Prejudice, Sense and Sensibility."""
    return [paragraphs(book) for book in novels(download(folder).read_bytes())]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for book in load(Path(folder)):
            print(len(book), "paragraphs,", sum(map(len, book)), "characters:", book[2][:80])
