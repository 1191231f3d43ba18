"""Tokenizer and training rows: [rows, T + 1] token ids with a loss weight each, the same for both twins.

    python data.py OUT
"""

import random
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import austen
import recall
from stories import sentences, story

VOCAB, BOS = 4096, "<|endoftext|>"
# (name, T, rows, longest task in tokens at the first and at the last row, shares of story, novel and task rows)
PHASES = [
    ("a", 256, 11_200, (40, 235), (0.22, 0.13, 0.65)),
    ("b", 512, 16_000, (200, 500), (0.32, 0.20, 0.48)),
]
HELD_OUT = [("stories", 512, 64, (1, 0, 0)), ("novel", 512, 64, (0, 1, 0)), ("tasks", 512, 64, (0, 0, 1))]


class Texts:
    """Where filler and plain rows come from: stories without end, and the paragraphs of novels."""

    def __init__(self, novels: list[list[str]], seed: int):
        self.rng = random.Random(seed)
        self.novels = [" ".join(book) for book in novels]
        self.lengths = [len(book) for book in self.novels]

    def stories(self, chars: int) -> str:
        out = []
        while sum(map(len, out)) < chars:
            out.append(story(self.rng))
        return BOS.join(out)

    def novel(self, chars: int) -> str:
        """A random stretch that begins with a sentence."""
        book = self.rng.choices(self.novels, self.lengths)[0]
        at = self.rng.randrange(max(1, len(book) - chars - 3000))
        return " ".join(sentences(book[at : at + chars + 3000])[1:])

    def filler(self, chars: int) -> list[str]:
        if self.rng.random() < 0.7:
            text, novel = self.stories(chars).replace(BOS, " "), False
        else:
            text, novel = self.novel(chars), True
        out, size = [], 0
        for s in sentences(text):
            if size + len(s) > chars:
                break
            out.append(s.replace("\n", " ") if novel else s)
            size += len(s)
        return out


class Rows:
    def __init__(self, tok: Tokenizer, texts: Texts):
        self.tok, self.texts, self.bos = tok, texts, tok.token_to_id(BOS)

    def encode(self, doc: recall.Doc):
        """Ids and weights of one document behind its BOS; a token weighs as its last character does."""
        text = "".join(t for t, _ in doc)
        weight = np.repeat([x for _, x in doc], [len(t) for t, _ in doc]).astype(np.uint8)
        found = self.tok.encode(text, add_special_tokens=False)
        ids = [self.bos, *found.ids]
        return ids, [1, *(int(weight[end - 1]) for _, end in found.offsets)]

    def plain(self, text: str, size: int):
        ids = [self.bos, *self.tok.encode(text, add_special_tokens=False).ids][:size]
        assert len(ids) == size
        return ids, [1] * len(ids)

    def row(self, kind: int, size: int, longest: int):
        rng = self.texts.rng
        if kind < 2:
            text = self.texts.stories(8 * size) if kind == 0 else self.texts.novel(8 * size)
            return self.plain(text, size)
        ids, weights = [], []
        while len(ids) < size:
            room = size - len(ids)
            if ids and room < 45:
                more = self.plain(self.texts.stories(8 * room), room)
            else:
                want = min(longest, room) if rng.random() < 0.35 else rng.randint(30, max(31, min(longest, room)))
                more = self.encode(recall.task(rng, want, self.texts.filler))
                if len(more[0]) > room and (ids or len(more[0]) > size):
                    continue
            ids += more[0]
            weights += more[1]
        return ids[:size], weights[:size]

    def block(self, length: int, count: int, longest: tuple[int, int], shares):
        ids = np.zeros((count, length + 1), np.uint16)
        weights = np.ones((count, length + 1), np.uint8)
        for i in range(count):
            top = longest[0] + (longest[1] - longest[0]) * i // count
            kind = self.texts.rng.choices(range(3), shares)[0]
            ids[i], weights[i] = self.row(kind, length + 1, top)
        return ids, weights


def train_tokenizer(texts: Texts) -> Tokenizer:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=[BOS], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    corpus = [texts.stories(2_000_000).replace(BOS, "\n")] + [texts.novel(2_000) for _ in range(1200)]
    corpus += ["".join(t for t, _ in recall.task(texts.rng, 120, texts.filler)) for _ in range(3000)]
    tok.train_from_iterator(corpus, trainer)
    bos = tok.token_to_id(BOS)
    tok.post_processor = processors.TemplateProcessing(f"{BOS} $A", special_tokens=[(BOS, bos)])
    return tok


def main(out: Path):
    out.mkdir(parents=True, exist_ok=True)
    novels = austen.load(out)
    held = [novels[3][len(novels[3]) * 4 // 5 :]]  # the last fifth of Persuasion
    novels[3] = novels[3][: len(novels[3]) * 4 // 5]
    tok = train_tokenizer(Texts(novels, 1))
    tok.save(str(out / "tokenizer.json"))
    for n, (name, length, count, longest, shares) in enumerate(PHASES):
        ids, weights = Rows(tok, Texts(novels, 10 + n)).block(length, count, longest, shares)
        np.savez(out / f"train-{name}.npz", ids=ids, weights=weights)
        print(name, ids.shape, "weights", np.bincount(weights.ravel()) / weights.size, flush=True)
    for n, (name, length, count, shares) in enumerate(HELD_OUT):
        ids, weights = Rows(tok, Texts(held, 900 + n)).block(length, count, (30, 500), shares)
        np.savez(out / f"held-{name}.npz", ids=ids, weights=weights)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
