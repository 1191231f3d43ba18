"""Reads safetensors files with nothing but Python."""

import array
import json
import math
import struct
import sys

CODES = {"F32": "f", "I64": "q", "I32": "i", "F64": "d"}


def read(path, wanted=None):
    """{name: (shape, numbers)} of the tensors whose names `wanted` takes."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        found = {}
        for name, entry in header.items():
            if name == "__metadata__" or (wanted and not wanted(name)):
                continue
            start, end = entry["data_offsets"]
            file.seek(8 + length + start)
            numbers = array.array(CODES[entry["dtype"]])
            numbers.frombytes(file.read(end - start))
            if sys.byteorder == "big":
                numbers.byteswap()
            assert len(numbers) == math.prod(entry["shape"]), f"{path}: {name}"
            found[name] = (entry["shape"], numbers)
        return found


def far(a, b):
    """Largest |a − b|; infinite where only one of two is a number."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        off = abs(x - y)
        if off > worst:
            worst = off
        elif off != off and not (x == y or (x != x and y != y)):
            return math.inf
    return worst


def largest(a):
    return max((abs(x) for x in a if x == x), default=0.0)
