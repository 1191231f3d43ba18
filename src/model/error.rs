//! Why a model could not be opened, in words that say what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use super::config_check::ConfigError;
use super::gguf::GgufError;
use super::tokenizer::TokenizerError;

/// A name found in a file, shown quoted, with everything unprintable escaped and no longer than a line.
#[derive(Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    const LONGEST: usize = 80;

    pub fn new(name: &str) -> Quoted {
        let mut shown: String = name.chars().take(Self::LONGEST).collect();
        if shown.len() < name.len() {
            shown.push('…');
        }
        Quoted(shown)
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Error, Diagnostic)]
pub enum ModelError {
    #[error("cannot read {path:?}")]
    #[diagnostic(help("a model is a .gguf file or a folder with config.json and *.safetensors"))]
    Io { path: PathBuf, source: io::Error },

    #[error("{path:?} is no model")]
    #[diagnostic(help("give a .gguf file, or a folder with config.json and *.safetensors"))]
    NotAModel { path: PathBuf },

    #[error("{path:?} cannot be used: {problem}")]
    #[diagnostic(help(
        "if the file was copied or downloaded, compare its size and sha256 with the source's, and fetch it again"
    ))]
    Gguf { path: PathBuf, problem: GgufError },

    #[error("{path:?} cannot be used: {problem}")]
    #[diagnostic(help("if the file was copied or downloaded, compare its size with the source's, and fetch it again"))]
    Safetensors { path: PathBuf, problem: String },

    #[error("{path:?} cannot be used: {problem}")]
    #[diagnostic(help("the file must be as Hugging Face transformers writes it"))]
    Json { path: PathBuf, problem: String },

    #[error("this model cannot be run: {0}")]
    #[diagnostic(help("families that can: llama, mistral, qwen2, qwen3, gemma2, gemma3 (text)"))]
    Config(#[from] ConfigError),

    #[error("{path:?} cannot be used: {problem}")]
    Tokenizer {
        path: PathBuf,
        #[diagnostic_source]
        problem: TokenizerError,
    },

    #[error("tensor {} is missing", Quoted::new(.name))]
    #[diagnostic(help("the file does not hold the model that its header describes"))]
    MissingTensor { name: String },

    #[error("tensor {} is [{rows}, {cols}], the configuration asks for [{want_rows}, {want_cols}]", Quoted::new(.name))]
    #[diagnostic(help("the weights do not belong to this configuration"))]
    TensorShape { name: String, rows: usize, cols: usize, want_rows: usize, want_cols: usize },

    #[error("its Attention Residuals cannot be run: {} is {}", Quoted::new(.name), Quoted::new(.what))]
    #[diagnostic(help(
        "what can: attnres_mode block, full, delta and delta_block; a gate that is one number, or none"
    ))]
    Depth { name: String, what: String },

    #[error("tensor {} has values that cannot be used: {problem}", Quoted::new(.name))]
    TensorValues { name: String, problem: &'static str },
}
