//! What `order` found out; the JSON is this.

use serde::Serialize;

pub const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    pub model: String,
    pub device: String,
    pub precision: String,
    pub prompt_tokens: usize,
    pub seed: u64,
    /// The right answer, where one is known.
    pub answer: Option<String>,
    pub parts: Vec<Part>,
    /// The prompt's own order comes first.
    pub orders: Vec<Order>,
    pub places: Vec<Place>,
}

/// A part that changes places.
#[derive(Debug, Serialize)]
pub struct Part {
    pub name: String,
    /// Positions in the prompt's own order.
    pub from: usize,
    pub to: usize,
    pub text: String,
    /// It holds what the answer depends on, as the sample says, or the answer itself.
    pub needed: bool,
    /// Mean over the orders of the attention on it, its least and most.
    pub mass: f32,
    pub least: f32,
    pub most: f32,
}

#[derive(Debug, Serialize)]
pub struct Order {
    /// Which part stands in each place.
    pub order: Vec<usize>,
    pub ids: Vec<u32>,
    pub text: String,
    /// The right answer is in it.
    pub found: Option<bool>,
    /// Tokens in which it begins like that of the prompt's own order.
    pub same_tokens: usize,
    /// Of the right answer, nats per token.
    pub nll: Option<f32>,
    /// Attention on each part [parts], mean over layers, heads and the queries that say the answer: the prompt's last
    /// token and the answer's but its last one. Position 0, the sink, is in none.
    pub mass: Vec<f32>,
    /// On position 0 and on all that is in no part.
    pub sink: f32,
    pub rest: f32,
}

/// Over all orders, by where a part stands.
#[derive(Debug, Serialize)]
pub struct Place {
    /// Mean attention on the part that stands here.
    pub mass: f32,
    /// Orders in which the needed part stands here; of those the mean −ln p, and how many gave the right answer.
    pub needed: usize,
    pub nll: Option<f32>,
    pub found: usize,
}
