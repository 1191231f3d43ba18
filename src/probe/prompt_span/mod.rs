//! Parts of a prompt that have names: system, document, question. What is left of each tells more about a cache policy
//! than the share that is left of the whole.
//!
//! The rule, on the text that the tokens spell:
//! - A prompt that begins with a chat template's mark (see [`chat`]) has turns, without the marks themselves. The system
//!   turns at its beginning are `system`, the last user turn is split as below, what an assistant has begun to say behind
//!   it is `assistant`, and everything between `system` and the last user turn is `history`, marks included.
//! - A user's turn of several paragraphs, with blank lines between them, is `document` (all but the last) and `question`
//!   (the last one); one of a single paragraph is `user`.
//! - A prompt without marks is split in the same way; one of a single paragraph is `prompt`. The beginning-of-text token
//!   belongs to nothing.
//! - A span runs from the token that holds its first character to the one that holds the first character of what comes
//!   next: blank lines belong to what stands before them, and a token that reaches over a border to what comes after it.
//!
//! Templates that have no mark for a system text (Gemma's) put it before the user's text: it is a part of `document`
//! there. Users name spans of their own with [`SpanAsk`], which come before these and replace those of the same name.

mod ask;
mod chat;
mod pieces;

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use ask::SpanAsk;
pub use pieces::Unit;

/// Positions `from..to` of the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptSpan {
    pub name: Arc<str>,
    pub from: u32,
    /// The first position behind it.
    pub to: u32,
}

/// A prompt as text, and where in it each token begins.
#[derive(Debug, Default)]
pub struct PromptText {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    /// Control tokens that it begins with.
    leading: usize,
}

impl PromptSpan {
    pub fn positions(&self) -> Range<u32> {
        self.from..self.to
    }

    pub fn contains(&self, position: u32) -> bool {
        self.positions().contains(&position)
    }
}

impl PromptText {
    /// Of each token what it spells, and whether it is a control token.
    pub fn new<B: AsRef<[u8]>>(tokens: impl IntoIterator<Item = (B, bool)>) -> Self {
        let mut text = Self::default();
        for (spelled, control) in tokens {
            if control && text.leading == text.starts.len() {
                text.leading += 1;
            }
            text.starts.push(text.bytes.len());
            text.bytes.extend_from_slice(spelled.as_ref());
        }
        text
    }

    fn len(&self) -> u32 {
        self.starts.len() as u32
    }

    /// The token that holds byte `at`; behind the last one where the text ends there.
    fn token(&self, at: usize) -> u32 {
        match at < self.bytes.len() {
            true => self.starts.partition_point(|&start| start <= at) as u32 - 1,
            false => self.len(),
        }
    }

    /// From byte `from` to byte `to`; nothing where no token begins there.
    fn span(&self, name: &str, from: usize, to: usize) -> Option<PromptSpan> {
        let (from, to) = (self.token(from), self.token(to));
        (from < to).then(|| PromptSpan { name: name.into(), from, to })
    }

    /// Where `words` stand for the first time from byte `from` on.
    fn find(&self, words: &str, from: usize) -> Option<usize> {
        let rest = self.bytes.get(from..).filter(|_| !words.is_empty())?;
        rest.windows(words.len()).position(|window| window == words.as_bytes()).map(|at| from + at)
    }

    /// `range` without the blanks before its first character; empty where there is none.
    fn trimmed(&self, range: Range<usize>) -> Range<usize> {
        let blanks = self.bytes[range.clone()].iter().take_while(|b| b.is_ascii_whitespace()).count();
        range.start + blanks..range.end
    }

    /// Where the last of several paragraphs in `range` begins.
    fn last_paragraph(&self, range: Range<usize>) -> Option<usize> {
        let words = self.bytes[range.clone()].trim_ascii_end();
        let mut blank_line = false;
        for (at, &byte) in words.iter().enumerate().rev() {
            match byte {
                b'\n' if blank_line => return Some(self.trimmed(range.start + at..range.end).start),
                b'\n' => blank_line = true,
                b' ' | b'\t' | b'\r' => {}
                _ => blank_line = false,
            }
        }
        None
    }

    /// The last user turn, or a prompt without turns: `document` and `question`, or `alone`.
    fn split(&self, alone: &str, range: Range<usize>) -> Vec<PromptSpan> {
        let range = self.trimmed(range);
        let spans = match self.last_paragraph(range.clone()) {
            Some(last) => [self.span("document", range.start, last), self.span("question", last, range.end)],
            None => [self.span(alone, range.start, range.end), None],
        };
        spans.into_iter().flatten().collect()
    }

    /// By the rule above; ascending, none reaches into another.
    pub fn spans(&self) -> Vec<PromptSpan> {
        let first = self.starts.get(self.leading).copied().unwrap_or(self.bytes.len());
        let turns = chat::turns(&self.bytes, first);
        if turns.is_empty() {
            return self.split("prompt", first..self.bytes.len());
        }
        let turns: Vec<_> = turns.into_iter().map(|(role, range)| (role, self.trimmed(range))).collect();
        let turns: Vec<_> = turns.into_iter().filter(|(_, range)| !range.is_empty()).collect();
        let systems = turns.iter().take_while(|(role, _)| *role == chat::Role::System).count();
        let asked = turns.iter().rposition(|(role, _)| *role == chat::Role::User);
        let whole = |name: &str, turns: &[(chat::Role, Range<usize>)]| {
            let (first, last) = (turns.first()?, turns.last()?);
            self.span(name, first.1.start, last.1.end)
        };
        let mut spans: Vec<PromptSpan> = whole("system", &turns[..systems]).into_iter().collect();
        let asked = asked.filter(|at| *at >= systems);
        spans.extend(whole("history", &turns[systems..asked.unwrap_or(turns.len())]));
        if let Some(at) = asked {
            spans.extend(self.split("user", turns[at].1.clone()));
            spans.extend(whole("assistant", &turns[at + 1..]));
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token is a word with the blanks before it, a line break, or a mark.
    fn text(tokens: &[&str]) -> PromptText {
        PromptText::new(tokens.iter().map(|t| (t.as_bytes(), t.starts_with('<') && t.ends_with('>'))))
    }

    fn named(text: &PromptText) -> Vec<(String, u32, u32)> {
        text.spans().into_iter().map(|s| (s.name.to_string(), s.from, s.to)).collect()
    }

    fn of(spans: &[(&str, u32, u32)]) -> Vec<(String, u32, u32)> {
        spans.iter().map(|(name, from, to)| (name.to_string(), *from, *to)).collect()
    }

    #[test]
    fn the_last_paragraph_is_the_question() {
        let paragraphs = text(&["<bos>", "A", " b", "\n\n", "C", "\n", " \n", "D", " e", "?", "\n"]);
        assert_eq!(named(&paragraphs), of(&[("document", 1, 7), ("question", 7, 11)]));
        assert_eq!(named(&text(&["A", "\n", "b", "\n\n"])), of(&[("prompt", 0, 4)]));
        assert_eq!(named(&text(&["<bos>"])), of(&[]));
        assert_eq!(named(&text(&[])), of(&[]));
    }

    #[test]
    fn a_token_that_reaches_over_a_border_belongs_to_what_comes_after() {
        assert_eq!(named(&text(&["A b", "\n\nC", " d"])), of(&[("document", 0, 1), ("question", 1, 3)]));
    }

    #[test]
    fn turns_have_roles_and_marks_belong_to_none() {
        let (open, close) = ("<|im_start|>", "<|im_end|>");
        let tokens =
            [open, "system", "\n", "Be", " brief", close, "\n", open, "user", "\n", "Text", "\n\n", "Why?", close];
        let asked = [&tokens[..], &["\n", open, "assistant", "\n"]].concat();
        let expected = [("system", 3, 5), ("document", 10, 12), ("question", 12, 13)];
        assert_eq!(named(&text(&asked)), of(&expected));
        let begun = [&asked[..], &["Since", " you"]].concat();
        assert_eq!(named(&text(&begun)), of(&[&expected[..], &[("assistant", 18, 20)]].concat()));
    }

    #[test]
    fn earlier_turns_are_history() {
        let (open, close) = ("<start_of_turn>", "<end_of_turn>");
        let turn = |role, words| [open, role, "\n", words, close, "\n"];
        let talk = [&["<bos>"][..], &turn("user", "Hi"), &turn("model", "Yes?"), &turn("user", "Bye")].concat();
        assert_eq!(named(&text(&talk)), of(&[("history", 4, 11), ("user", 16, 17)]));
    }

    #[test]
    fn marks_inside_a_plain_prompt_are_text() {
        let quoted = text(&["Explain", " ", "<|im_start|>", "user", "\n\n", "Now"]);
        assert_eq!(named(&quoted), of(&[("document", 0, 5), ("question", 5, 6)]));
    }
}
