//! Spans that a user names: `rules=12..40`, `needle=The code is 73916`, `story=Once upon..The end`.

use std::str::FromStr;

use super::{PromptSpan, PromptText};

/// A span as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanAsk {
    name: String,
    at: At,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    /// Positions; `None` = to the end.
    Positions(u32, Option<u32>),
    /// The first place that says this.
    Words(String),
    /// From where the first text begins to where the second one begins after it.
    Between(Option<String>, Option<String>),
}

impl FromStr for SpanAsk {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "NAME=FROM..TO in token positions, NAME=TEXT, or NAME=TEXT..TEXT".to_owned();
        let (name, place) = text.split_once('=').ok_or_else(form)?;
        if name.trim().is_empty() || place.is_empty() {
            return Err(form());
        }
        let at = match place.split_once("..") {
            None => At::Words(place.into()),
            Some((from, to)) => match (number(from, Some(0)), number(to, None)) {
                (Some(Some(from)), Some(to)) if to.is_none_or(|to| from < to) => At::Positions(from, to),
                (Some(Some(_)), Some(_)) => return Err("FROM must be smaller than TO".into()),
                _ => {
                    let words = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
                    At::Between(words(from), words(to))
                }
            },
        };
        Ok(Self { name: name.trim().into(), at })
    }
}

/// `empty` for an empty text; `None` where it is no number.
fn number(text: &str, empty: Option<u32>) -> Option<Option<u32>> {
    if text.is_empty() { Some(empty) } else { text.parse().ok().map(Some) }
}

impl SpanAsk {
    /// The first place that says `words`.
    pub fn words(name: &str, words: &str) -> Self {
        Self { name: name.into(), at: At::Words(words.into()) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is in `prompt`, of `len` tokens; says why it is nowhere otherwise. Without `prompt`, the text is not known.
    pub fn find(&self, prompt: Option<&PromptText>, len: u32) -> Result<PromptSpan, String> {
        let known =
            || prompt.ok_or_else(|| "the model has no tokenizer, so only token positions can be named".to_owned());
        let place = |text: &PromptText, words: &str, from: usize| {
            text.find(words, from).ok_or_else(|| format!("the prompt does not say {words:?}"))
        };
        let span = match &self.at {
            At::Positions(from, to) => {
                let to = to.unwrap_or(len);
                let fits = *from < to && to <= len;
                return match fits {
                    true => Ok(PromptSpan { name: self.name.as_str().into(), from: *from, to }),
                    false => Err(format!("the prompt has positions 0..{len}")),
                };
            }
            At::Words(words) => {
                let text = known()?;
                let from = place(text, words, 0)?;
                // The token that holds its last character is a part of it.
                let last = text.token(from + words.len() - 1);
                Some(PromptSpan { name: self.name.as_str().into(), from: text.token(from), to: last + 1 })
            }
            At::Between(from, to) => {
                let text = known()?;
                let from =
                    from.as_ref().map_or(Ok((0, 0)), |words| Ok::<_, String>((place(text, words, 0)?, words.len())))?;
                let to = to.as_ref().map_or(Ok(text.bytes.len()), |words| place(text, words, from.0 + from.1))?;
                text.span(&self.name, from.0, to)
            }
        };
        span.ok_or_else(|| "there is no token in it".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(text: &str) -> Result<(u32, u32), String> {
        let prompt = PromptText::new(["One", " two", " three", ".", " Four", " five"].map(|t| (t, false)));
        let span = text.parse::<SpanAsk>()?.find(Some(&prompt), 6)?;
        Ok((span.from, span.to))
    }

    #[test]
    fn positions_texts_and_what_lies_between_them() {
        for (text, expected) in [
            ("a=1..3", (1, 3)),
            ("a=..2", (0, 2)),
            ("a=4..", (4, 6)),
            ("a=two three", (1, 3)),
            ("a= two", (1, 2)),
            ("a=One two thr", (0, 3)),
            ("a=two.. Four", (1, 4)),
            ("a=..three", (0, 2)),
            ("a=Four..", (4, 6)),
        ] {
            assert_eq!(ask(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused() {
        for (text, why) in [
            ("two", "NAME=FROM..TO"),
            ("=two", "NAME=FROM..TO"),
            ("a=", "NAME=FROM..TO"),
            ("a=3..3", "smaller"),
            ("a=3..7", "positions 0..6"),
            ("a=6..", "positions 0..6"),
            ("a=six", "does not say \"six\""),
            ("a=Four..two", "does not say \"two\""),
        ] {
            let error = ask(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let words: SpanAsk = "a=two".parse().unwrap();
        assert!(words.find(None, 6).unwrap_err().contains("tokenizer"));
        let positions: SpanAsk = "a=0..6".parse().unwrap();
        assert_eq!(positions.find(None, 6).map(|s| s.to), Ok(6));
    }
}
