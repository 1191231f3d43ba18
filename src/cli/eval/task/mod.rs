//! What a model is asked to do: one file per task over the parts below, one line each in [`TASKS`].
//!
//! A task writes a context, in which policies decide what stays, and questions about it. What is asked is fed token by
//! token, so every answer is given from the compressed cache.

mod instructions;
mod maker;
mod multikey;
mod needle;
mod nll;
mod passkey;
mod prose;

use std::fmt;
use std::ops::Range;

use miette::Result;
use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;
use sha2::{Digest, Sha256};

pub use maker::{Maker, Text};
pub use prose::PROSE;

/// Whatever changes the prompts or the way they are judged changes this number: results of another protocol are not
/// mixed with those of this one.
pub const PROTOCOL: u32 = 1;

pub const TASKS: &[&Task] = &[&passkey::TASK, &needle::TASK, &multikey::TASK, &instructions::TASK, &nll::TASK];

/// A kind of prompt.
pub struct Task {
    pub name: &'static str,
    /// One line.
    pub idea: &'static str,
    /// The place of what is asked for can be chosen.
    pub depths: bool,
    /// Answers are right or wrong; otherwise only their NLL counts.
    pub answers: bool,
    /// Reads the text that `--text` names.
    pub text: bool,
    pub make: fn(&Maker, &Place) -> Result<Item>,
}

/// One prompt of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Tokens of the context, the beginning-of-text token included. Prompts are at most a few tokens shorter.
    pub length: u32,
    /// Where in the context the answer lies, 0 = beginning, 100 = end; `None` where the task has no such place.
    pub depth: Option<u32>,
    pub seed: u64,
}

/// A prompt in tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What is compressed.
    pub context: Vec<u32>,
    /// Asked one after the other, each as if it were the only one.
    pub asks: Vec<Ask>,
}

/// One question about a context. Nothing in it is empty but perhaps `question`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// May be shown to the policies together with the context.
    pub question: Vec<u32>,
    /// How the answer begins: always fed after the policies have decided.
    pub lead: Vec<u32>,
    /// What the model should go on with.
    pub answer: Vec<u32>,
    /// Tokens of the context that say the answer; `None` where no part of it does.
    pub span: Option<Range<u32>>,
}

/// The task called `name`.
pub fn find(name: &str) -> Result<&'static Task, String> {
    let list = || TASKS.iter().map(|task| format!("{:13} {}", task.name, task.idea)).collect::<Vec<_>>().join("\n  ");
    let found = TASKS.iter().find(|task| task.name == name).copied();
    found.ok_or_else(|| format!("there are:\n  {}", list()))
}

impl Place {
    /// Random numbers that depend on the task and the place alone.
    fn rng(&self, task: &Task) -> ChaCha12Rng {
        let depth = self.depth.map_or("-".into(), |depth| depth.to_string());
        let name = format!("attnscope eval {PROTOCOL}|{}|{}|{depth}|{}", task.name, self.length, self.seed);
        ChaCha12Rng::from_seed(Sha256::digest(name).into())
    }
}

impl Item {
    /// Tokens of the context and the longest of the questions with its answer.
    pub fn longest(&self) -> usize {
        let tokens = |ask: &Ask| ask.question.len() + ask.lead.len() + ask.answer.len();
        self.context.len() + self.asks.iter().map(tokens).max().unwrap_or(0)
    }
}

/// Names are unique.
impl PartialEq for Task {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task({})", self.name)
    }
}
