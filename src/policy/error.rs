//! What is wrong with a policy spec, where, and what would be right.

use std::fmt;

use miette::{Diagnostic, SourceSpan};
use thiserror::Error;

/// A spec that cannot be run. Holds only text that is safe to print.
#[derive(Debug, Clone, PartialEq, Eq, Error, Diagnostic)]
#[error("policy `{spec}`: {problem} (at character {})", self.column())]
pub struct SpecError {
    #[source_code]
    spec: String,
    #[label("here")]
    at: SourceSpan,
    problem: Problem,
    #[help]
    help: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    TooLong { limit: usize },
    NameMissing,
    UnknownPolicy(String),
    BadBudget(String),
    TakesNoBudget(&'static str),
    KeyMissing,
    ValueMissing(String),
    UnknownKey { policy: &'static str, key: String },
    KeyTwice(&'static str),
    BadValue { key: &'static str, value: String },
    BothDecide { first: &'static str, second: &'static str },
    Alone(&'static str),
    NothingBehind(&'static str),
    NotInDecode(&'static str),
    OnlyAfterPrompt(&'static str),
    Missing { policy: &'static str, what: String },
    OwnSize(&'static str),
    BothStore { first: &'static str, second: &'static str },
    NotLast(&'static str),
    Rewritten(&'static str),
    TwoReaders(&'static str),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { limit } => write!(f, "longer than {limit} bytes"),
            Self::NameMissing => f.write_str("a policy name is missing"),
            Self::UnknownPolicy(name) => write!(f, "there is no policy `{name}`"),
            Self::BadBudget(text) => write!(f, "`{text}` is no budget"),
            Self::TakesNoBudget(policy) => write!(f, "`{policy}` takes no budget"),
            Self::KeyMissing => f.write_str("a key is missing"),
            Self::ValueMissing(key) => write!(f, "key `{key}` has no value"),
            Self::UnknownKey { policy, key } => write!(f, "`{policy}` has no key `{key}`"),
            Self::KeyTwice(key) => write!(f, "key `{key}` is given twice"),
            Self::BadValue { key, value } => write!(f, "`{value}` is no value for `{key}`"),
            Self::BothDecide { first, second } => write!(f, "both `{first}` and `{second}` decide what stays"),
            Self::Alone(policy) => write!(f, "`{policy}` cannot be part of a chain"),
            Self::NothingBehind(policy) => write!(f, "`{policy}` has nothing behind it to act on"),
            Self::Missing { policy, what } => write!(f, "`{policy}` {what}"),
            Self::OwnSize(policy) => write!(f, "`{policy}` acts on a budget, and what stands behind it has none"),
            Self::OnlyAfterPrompt(policy) => {
                write!(f, "`{policy}` cannot act after a step, as what stands behind it does")
            }
            Self::BothStore { first, second } => {
                write!(f, "both `{first}` and `{second}` decide how entries are stored")
            }
            Self::NotLast(policy) => write!(f, "`{policy}` stores what others leave, and stands before one of them"),
            Self::Rewritten(policy) => write!(f, "entries that `{policy}` has packed would be rewritten after a step"),
            Self::TwoReaders(policy) => write!(f, "`{policy}` is the second to decide what is read"),
            Self::NotInDecode(policy) => write!(f, "what stands behind `{policy}` cannot be scored after a step"),
        }
    }
}

impl SpecError {
    /// `at`: byte offset and length of the offending text in `spec`.
    pub(super) fn new(spec: &str, at: (usize, usize), problem: Problem, help: String) -> Self {
        Self { spec: printable(spec), at: at.into(), problem, help }
    }

    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Byte offset of the offending text in the spec.
    pub fn position(&self) -> usize {
        self.at.offset()
    }

    /// The same in characters, from 1.
    fn column(&self) -> usize {
        self.spec.char_indices().take_while(|(at, _)| *at < self.at.offset()).count() + 1
    }

    /// What would be right.
    pub fn help(&self) -> &str {
        &self.help
    }
}

/// `text` without anything that could steer a terminal; byte offsets stay.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ' {
            true => out.push(c),
            false => (0..c.len_utf8()).for_each(|_| out.push('?')),
        }
    }
    out
}

/// The candidate that was probably meant, if one is close enough.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + word.chars().count() / 3;
    candidates
        .map(|c| (strsim::osa_distance(word, c), c))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_is_printed() {
        let text = "a\x1b[31m\u{202e}é\r\n";
        assert_eq!(printable(text), "a?[31m???é??");
        assert_eq!(printable(text).len(), text.len());
    }

    #[test]
    fn nearest_word() {
        let words = ["snapkv", "streaming", "knorm"];
        assert_eq!(nearest("snapkw", words.into_iter()), Some("snapkv"));
        assert_eq!(nearest("streamingllm", words.into_iter()), Some("streaming"));
        assert_eq!(nearest("zzz", words.into_iter()), None);
    }
}
