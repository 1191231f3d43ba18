"""Prompts of 128 to 400 tokens for LookaheadKV: text to go on with, questions about it, hidden facts, lists, rules.

Half of them are put into the model's chat template. A prompt is (kind, ids): it is put together from pieces of ids, so
that a passage can be cut to the size that is left.
"""

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import recall
import stories

SHORTEST, LONGEST = 128, 400
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
USER, ASSISTANT = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
ASK = [
    "Summarise the text in one sentence.", "What is this text about?", "Who or what is named in this text?",
    "What happens at the end of this text?", "Write the sentence that could come next.", "Repeat the most important sentence.",
    "Explain the text to a child.", "Give the text a title.", "List three facts from the text.", "How does the text begin?",
    "Write a question that this text answers.", "What does the writer want to say?", "Repeat the last sentence of the text.",
    "Write a short letter to a friend about this text.", "Which words in it are the hardest? Explain them.",
]
RULES = [
    "Write at most three sentences.", "Begin with \"Dear\" and the name.", "Do not use exclamation marks.", "Never name a price.",
    "Use simple words.", "Be polite.", "Name the day of the delivery.", "End with \"Yours, the shop\".", "Thank for the patience.",
    "Do not repeat the question.", "Answer in the first person.", "Put the title in quotation marks.", "Write no lists.",
    "Say what comes next.", "Mention the weather once.", "Leave out all adjectives.", "Write about the present.",
]
KINDS = ["text", "ask", "ask", "needle", "needle", "list", "rules"]


class Prompts:
    def __init__(self, tok, documents, rng):
        self.documents, self.rng = documents, rng
        self.ids = lambda text: tok.encode(text).ids

    def passage(self, room: int) -> list[int]:
        """Ids of neighbouring paragraphs of a document, cut to `room`."""
        document = self.rng.choice(self.documents)
        at, ids = self.rng.randrange(len(document) - 12), []
        while len(ids) < room and at < len(document):
            ids += self.ids(("\n\n" if ids else "") + document[at])
            at += 1
        return ids[:room]

    def filler(self, room: int) -> list[str]:
        """Sentences of a document, about `room` tokens."""
        document = self.rng.choice(self.documents)
        at, found, size = self.rng.randrange(len(document) - 40), [], 0
        while size < room and at < len(document):
            for sentence in stories.sentences(document[at]):
                size += len(self.ids(" " + sentence))
                if size <= room:
                    found.append(sentence)
            at += 1
        return found

    def told(self, doc: recall.Doc) -> tuple[str, str, str]:
        """What a document of `recall` tells, the last question, and how the answer begins."""
        text = "".join(piece for piece, _ in doc[:-2])
        told, question = text.rsplit("\n\nQuestion: ", 1)
        question, start = question.split("\nAnswer: ")
        return told, question, start.rstrip()

    def body(self, kind: str, size: int, chat: bool) -> tuple[list[int], list[int], list[int]]:
        """Ids of what is told, of what is asked, and of how the answer begins where no chat says so."""
        rng, ids = self.rng, self.ids
        if kind == "ask":
            asked = rng.choice(ASK)
            if rng.random() < 0.3:
                before = ids(asked + "\n\n")
                return before + self.passage(size - len(before)), [], ids("\n\n")
            after = ids("\n\n" + asked)
            return self.passage(size - len(after)), after, ids("\n\nAnswer:")
        if kind == "needle":
            count = rng.choice([1, 1, 2, 3])
            told, asked, start = self.told(recall.needle(rng, self.filler(size - 45 * count), count))
            return ids(told), ids(f"\n\n{'' if chat else 'Question: '}{asked}"), ids(f"\nAnswer: {start}")
        if kind == "list":
            told, asked, start = self.told(recall.listing(rng, max(4, size // 15)))
            return ids(told), ids(f"\n\n{'' if chat else 'Question: '}{asked}"), ids(f"\nAnswer: {start}")
        rules = rng.sample(RULES, rng.randint(4, 10))
        before = ids("Follow these rules.\n\n" + "\n".join(f"{i + 1}. {rule}" for i, rule in enumerate(rules)) + "\n\n")
        after = ids("\n\nWrite an answer that follows the rules.")
        return before + self.passage(max(16, size - len(before) - len(after))), after, ids("\n\nAnswer:")

    def next(self) -> tuple[str, list[int]]:
        while True:
            kind, size = self.rng.choice(KINDS), self.rng.randint(SHORTEST, LONGEST)
            chat = kind != "text" and self.rng.random() < 0.6
            if kind == "text":
                found = self.passage(size)
            elif chat:
                before, after = self.ids(SYSTEM + USER), self.ids(ASSISTANT)
                told, asked, _ = self.body(kind, size - len(before) - len(after), chat)
                found = before + told + asked + after
            else:
                found = sum(self.body(kind, size, chat), [])
            if SHORTEST <= len(found) <= LONGEST:
                return f"{kind}, chat" if chat else kind, found
