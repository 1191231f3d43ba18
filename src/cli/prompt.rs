//! The prompt of a run: from the options to token ids.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use miette::Result;

use super::args::{PromptArgs, no_tokenizer};
use super::exit::{Io, Usage};
use super::sample::{self, Sample};
use crate::engine::EngineError;
use crate::engine::message::Speller;
use crate::model::chat::Message;
use crate::model::source::Model;

/// Larger files are no prompts for any model that this program runs.
const LONGEST_FILE: u64 = 64 << 20;

/// What was asked for, read but not yet in tokens.
#[derive(Debug, Clone)]
pub enum Prompt {
    Ids(Vec<u32>),
    Text { text: String, chat: bool, sample: Option<Sample> },
}

impl Prompt {
    /// The default sample where nothing is named.
    pub fn read(args: &PromptArgs) -> Result<Self> {
        if let Some(ids) = &args.ids {
            return Ok(Self::Ids(ids.0.clone()));
        }
        let (text, sample) = match (&args.prompt, &args.prompt_file) {
            (Some(text), _) => (text.clone(), None),
            (None, Some(path)) => (file(path)?, None),
            (None, None) => {
                let sample = sample::find(args.sample.as_deref().unwrap_or(sample::DEFAULT))?;
                (sample.text.to_owned(), Some(sample))
            }
        };
        // The model would see its beginning-of-text token alone.
        if text.is_empty() {
            return Err(EngineError::EmptyPrompt.into());
        }
        Ok(Self::Text { text, chat: args.chat, sample })
    }

    pub fn sample(&self) -> Option<&Sample> {
        match self {
            Self::Ids(_) => None,
            Self::Text { sample, .. } => sample.as_ref(),
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Ids(_) => None,
            Self::Text { text, .. } => Some(text),
        }
    }

    /// In `model`'s tokens.
    pub fn encode(&self, model: &Model) -> Result<Vec<u32>> {
        match self {
            Self::Ids(ids) => Ok(ids.clone()),
            Self::Text { text, chat, .. } => encode(model, text, *chat),
        }
    }
}

/// Ids of a text as `model` expects it.
pub fn encode(model: &Model, text: &str, chat: bool) -> Result<Vec<u32>> {
    let tokenizer = model.tokenizer.as_ref().ok_or_else(no_tokenizer)?;
    if !chat {
        return Ok(tokenizer.prompt_ids(text)?);
    }
    let template = model
        .chat_template
        .as_ref()
        .ok_or_else(|| Usage::new("this model has no chat template", "leave out --chat to give the prompt as it is"))?;
    let turn = Message { role: "user".into(), content: text.into() };
    Ok(tokenizer.encode(&template.render(&[turn], true)?, true)?)
}

/// The text of `ids`, control tokens written out; the ids themselves where there is no tokenizer.
pub fn spell(model: &Model, ids: &[u32]) -> String {
    match &model.tokenizer {
        Some(tokenizer) => tokenizer.decode(ids),
        None => ids.iter().map(|id| format!("⟨{id}⟩")).collect(),
    }
}

/// Single tokens as text; where there is no tokenizer, their ids.
pub fn speller(model: &Arc<Model>) -> Speller {
    let model = model.clone();
    Speller(Arc::new(move |id| match &model.tokenizer {
        Some(tokenizer) => tokenizer.text(id),
        None => format!("⟨{id}⟩"),
    }))
}

/// A text file from outside; - is standard input.
pub fn file(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let opened: std::io::Result<Box<dyn Read>> = match path.to_str() {
        Some("-") => Ok(Box::new(std::io::stdin().lock())),
        _ => std::fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let read = opened.and_then(|file| file.take(LONGEST_FILE + 1).read_to_end(&mut bytes));
    read.map_err(Io::while_(format!("read the prompt from {path:?}")))?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(Usage::new(format!("{path:?} is larger than any prompt"), "give a text file").into());
    }
    String::from_utf8(bytes).map_err(|_| {
        Usage::new(format!("{path:?} is not UTF-8 text"), "convert it, or give token ids with --ids").into()
    })
}
