//! Splitting a text into words before BPE, by the patterns that GGUF names in `tokenizer.ggml.pre`.
//!
//! The published patterns end in `\s+(?!\S)|\s+`: a run of white space leaves its last character to the word behind
//! it. Look-ahead needs a backtracking engine, which fails on long runs; here `\s+` matches the run, in linear time,
//! and the last character is given back by hand.

use std::sync::OnceLock;

use regex::Regex;

use super::TokenizerError;
use crate::model::error::Quoted;

const GPT2: &str = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
);

const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"
);

const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+"
);

pub(super) struct Pretokenizer {
    pattern: &'static str,
    /// Every digit is a word by itself, split off before the pattern sees the rest.
    single_digits: bool,
    /// A word that is a piece is taken as it is, whatever its merges would give.
    whole_words: bool,
    /// A run of white space that ends in a line break stays whole.
    line_breaks: bool,
    regex: OnceLock<Result<Regex, String>>,
}

impl Pretokenizer {
    pub fn named(name: &str) -> Result<Pretokenizer, TokenizerError> {
        let (pattern, single_digits, whole_words) = match name {
            "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" => (GPT2, true, false),
            "gpt-2" | "gpt2" | "phi-2" | "mpt" | "olmo" | "jina-es" | "jina-de" | "default" => (GPT2, false, false),
            "llama-bpe" | "llama3" | "llama-v3" | "smaug-bpe" | "falcon3" | "pixtral" => (LLAMA3, false, true),
            "qwen2" | "deepseek-r1-qwen" | "megrez" => (QWEN2, false, false),
            "tekken" => (TEKKEN, false, true),
            other => {
                let what = "pre-tokenizer";
                return Err(TokenizerError::Unsupported { what, found: Quoted::new(other) });
            }
        };
        let line_breaks = pattern != GPT2;
        Ok(Pretokenizer { pattern, single_digits, whole_words, line_breaks, regex: OnceLock::new() })
    }

    pub fn whole_words(&self) -> bool {
        self.whole_words
    }

    /// Hand every word of `text` to `take`, in order; together they are the text.
    pub fn split(
        &self,
        text: &str,
        mut take: impl FnMut(&str) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        let regex = self.regex.get_or_init(|| Regex::new(self.pattern).map_err(|error| error.to_string()));
        let regex = regex.as_ref().map_err(|error| TokenizerError::Encode(Quoted::new(error)))?;
        if !self.single_digits {
            return self.words(regex, text, &mut take);
        }
        let mut rest = text;
        while let Some(at) = rest.find(char::is_numeric) {
            let (before, digit_on) = rest.split_at(at);
            self.words(regex, before, &mut take)?;
            let width = digit_on.chars().next().map_or(0, char::len_utf8);
            take(&digit_on[..width])?;
            rest = &digit_on[width..];
        }
        self.words(regex, rest, &mut take)
    }

    fn words(
        &self,
        regex: &Regex,
        text: &str,
        take: &mut impl FnMut(&str) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        let mut at = 0;
        while let Some(found) = regex.find_at(text, at) {
            if at < found.start() {
                take(&text[at..found.start()])?;
            }
            let behind = if found.end() < text.len() { self.given_back(found.as_str()) } else { 0 };
            at = found.end() - behind;
            take(&text[found.start()..at])?;
        }
        if at < text.len() { take(&text[at..]) } else { Ok(()) }
    }

    /// Bytes that a match leaves to the word behind it: the last character of a run of two or more that is all
    /// white space.
    fn given_back(&self, run: &str) -> usize {
        let mut letters = run.chars();
        let Some(last) = letters.next_back() else { return 0 };
        let before = letters.as_str();
        let stays = before.is_empty() || self.line_breaks && matches!(last, '\r' | '\n');
        if stays || !last.is_whitespace() || !before.chars().all(char::is_whitespace) { 0 } else { last.len_utf8() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::tokenizer::pattern::Pattern;
    use tokenizers::utils::SysRegex;

    use super::*;

    fn split(name: &str, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let take = |word: &str| {
            words.push(word.to_owned());
            Ok(())
        };
        Pretokenizer::named(name).unwrap().split(text, take).unwrap();
        words
    }

    #[test]
    fn spaces_go_to_the_word_behind_them() {
        assert_eq!(split("gpt-2", "Hi  you're 42!\n\n x "), ["Hi", " ", " you", "'re", " 42", "!", "\n\n", " x", " "]);
        assert_eq!(split("smollm", "a  12 b"), ["a", "  ", "1", "2", " b"]);
        assert_eq!(split("llama-bpe", "a  12345\n \n b"), ["a", " ", " ", "123", "45", "\n \n", " b"]);
        assert_eq!(split("qwen2", "\t\tX=12"), ["\t", "\tX", "=", "1", "2"]);
        assert!(Pretokenizer::named("nobody's").is_err());
    }

    #[test]
    fn a_long_run_of_spaces_is_no_trouble() {
        assert_eq!(split("llama-bpe", &format!("{}x", " ".repeat(1 << 20))).len(), 2);
    }

    proptest! {
        /// The published patterns, look-ahead included, run by Oniguruma.
        #[test]
        fn equal_to_the_published_patterns(text in r"([ \t\n\r\u{a0}\u{3000}]|[a-zA-Zéßǅ漢\u{301}]|[0-9½٣]|[!-/']|'s|'LL|\PC){0,40}") {
            for (name, pattern) in [("gpt-2", GPT2), ("llama-bpe", LLAMA3), ("qwen2", QWEN2), ("tekken", TEKKEN)] {
                let published = SysRegex::new(&pattern.replace(r"|\s+", r"|\s+(?!\S)|\s+")).unwrap();
                let theirs = (&published).find_matches(&text).unwrap();
                let theirs: Vec<&str> = theirs.into_iter().map(|((from, to), _)| &text[from..to]).filter(|w| !w.is_empty()).collect();
                prop_assert_eq!(split(name, &text), theirs, "{}", name);
            }
        }
    }
}
