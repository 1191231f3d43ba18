//! Tokens that are found in a text as they are written, before anything else is split.

use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, MatchKind};

use super::TokenizerError;
use crate::model::error::Quoted;

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

struct Matcher {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

/// Two sets: control tokens count only where asked for, tokens that users write count always.
/// Matching is leftmost-longest; each automaton is built when first used.
pub(super) struct Specials {
    control: Vec<(Box<str>, u32)>,
    written: Vec<(Box<str>, u32)>,
    all: OnceLock<Result<Matcher, String>>,
    only_written: OnceLock<Result<Matcher, String>>,
}

impl Specials {
    pub fn new(control: Vec<(Box<str>, u32)>, written: Vec<(Box<str>, u32)>) -> Specials {
        Specials { control, written, all: OnceLock::new(), only_written: OnceLock::new() }
    }

    pub fn split<'t>(&self, text: &'t str, control: bool) -> Result<Vec<Fragment<'t>>, TokenizerError> {
        let matcher = match control {
            true => self.all.get_or_init(|| Matcher::new(self.control.iter().chain(&self.written))),
            false => self.only_written.get_or_init(|| Matcher::new(self.written.iter())),
        };
        let matcher = matcher.as_ref().map_err(|error| TokenizerError::Encode(Quoted::new(error)))?;
        let mut fragments = Vec::new();
        let mut at = 0;
        for found in matcher.automaton.find_iter(text) {
            if at < found.start() {
                fragments.push(Fragment::Text(&text[at..found.start()]));
            }
            fragments.push(Fragment::Token(matcher.ids[found.pattern().as_usize()]));
            at = found.end();
        }
        if at < text.len() {
            fragments.push(Fragment::Text(&text[at..]));
        }
        Ok(fragments)
    }
}

impl Matcher {
    fn new<'a>(tokens: impl Iterator<Item = &'a (Box<str>, u32)>) -> Result<Matcher, String> {
        let (pieces, ids): (Vec<&str>, Vec<u32>) =
            tokens.filter(|(piece, _)| !piece.is_empty()).map(|(piece, id)| (&**piece, *id)).unzip();
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(pieces);
        Ok(Matcher { automaton: automaton.map_err(|error| error.to_string())?, ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_tokens_count_only_when_asked_for() {
        let specials = Specials::new(vec![("<a>".into(), 1), ("<a><b>".into(), 2)], vec![("\n\n".into(), 3)]);
        let with = specials.split("é<a><b>x\n\n\n", true).unwrap();
        use Fragment::{Text, Token};
        assert_eq!(with, [Text("é"), Token(2), Text("x"), Token(3), Text("\n")]);
        let without = specials.split("<a>\n\n", false).unwrap();
        assert_eq!(without, [Text("<a>"), Token(3)]);
        assert_eq!(specials.split("", true).unwrap(), []);
    }
}
