//! The result of one policy on one prompt: a line of the file that `--out` names, and a part of the JSON.

use serde::{Deserialize, Serialize};

use super::task::{PROTOCOL, Place, Task};
use crate::policy::Policy;

/// What a policy sees when it decides what stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The context alone; the question is fed afterwards (kvpress's protocol).
    Hidden,
    /// Context and question.
    Visible,
}

impl Mode {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Visible => "visible",
        }
    }

    pub const fn words(self) -> &'static str {
        match self {
            Self::Hidden => "question hidden: the context is compressed, then the question is fed",
            Self::Visible => "question visible: context and question are compressed together",
        }
    }
}

/// Everything that a result depends on: what has the same key need not be run again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key {
    pub protocol: u32,
    pub model_sha256: String,
    pub precision: String,
    pub kv_type: String,
    pub question: Mode,
    pub task: String,
    pub length: u32,
    pub depth: Option<u32>,
    pub seed: u64,
    /// Of a task that reads a text: which, and how many of its tokens were judged.
    pub text: Option<Piece>,
    pub spec: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Piece {
    pub sha256: String,
    pub tokens: u32,
}

/// What holds for a whole run.
#[derive(Debug, Clone)]
pub struct Setting {
    pub model_sha256: String,
    pub precision: String,
    pub kv_type: String,
    pub question: Mode,
    pub text: Piece,
}

impl Setting {
    pub fn key(&self, task: &Task, place: &Place, policy: &Policy) -> Key {
        Key {
            protocol: PROTOCOL,
            model_sha256: self.model_sha256.clone(),
            precision: self.precision.clone(),
            kv_type: self.kv_type.clone(),
            question: self.question,
            task: task.name.to_owned(),
            length: place.length,
            depth: place.depth,
            seed: place.seed,
            text: task.text.then(|| self.text.clone()),
            spec: policy.spec().to_string(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    #[serde(flatten)]
    pub key: Key,
    /// Tokens of the context.
    pub context_tokens: u32,
    #[serde(flatten)]
    pub result: Outcome,
}

/// How one lane did on one prompt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// In the order of the prompt's questions.
    pub asks: Vec<Asked>,
    /// Share of lane 0's entries that were held when the questions began, in layers without a sliding window.
    pub kept: f32,
    /// Share of lane 0's bytes of keys and values, all layers.
    pub kv_share: f32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Greedy decoding gives the answer; `None` where nothing is right or wrong.
    pub found: Option<bool>,
    /// Mean −ln p of the answer's tokens, nats; `None` if it is not finite.
    pub nll: Option<f32>,
    /// Share of the entries of the span that says the answer that were held when the questions began: mean over kv
    /// heads and layers without a sliding window.
    pub span_kept: Option<f32>,
}

impl Outcome {
    /// Share of the questions answered.
    pub fn accuracy(&self) -> Option<f32> {
        mean(self.asks.iter().filter_map(|ask| ask.found).map(|found| f32::from(u8::from(found))))
    }

    pub fn nll(&self) -> Option<f32> {
        mean(self.asks.iter().filter_map(|ask| ask.nll))
    }

    pub fn span_kept(&self) -> Option<f32> {
        mean(self.asks.iter().filter_map(|ask| ask.span_kept))
    }
}

/// `None` of nothing.
pub fn mean(values: impl Iterator<Item = f32>) -> Option<f32> {
    let (sum, n) = values.fold((0.0f64, 0), |(sum, n), v| (sum + f64::from(v), n + 1));
    (n > 0).then(|| (sum / f64::from(n)) as f32)
}
