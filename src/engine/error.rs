//! What can go wrong with a run.

use crate::backend::BackendError;
use crate::model::error::ModelError;

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum EngineError {
    #[error("the prompt is empty")]
    #[diagnostic(help("give some text with --prompt, --prompt-file or --sample, or token ids with --ids"))]
    EmptyPrompt,
    #[error("the prompt has {tokens} tokens, but the model's context is {context}")]
    #[diagnostic(help("shorten the prompt, or choose a model with a longer context (`attnscope models`)"))]
    PromptTooLong { tokens: usize, context: usize },
    #[error("token id {id} at place {place} is outside the vocabulary of {vocab}")]
    #[diagnostic(help("ids run from 0 to {}", vocab - 1))]
    TokenOutOfRange { id: u32, place: usize, vocab: usize },
    #[error("the context of {context} tokens is full")]
    #[diagnostic(help("rewind, or start again with a shorter prompt"))]
    ContextFull { context: usize },
    #[error("there is no lane {lane}")]
    #[diagnostic(help("lanes are numbered from 0; there are {lanes}"))]
    NoLane { lane: u32, lanes: usize },
    #[error("lane 0 keeps everything: the others are compared with it")]
    #[diagnostic(help("choose another lane"))]
    Yardstick,
    #[error("lane {lane} was forked after the prompt, so it cannot start again with another policy")]
    #[diagnostic(help("change the lane that it was forked from, or start with another --lane"))]
    ForkedLane { lane: u32 },
    #[error("there is no room for one more than {lanes} lanes")]
    #[diagnostic(help("give another policy to one that is there"))]
    TooManyLanes { lanes: usize },
    #[error("there is no step {step} to go to; the run is at step {now}")]
    #[diagnostic(help("choose a step between 0 and {now}"))]
    NoStep { step: u32, now: u32 },
    #[error("the prompt has not been read yet")]
    #[diagnostic(help("wait until the prompt has been read"))]
    NoPrompt,
    #[error("policy {spec} reads {needed} queries at the end of the prompt, but only {kept} fit the budget")]
    #[diagnostic(help("raise --queries-budget, or choose a smaller window"))]
    QueriesBudget { spec: String, needed: usize, kept: usize },
    #[error("policy {spec} is not for this model: {why}")]
    #[diagnostic(help("choose another policy or model; a file must be made for this model"))]
    PolicyMisfit { spec: String, why: String },
    #[error("policy {spec} cannot wire this model's layers: {why}")]
    #[diagnostic(help(
        "layers are counted from 0 and take from earlier ones; `attnscope analyze` says which are alike"
    ))]
    Wiring { spec: String, why: String },
    #[error("intervention {spec} cannot be done here: {why}")]
    #[diagnostic(help("choose another prompt or place; `attnscope policies` lists the keys"))]
    Intervention { spec: String, why: String },
    #[error("there is no span {name:?} in the prompt: {why}")]
    #[diagnostic(help(
        "--span NAME=FROM..TO in token positions, NAME=TEXT or NAME=TEXT..TEXT, as the prompt spells it"
    ))]
    NoSpan { name: String, why: String },
    #[error("depth is mixed in this model: sublayers between others cannot be left out of a draft")]
    #[diagnostic(help("draft with the first layers alone (exit=L)"))]
    MixedDraft,
    #[error("lane {lane} has no next token: all its logits are −∞ or no numbers")]
    #[diagnostic(help("numbers of the model overflowed; go back, or feed the lane another token"))]
    NoToken { lane: u32 },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Backend(#[from] BackendError),
}

pub type Result<T> = std::result::Result<T, EngineError>;
