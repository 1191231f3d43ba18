//! Passkey retrieval (Mohtashami and Jaggi, arXiv 2305.16300): a number of five digits, said twice, in filler that
//! repeats itself.
//!
//! The easiest task: nothing else in the context looks like the answer, and filler is worth nothing. The filler here
//! is our own. The answer is the number; its span is both sentences that say it.

use miette::Result;
use rand::Rng;

use super::maker::{Draft, Question};
use super::prose::{Filler, with};
use super::{Item, Maker, Place, Task};

pub const TASK: Task = Task {
    name: "passkey",
    idea: "a number in filler that repeats itself",
    depths: true,
    answers: true,
    text: false,
    make,
};

fn make(maker: &Maker, place: &Place) -> Result<Item> {
    let key = place.rng(&TASK).random_range(10_000..100_000);
    maker.fill(&TASK, place, |words| draft(words, place, key))
}

const FILLER: [&str; 3] = [
    "The sun goes up and the sun goes down.",
    "The road is long and the wind is mild.",
    "Here we are and there we go.",
];

fn draft(words: usize, place: &Place, key: u32) -> Draft {
    let needle = format!("The pass key is {key}. Remember it. {key} is the pass key.");
    let (text, spans) = with(&Filler::of(&FILLER).words(words), &[(place.depth.unwrap_or(50) as f64, &needle)]);
    let intro = "There is a pass key hidden in the text below. Find it and remember it.\n\n";
    Draft {
        context: format!("{intro}{text}"),
        asks: vec![Question {
            question: "\n\nQuestion: What is the pass key?".into(),
            lead: "\nAnswer: The pass key is".into(),
            answer: format!(" {key}"),
            span: intro.len() + spans[0].start..intro.len() + spans[0].end,
        }],
    }
}
