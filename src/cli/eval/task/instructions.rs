//! Which instructions survive (the question of "The Pitfalls of KV Cache Compression", arXiv 2510.00231): eight rules at
//! the beginning of the context, as in a system prompt, and prose behind them.
//!
//! Two things are looked at for every rule: which share of its span is still held, mean over layers and kv heads, and
//! whether the model can still say it: it is asked for each rule by its first words and has to give the last one. This
//! is recall, which can be checked and which small models can do; it is not obedience.

use miette::Result;
use rand::seq::IndexedRandom;
use rand::seq::index::sample;

use super::maker::{Draft, Question};
use super::prose::Filler;
use super::{Item, Maker, Place, Task};

pub const TASK: Task = Task {
    name: "instructions",
    idea: "eight rules before a long text; which of them survive",
    depths: false,
    answers: true,
    text: false,
    make,
};

fn make(maker: &Maker, place: &Place) -> Result<Item> {
    let mut rng = place.rng(&TASK);
    let filler = Filler::prose(&mut rng);
    let order = sample(&mut rng, RULES.len(), COUNT);
    let rule = |i: usize| (RULES[i].0, RULES[i].1.choose(&mut rng).copied().unwrap_or(RULES[i].1[0]));
    let rules: Vec<_> = order.into_iter().map(rule).collect();
    maker.fill(&TASK, place, |words| draft(filler.words(words), &rules))
}

/// Rules in a prompt.
pub const COUNT: usize = 8;

/// How a rule begins, and how it may end.
const RULES: [(&str, [&str; 4]); 10] = [
    ("Begin the letter with the word", ["Dear", "Hello", "Greetings", "Welcome"]),
    ("Sign the letter with the name", ["Amelia", "Oskar", "Judith", "Viktor"]),
    ("Never mention the price of the", ["lamp", "clock", "mirror", "carpet"]),
    ("Send the letter to the town of", ["Lisbon", "Bergen", "Dover", "Salem"]),
    ("Print the letter on paper that is", ["yellow", "green", "blue", "pink"]),
    ("Offer a discount on every", ["chair", "table", "candle", "basket"]),
    ("Ask the customer to call on", ["Tuesday", "Friday", "Monday", "Thursday"]),
    ("End the letter with the word", ["Goodbye", "Sincerely", "Cheers", "Regards"]),
    ("Name the book that is called", ["Harbour", "Lighthouse", "Winter", "Orchard"]),
    ("Thank the customer for the", ["patience", "visit", "photograph", "invitation"]),
];

fn draft(filler: Vec<String>, rules: &[(&str, &str)]) -> Draft {
    let mut context = String::from("You write a letter for a small shop. Follow all of these rules.\n");
    let mut spans = Vec::new();
    for (i, (begin, end)) in rules.iter().enumerate() {
        let from = context.len();
        context.push_str(&format!("\n{}. {begin} {end}.", i + 1));
        spans.push(from..context.len());
    }
    context.push_str("\n\nHere is the story that the letter is about.\n\n");
    context.push_str(&filler.join(" "));
    let ask = |((begin, end), span): (&(&str, &str), &std::ops::Range<usize>)| Question {
        question: "\n\nOne of the rules says:".into(),
        lead: format!(" {begin}"),
        answer: format!(" {end}"),
        span: span.clone(),
    };
    let asks = rules.iter().zip(&spans).map(ask).collect();
    Draft { context, asks }
}
