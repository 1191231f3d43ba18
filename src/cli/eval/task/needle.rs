//! A needle in a haystack (G. Kamradt, 2023): one sentence with a fact, at a chosen depth of prose that has nothing to
//! do with it.
//!
//! The haystack is the bundled prose from a random sentence on; a short introduction says that there will be a
//! question. The fact is a number of five digits that belongs to one of a few things; its span is that sentence.

use miette::Result;
use rand::Rng;
use rand::seq::IndexedRandom;

use super::maker::{Draft, Question};
use super::prose::{Filler, with};
use super::{Item, Maker, Place, Task};

pub const TASK: Task = Task {
    name: "needle",
    idea: "a fact at a depth of prose that has nothing to do with it",
    depths: true,
    answers: true,
    text: false,
    make,
};

fn make(maker: &Maker, place: &Place) -> Result<Item> {
    let mut rng = place.rng(&TASK);
    let filler = Filler::prose(&mut rng);
    let thing = THINGS.choose(&mut rng).copied().unwrap_or(THINGS[0]);
    let code = rng.random_range(10_000..100_000);
    maker.fill(&TASK, place, |words| draft(filler.words(words), place, thing, code))
}

const THINGS: [&str; 8] = [
    "the blue safe",
    "the garden gate",
    "the wooden chest",
    "the red cabinet",
    "the north tower",
    "the green suitcase",
    "the wine cellar",
    "the silver box",
];

const INTRO: &str =
    "Read the following text carefully. One sentence in it matters: you will be asked about it at the end.\n\n";

fn draft(filler: Vec<String>, place: &Place, thing: &str, code: u32) -> Draft {
    let needle = format!("The code of {thing} is {code}.");
    let (text, spans) = with(&filler, &[(place.depth.unwrap_or(50) as f64, &needle)]);
    Draft {
        context: format!("{INTRO}{text}"),
        asks: vec![Question {
            question: format!("\n\nQuestion: What is the code of {thing}?"),
            lead: format!("\nAnswer: The code of {thing} is"),
            answer: format!(" {code}"),
            span: INTRO.len() + spans[0].start..INTRO.len() + spans[0].end,
        }],
    }
}
