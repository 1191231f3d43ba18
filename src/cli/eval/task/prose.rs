//! Filler: sentences of the bundled prose, from a random place on, as many words as needed.

use std::sync::LazyLock;

use rand::Rng;

use crate::cli::sample;

/// Some 1900 words that say nothing about numbers, keys or rules: one of the sample prompts, and one of its kind.
pub static PROSE: LazyLock<String> = LazyLock::new(|| {
    let essay = sample::find("essay").map_or("", |sample| sample.text);
    format!("{}\n\n{essay}\n", include_str!("prose.txt").trim_end())
});

static SENTENCES: LazyLock<Vec<&str>> = LazyLock::new(|| sentences(&PROSE));

/// Sentences that go on for ever.
pub struct Filler<'a> {
    sentences: &'a [&'a str],
    from: usize,
}

impl Filler<'static> {
    /// Prose, from a random sentence on and over again.
    pub fn prose(rng: &mut impl Rng) -> Self {
        let sentences = &SENTENCES[..];
        Self { from: rng.random_range(0..sentences.len().max(1)), sentences }
    }
}

impl<'a> Filler<'a> {
    /// The same few sentences over and over again.
    pub fn of(sentences: &'a [&'a str]) -> Self {
        Self { sentences, from: 0 }
    }

    /// The first `words` words; the last sentence ends where they do.
    pub fn words(&self, words: usize) -> Vec<String> {
        let mut left = words;
        let mut all = Vec::new();
        for sentence in self.sentences.iter().cycle().skip(self.from) {
            if left == 0 {
                break;
            }
            let some: Vec<&str> = sentence.split_whitespace().take(left).collect();
            left -= some.len();
            let text = some.join(" ");
            all.push(if text.len() == sentence.len() { text } else { closed(&text) });
        }
        all
    }
}

/// A sentence that was cut gets its full stop.
fn closed(text: &str) -> String {
    format!("{}.", text.trim_end_matches(|c: char| !c.is_alphanumeric()))
}

/// Sentences of `text`; what does not end like one is left out.
fn sentences(text: &'static str) -> Vec<&'static str> {
    text.split_inclusive(['.', '?', '!'])
        .map(str::trim)
        .filter(|s| s.ends_with(['.', '?', '!']) && s.len() > 1)
        .collect()
}

/// Sentences with others among them: each of `(depth, text)` begins where that share (percent) of the sentences'
/// bytes is past, as nearly as sentences allow. Gives the text and the bytes of each of them in it.
pub fn with(filler: &[String], others: &[(f64, &str)]) -> (String, Vec<std::ops::Range<usize>>) {
    let total: usize = filler.iter().map(|s| s.len() + 1).sum();
    let mut borders = vec![0];
    for sentence in filler {
        borders.push(borders[borders.len() - 1] + sentence.len() + 1);
    }
    let place = |depth: f64| {
        let distance = |border: &usize| (*border as f64 - depth / 100.0 * total as f64).abs();
        (0..borders.len()).min_by(|a, b| distance(&borders[*a]).total_cmp(&distance(&borders[*b]))).unwrap_or(0)
    };
    let places: Vec<usize> = others.iter().map(|(depth, _)| place(*depth)).collect();
    let mut text = String::new();
    let mut spans = vec![0..0; others.len()];
    for border in 0..=filler.len() {
        let here = places.iter().zip(others).enumerate().filter(|(_, (place, _))| **place == border);
        for (i, (_, (_, other))) in here {
            let from = push(&mut text, other);
            spans[i] = from..text.len();
        }
        if let Some(sentence) = filler.get(border) {
            push(&mut text, sentence);
        }
    }
    (text, spans)
}

/// Appends a sentence after a space; where the sentence before it ends.
fn push(text: &mut String, sentence: &str) -> usize {
    let end = text.len();
    if end > 0 {
        text.push(' ');
    }
    text.push_str(sentence);
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha12Rng;

    #[test]
    fn prose_is_made_of_whole_sentences() {
        assert!(SENTENCES.len() > 100);
        assert!(
            SENTENCES.iter().all(|s| s.len() > 4 && s.len() < 400),
            "{:?}",
            SENTENCES.iter().min_by_key(|s| s.len())
        );
        assert!(!PROSE.chars().any(|c| c.is_ascii_digit()));
    }

    #[test]
    fn filler_has_as_many_words_as_asked_for() {
        let filler = Filler::prose(&mut ChaCha12Rng::seed_from_u64(3));
        for words in [0, 1, 7, 100, 5000] {
            let text = filler.words(words).join(" ");
            assert_eq!(text.split_whitespace().count(), words);
            assert!(words == 0 || text.ends_with(['.', '?', '!']));
        }
    }

    #[test]
    fn needles_lie_at_their_depth() {
        let filler: Vec<String> = (0..10).map(|i| format!("Sentence {i}.")).collect();
        for (depth, before) in [(0.0, 0), (25.0, 2), (50.0, 5), (100.0, 10)] {
            let (text, spans) = with(&filler, &[(depth, "Here.")]);
            assert_eq!(text[..spans[0].start].matches("Sentence").count(), before, "{depth}");
            assert_eq!(text[spans[0].clone()].trim(), "Here.");
        }
        let (text, spans) = with(&filler, &[(50.0, "B."), (0.0, "A."), (50.0, "C.")]);
        assert_eq!(spans.iter().map(|s| text[s.clone()].trim()).collect::<Vec<_>>(), ["B.", "A.", "C."]);
        assert!(text.starts_with("A. Sentence 0.") && text.contains("4. B. C. Sentence 5."));
    }
}
