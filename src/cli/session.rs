//! Opening a model for commands without a screen.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;

use miette::Result;

use super::args::ModelArgs;
use super::exit::{Interrupted, Usage};
use super::interrupt::Interrupt;
use super::pull;
use crate::engine::frame::Frame;
use crate::engine::message::ModelInfo;
use crate::engine::{Core, LaneSpec, Options, Pause, open};
use crate::model::locate::resolve;
use crate::model::source::Model;

/// A model on its backend.
pub struct Session {
    pub model: Arc<Model>,
    pub info: ModelInfo,
    pub core: Core,
    pub interrupt: Interrupt,
}

/// Rows of a prompt that are read in one pass.
pub const CHUNK: usize = 512;

impl ModelArgs {
    /// The model's file or folder, fetched if need be.
    pub fn path(&self) -> Result<PathBuf> {
        self.device.check()?;
        pull::obtain(&resolve(&self.model)?)
    }

    pub fn options(&self, lanes: Vec<LaneSpec>) -> Options {
        Options {
            device: self.device,
            precision: self.precision,
            threads: self.threads(),
            kv: self.kv,
            queries_budget: self.queries_budget,
            chunk: CHUNK,
            lanes,
            depth: self.depth.clone(),
        }
    }
}

impl Session {
    pub fn open(args: &ModelArgs, options: &Options) -> Result<Self> {
        let interrupt = Interrupt::watch()?;
        let model = Model::open(&args.path()?)?;
        Self::with(model, options, interrupt)
    }

    /// On a model that is open already.
    pub fn with(model: Model, options: &Options, interrupt: Interrupt) -> Result<Self> {
        // Fails where a pool exists already, which then serves as well.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global();
        let (core, info) = open(&model, options, |_, _| {})?;
        interrupt.stops(&core)?;
        interrupt.check()?;
        Ok(Self { model: Arc::new(model), info, core, interrupt })
    }

    /// Reads a prompt; `progress(tokens read)` is called after every layer.
    pub fn read(&mut self, ids: &[u32], progress: impl Fn(usize)) -> Result<Frame> {
        let interrupt = self.interrupt.clone();
        let frame = self.core.read_prompt(ids, |_, read| {
            progress(read);
            if interrupt.check().is_err() { Pause::Stop } else { Pause::Continue }
        })?;
        Ok(frame.ok_or(Interrupted)?)
    }

    /// The prompt can be read, and `steps` after it fit the context.
    pub fn check(&self, ids: &[u32], steps: u32) -> Result<()> {
        self.core.check(ids)?;
        let (prompt, context) = (ids.len(), self.info.context);
        if prompt + steps as usize > context {
            let what = format!("{prompt} prompt tokens and {steps} steps do not fit the context of {context}");
            return Err(Usage::new(what, format!("at most {} steps fit", context - prompt)).into());
        }
        Ok(())
    }
}

/// Progress on standard error, where somebody looks at it.
pub fn tell(what: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{what}");
    }
}

/// Takes the last [`tell`] away.
pub fn told() {
    tell("");
}
