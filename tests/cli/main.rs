//! The program from outside: exit codes, what it says about bad input, and the contracts of its output. A tiny model
//! with random weights stands in for a real one, so nothing is fetched.

mod analyze;
mod bad_input;
mod compare;
mod config;
mod eval;
mod exits;
mod interventions;
mod memory;
mod numerics;
mod order;
mod process;
mod readers;
mod record;
mod trace;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// Layers, heads, kv heads, channels and vocabulary of the tiny model.
const LAYERS: usize = 4;
const HEADS: usize = 6;
const KV_HEADS: usize = 2;
const HIDDEN: usize = 96;
const VOCAB: usize = 320;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny/llama3_rope")
}

fn attnscope(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attnscope"));
    command.args(args).env_remove("ATTNSCOPE_HOME").env("NO_COLOR", "1");
    // Nobody's own settings.
    command.env_remove("ATTNSCOPE_CONFIG").env("XDG_CONFIG_HOME", "/nonexistent");
    command
}

fn run(args: &[&str]) -> Output {
    attnscope(args).output().expect("the program starts")
}

/// A subcommand on the tiny model.
fn on_tiny(subcommand: &str, args: &[&str]) -> Output {
    let model = tiny();
    let mut all = vec![subcommand, "--model", model.to_str().expect("a UTF-8 path"), "--threads", "2"];
    all.extend(args);
    run(&all)
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code, not a signal")
}

fn stdout(output: &Output) -> String {
    assert_eq!(code(output), 0, "{}", stderr(output));
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What was said on standard error, on one line.
fn said(output: &Output) -> String {
    stderr(output).split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ")
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).expect("JSON")
}

/// `count` token ids as an argument.
fn ids(count: usize) -> String {
    (0..count).map(|i| ((i * 37 + 11) % VOCAB).to_string()).collect::<Vec<_>>().join(",")
}
