//! `attnscope doctor`: what was found on this machine, and what it means for this program.

mod card;
mod cuda;
pub mod host;
mod models;
mod self_test;
mod terminal;

use std::fmt::Write;

use miette::Result;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::output::{print, print_json};
use crate::tui::text::line;

/// Show what was found on this machine: CPU, memory, terminal, models, network, NVIDIA
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Run kernels on a card, compare their numbers, and measure how fast its memory is
    #[arg(long)]
    self_test: bool,
    /// The card for --self-test
    #[arg(long, value_name = "N", default_value_t = 0, requires = "self_test")]
    card: u32,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Fact {
    pub name: String,
    pub found: String,
    /// Something that the user may want to change.
    pub warn: bool,
}

/// A heading and its facts.
pub struct Section {
    pub name: &'static str,
    pub facts: Vec<Fact>,
}

impl Section {
    fn new(name: &'static str) -> Self {
        Self { name, facts: Vec::new() }
    }

    fn fact(&mut self, name: impl Into<String>, found: impl Into<String>) {
        self.facts.push(Fact { name: name.into(), found: found.into(), warn: false });
    }

    fn warn(&mut self, name: impl Into<String>, found: impl Into<String>) {
        self.facts.push(Fact { name: name.into(), found: found.into(), warn: true });
    }
}

pub fn run(args: Args) -> Result<()> {
    let mut sections = vec![
        host::program(),
        host::cpu(),
        host::memory(),
        terminal::look(),
        models::look(),
        models::network(),
        cuda::look(),
    ];
    // Where it fails, the rest of the report helps to see why.
    let outcome = match args.self_test.then(|| self_test::run(args.card)) {
        Some(Ok(section)) => {
            sections.push(section);
            Ok(())
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    if args.json {
        let one = |section: &Section| -> Value {
            let facts = section.facts.iter().map(|f| (f.name.clone(), json!({ "found": f.found, "warn": f.warn })));
            Value::Object(facts.collect::<Map<_, _>>())
        };
        let all: Map<String, Value> = sections.iter().map(|s| (s.name.to_owned(), one(s))).collect();
        print_json(&json!({ "schema": 1, "sections": all }))?;
        return outcome;
    }
    let mut out = String::new();
    for section in &sections {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", section.name);
        for fact in &section.facts {
            let mark = if fact.warn { '!' } else { ' ' };
            let _ = writeln!(out, " {mark} {:22} {}", fact.name, line(&fact.found));
        }
    }
    print(out.trim_end())?;
    outcome
}
