//! Retrieval by one key of several (multi-key needles of RULER, arXiv 2404.06654): three sentences of the same form in
//! prose, each with another key and number; one is asked for.
//!
//! The asked one lies at the chosen depth, the others a third of the context apart (beyond the end from the beginning
//! on). Only the key tells them apart, so what holds on to numbers alone keeps three times as much as is needed. Every
//! sentence says key and number in both orders: said once, or with four keys, models of this program's size mix them
//! up even with the full cache. The span is the sentence that is asked for.

use miette::Result;
use rand::seq::index::sample;

use super::maker::{Draft, Question};
use super::prose::{Filler, with};
use super::{Item, Maker, Place, Task};

pub const TASK: Task = Task {
    name: "multikey",
    idea: "one of three facts of the same form, told apart by a key",
    depths: true,
    answers: true,
    text: false,
    make,
};

fn make(maker: &Maker, place: &Place) -> Result<Item> {
    let mut rng = place.rng(&TASK);
    let filler = Filler::prose(&mut rng);
    let names = sample(&mut rng, NAMES.len(), KEYS);
    let numbers = sample(&mut rng, 9000, KEYS);
    let keys: Vec<_> = names.iter().zip(numbers).map(|(name, n)| (NAMES[name], 1000 + n as u32)).collect();
    maker.fill(&TASK, place, |words| draft(filler.words(words), place, &keys))
}

const KEYS: usize = 3;

const NAMES: [&str; 16] = [
    "cat", "dog", "horse", "cow", "sheep", "goat", "duck", "goose", "fox", "wolf", "bear", "lion", "tiger", "mouse",
    "rabbit", "frog",
];

const INTRO: &str = "Read the following text carefully. Some sentences in it name magic numbers: you will be asked about \
                     one of them at the end.\n\n";

fn draft(filler: Vec<String>, place: &Place, keys: &[(&str, u32)]) -> Draft {
    let depth = place.depth.unwrap_or(50) as f64;
    let sentences: Vec<String> = keys
        .iter()
        .map(|(name, number)| format!("The magic number for {name} is {number}; {number} is for {name}."))
        .collect();
    let others = sentences.iter().enumerate().map(|(i, sentence)| {
        let apart = depth + 100.0 * i as f64 / keys.len() as f64;
        // 100 itself is the end, not the beginning.
        (if apart > 100.0 { apart - 100.0 } else { apart }, sentence.as_str())
    });
    let (text, spans) = with(&filler, &others.collect::<Vec<_>>());
    let (name, number) = keys[0];
    Draft {
        context: format!("{INTRO}{text}"),
        asks: vec![Question {
            question: format!("\n\nQuestion: What is the magic number for {name}?"),
            lead: format!("\nAnswer: The magic number for {name} is"),
            answer: format!(" {number}"),
            span: INTRO.len() + spans[0].start..INTRO.len() + spans[0].end,
        }],
    }
}
