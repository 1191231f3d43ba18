"""Is a number that stands somewhere in the prompt found? Held-out prompts, by length and depth."""

import random

import torch

import recall
import words
from data import Texts

LENGTHS, DEPTHS = (128, 256, 448), (0.0, 0.25, 0.5, 0.75, 1.0)


def prompt(rng: random.Random, texts: Texts, size: int, depth: float):
    """(text up to the answer, answer): one safe's code in about `size` tokens of filler."""
    of = f"the {rng.choice(words.COLOURS)} {rng.choice(words.HOLDERS)}"
    answer = recall.digits(rng, 5, 5)
    filler = texts.filler(4 * (size - 50))
    cut = round(depth * len(filler))
    told = f"The code of {of} is {answer}."
    text = " ".join([*filler[:cut], told, *filler[cut:]])
    return f"{text}\n\nQuestion: What is the code of {of}?\nAnswer: The code of {of} is ", answer


@torch.no_grad()
def found(logits_of, tok, text: str, answer: str) -> bool:
    """Does greedy decoding say the whole answer? (All its digits are the arg max when fed the right ones.)"""
    ids = tok.encode(text + answer).ids
    logits = logits_of(torch.tensor([ids]))[0]
    n = len(answer)
    return logits[-n - 1 : -1].argmax(-1).tolist() == ids[-n:]


def table(logits_of, tok, held_novels, each: int, seed: int = 4242):
    """{length: [share found at each depth]}."""
    rng, texts = random.Random(seed), Texts(held_novels, seed + 1)
    result = {}
    for size in LENGTHS:
        row = []
        for depth in DEPTHS:
            hits = sum(found(logits_of, tok, *prompt(rng, texts, size, depth)) for _ in range(each))
            row.append(hits / each)
        result[size] = row
    return result
