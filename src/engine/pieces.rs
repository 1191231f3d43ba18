//! Short pieces of text to calibrate on.

use std::sync::Arc;

use crate::model::tokenizer::Tokenizer;

/// Our own prompts, the plain prose first.
const TEXTS: [&str; 7] = [
    include_str!("../../sample-prompts/essay.md"),
    include_str!("../../sample-prompts/needle.md"),
    include_str!("../../sample-prompts/sink.md"),
    include_str!("../../sample-prompts/multikey.md"),
    include_str!("../../sample-prompts/instructions.md"),
    include_str!("../../sample-prompts/induction.md"),
    include_str!("../../sample-prompts/code.md"),
];

/// Pieces of tokens, all of one length.
#[derive(Debug, Clone, PartialEq)]
pub struct Pieces {
    pub ids: Vec<Vec<u32>>,
    /// They come from the prompt, not from the text that comes along.
    pub of_prompt: bool,
}

/// `count` pieces of `length` tokens, spread evenly over the prompt where it has that many, else over the text that comes
/// along; as many as there are where that is too short, too. Each begins with `bos` where the prompt does.
pub fn cut(prompt: &[u32], tokenizer: Option<&Arc<Tokenizer>>, count: usize, length: usize) -> Pieces {
    let bos = tokenizer.and_then(|tokenizer| tokenizer.bos()).filter(|bos| prompt.first() == Some(bos));
    let body = length.saturating_sub(bos.is_some() as usize).max(1);
    let plain = &prompt[bos.is_some() as usize..];
    let with =
        |text: &[u32]| spread(text, count, body).into_iter().map(|p| bos.into_iter().chain(p).collect()).collect();
    if plain.len() >= count * body {
        return Pieces { ids: with(plain), of_prompt: true };
    }
    let bundled = tokenizer.map_or_else(Vec::new, bundled);
    match bundled.len() > plain.len() {
        true => Pieces { ids: with(&bundled), of_prompt: false },
        false => Pieces { ids: with(plain), of_prompt: true },
    }
}

fn spread(text: &[u32], count: usize, length: usize) -> Vec<Vec<u32>> {
    let length = length.min(text.len()).max(1);
    let fit = (text.len() / length).min(count);
    // Evenly: the first begins where the text does, the last ends where it does.
    let start = |i: usize| if fit > 1 { i * (text.len() - length) / (fit - 1) } else { 0 };
    (0..fit).map(|i| text[start(i)..start(i) + length].to_vec()).collect()
}

fn bundled(tokenizer: &Arc<Tokenizer>) -> Vec<u32> {
    // Behind the header.
    let text = |file: &'static str| file.split_once("\n+++\n").map_or(file, |(_, text)| text);
    TEXTS.iter().flat_map(|file| tokenizer.encode(text(file), false).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_spread_over_the_prompt() {
        let prompt: Vec<u32> = (0..10).collect();
        let pieces = cut(&prompt, None, 2, 3);
        assert_eq!((pieces.ids, pieces.of_prompt), (vec![vec![0, 1, 2], vec![7, 8, 9]], true));
        // shorter than asked for: what there is
        assert_eq!(cut(&prompt, None, 30, 4).ids, [[0, 1, 2, 3], [6, 7, 8, 9]]);
        assert_eq!(cut(&prompt, None, 3, 64).ids, std::slice::from_ref(&prompt));
        assert!(cut(&[], None, 3, 64).ids.is_empty());
    }
}
