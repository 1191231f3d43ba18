//! Negative log-likelihood of a text: its first part is read and compressed, the rest is fed token by token (teacher
//! forcing), and the mean of −ln p of its tokens is taken, nats.
//!
//! The first token after the context comes from the uncompressed prompt and does not count. Each seed takes another
//! piece of the text, from a random token on; in a short text pieces overlap, so the spread over seeds is less than
//! that of texts. No part of the context is what the answer depends on: there is no span, and nothing is right or wrong.

use miette::Result;
use rand::Rng;

use super::{Ask, Item, Maker, Place, Task};
use crate::cli::exit::Usage;

pub const TASK: Task = Task {
    name: "nll",
    idea: "mean negative log-likelihood of a text's continuation, nats per token",
    depths: false,
    answers: false,
    text: true,
    make,
};

fn make(maker: &Maker, place: &Place) -> Result<Item> {
    let first: Vec<u32> = maker.tokenizer.bos().into_iter().collect();
    let (length, rest) = (place.length as usize, maker.continuation as usize);
    let own = length.saturating_sub(first.len());
    let needed = own + 1 + rest;
    let Some(room) = maker.text.ids.len().checked_sub(needed) else {
        let (name, has) = (&maker.text.name, maker.text.ids.len());
        let what = format!("{name} has {has} tokens; nll at a length of {length} needs {needed}");
        return Err(Usage::new(what, "give a longer one with --text, or smaller --lengths or --continuation").into());
    };
    let from = place.rng(&TASK).random_range(0..=room);
    let piece = &maker.text.ids[from..from + needed];
    Ok(Item {
        context: [&first, &piece[..own]].concat(),
        asks: vec![Ask {
            question: Vec::new(),
            lead: piece[own..own + 1].to_vec(),
            answer: piece[own + 1..].to_vec(),
            span: None,
        }],
    })
}
