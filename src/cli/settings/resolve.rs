//! Command line over file over built-in defaults.

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::{DEFAULT_LANES, Settings};
use crate::cli::args::{JudgeArgs, LaneArgs, ModelArgs};
use crate::engine::LogitRows;

/// What the file may say where the command line does not.
pub struct Resolver<'a> {
    settings: &'a Settings,
    /// Of the subcommand.
    matches: &'a ArgMatches,
}

impl<'a> Resolver<'a> {
    pub fn new(settings: &'a Settings, matches: &'a ArgMatches) -> Self {
        Self { settings, matches }
    }

    fn fill<T: Clone>(&self, id: &str, field: &mut T, set: Option<&T>) {
        if self.matches.value_source(id) != Some(ValueSource::CommandLine)
            && let Some(value) = set
        {
            field.clone_from(value);
        }
    }

    pub fn model_name(&self, name: &mut String) {
        self.fill("model", name, self.settings.model.as_ref());
    }

    pub fn model(&self, args: &mut ModelArgs) {
        let Settings { device, threads, kv, queries_budget, .. } = self.settings;
        self.model_name(&mut args.model);
        self.fill("device", &mut args.device, device.as_ref());
        self.fill("threads", &mut args.threads, Some(threads).filter(|t| t.is_some()));
        self.fill("kv", &mut args.kv, Some(kv).filter(|kv| kv.is_some()));
        self.fill("queries_budget", &mut args.queries_budget, queries_budget.as_ref());
    }

    pub fn screen(&self, view: &mut Option<String>, mouse: &mut bool) {
        self.fill("view", view, Some(&self.settings.view));
        self.fill("mouse", mouse, self.settings.mouse.as_ref());
    }

    pub fn judge(&self, args: &mut JudgeArgs) {
        self.fill("regret_above", &mut args.regret_above, self.settings.regret_above.as_ref());
    }

    pub fn logits(&self, rows: &mut LogitRows) {
        self.fill("logits", rows, self.settings.logits.as_ref());
    }

    /// Where the command line names no lane.
    pub fn lanes(&self, args: &mut LaneArgs) {
        if args.lanes.is_empty() {
            let built_in = || DEFAULT_LANES.map(str::to_owned).to_vec();
            args.lanes = self.settings.lanes.clone().unwrap_or_else(built_in);
        }
    }
}
