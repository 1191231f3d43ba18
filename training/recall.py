"""Tasks whose answer stands in the text: a needle in filler, lists of keys, lists read twice, counting.

A document is a list of (text, weight): weight 0 for what nobody can foresee (a number when it is first told), 3 for an
answer, 1 for the rest.
"""

import random

import words as w

UNFORESEEABLE, PLAIN, ANSWER = 0, 1, 3
Doc = list[tuple[str, int]]

HEADERS = [
    "Read the following report carefully. One sentence in it matters; you will be asked about it at the end.\n\n",
    "There is something important hidden in this text. Find it and remember it.\n\n",
    "Read the text. A question follows.\n\n",
    "", "", "",
]


def digits(rng: random.Random, low=3, high=6) -> str:
    return "".join(rng.choice("0123456789") for _ in range(rng.randint(low, high)))


def fact(rng: random.Random, form: int) -> tuple[str, str, str, str]:
    """(key, what is told before the value, the value, the question)."""
    if form == 0:
        what = rng.choice(["code", "code", "number", "combination", "key number"])
        of = f"the {rng.choice(w.COLOURS + w.QUALITIES)} {rng.choice(w.HOLDERS)}"
        return of, f"The {what} of {of} is", digits(rng), f"What is the {what} of {of}?"
    if form == 1:
        name, holder = rng.choice(w.GIRLS + w.BOYS), rng.choice(w.HOLDERS)
        return name, f"The {holder} of {name} has the number", digits(rng), f"What number does the {holder} of {name} have?"
    if form == 2:
        return "", "The pass key is", digits(rng, 4, 6), "What is the pass key?"
    if form == 3:
        name = rng.choice(w.GIRLS + w.BOYS)
        return name, f"The secret word of {name} is", rng.choice(w.NOUNS), f"What is the secret word of {name}?"
    name = rng.choice(w.GIRLS + w.BOYS)
    return name, f"{name} lives in house number", digits(rng, 2, 3), f"Where does {name} live?"


def facts(rng: random.Random, count: int, form: int | None = None):
    """`count` facts of one form, or of any, whose keys differ."""
    found = {}
    for _ in range(50 * count):
        if len(found) == count:
            break
        new = fact(rng, rng.randrange(5) if form is None else form)
        found.setdefault(new[0], new)
    return list(found.values())


def told(f) -> Doc:
    return [(f[1] + " ", PLAIN), (f[2], UNFORESEEABLE), (".", PLAIN)]


def asked(f) -> Doc:
    return [(f"\n\nQuestion: {f[3]}\nAnswer: {f[1]} ", PLAIN), (f[2], ANSWER), (".", PLAIN)]


def needle(rng: random.Random, filler: list[str], count: int) -> Doc:
    """Facts between the sentences of a filler, then a question about each in any order."""
    hidden = facts(rng, count, None if rng.random() < 0.5 else rng.choice([0, 0, 1, 2, 3, 4]))
    cuts = sorted(rng.randint(0, len(filler)) for _ in hidden)
    doc, at = [(rng.choice(HEADERS), PLAIN)], 0
    for f, cut in zip(hidden, cuts):
        doc.append((" ".join(filler[at:cut]) + (" " if cut > at else ""), PLAIN))
        doc += told(f)
        if f[0] == "" and rng.random() < 0.5:
            doc += [(" Remember it. ", PLAIN), (f[2], ANSWER), (" is the pass key.", PLAIN)]
        doc.append((" ", PLAIN))
        at = cut
    doc.append((" ".join(filler[at:]), PLAIN))
    for f in rng.sample(hidden, len(hidden)):
        doc += asked(f)
    return doc


def listing(rng: random.Random, count: int) -> Doc:
    """Lines of one form, told one after the other, then some of them asked."""
    known = facts(rng, count, rng.choice([0, 1, 1, 3, 4]))
    doc = [(rng.choice(["Here is the list.\n\n", "Here is the list of lockers.\n\n", "Remember these lines.\n\n", ""]), PLAIN)]
    gap = rng.choice(["\n", "\n", " "])
    for i, f in enumerate(known):
        doc += ([(gap, PLAIN)] if i else []) + told(f)
    for f in rng.sample(known, min(len(known), rng.randint(2, 4))):
        doc += asked(f)
    return doc


def twice(rng: random.Random, count: int) -> Doc:
    """A list of words or digits, read twice: the second time it can be foreseen."""
    if rng.random() < 0.7:
        items = rng.sample(w.NOUNS, min(count, len(w.NOUNS)))
        joint = rng.choice([" ", ", "])
    else:
        items, joint = [digits(rng, 1, 4) for _ in range(count)], " "
    text = joint.join(items)
    first = len(items[0])
    return [(text[:first], UNFORESEEABLE), (text[first:], UNFORESEEABLE), ("\n\n", PLAIN), (text[:first], UNFORESEEABLE),
            (text[first:], ANSWER if count < 12 else PLAIN)]


def counting(rng: random.Random, count: int) -> Doc:
    start, step = rng.randint(0, 30), rng.randint(1, 9)
    return [(", ".join(str(start + step * i) for i in range(count)) + ".", PLAIN)]


def task(rng: random.Random, size: int, filler) -> Doc:
    """One document of about `size` tokens; `filler(chars)` gives sentences."""
    kind = rng.random()
    if kind < 0.55:
        count = rng.choice([1, 1, 2, 2, 3, 4]) if size < 400 else rng.choice([1, 2, 3, 4, 5, 6])
        room = size - 38 * count - 10
        return needle(rng, filler(4 * room) if room > 12 else [], count)
    if kind < 0.75:
        return listing(rng, max(2, min(20, (size - 75) // 14)))
    if kind < 0.95:
        return twice(rng, max(4, min(40, size // 3)))
    return counting(rng, max(5, min(25, size // 4)))
