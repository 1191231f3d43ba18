//! Standard output of commands: text that is complete, and whose reader may leave early.

use std::io::{self, Write};

use serde::Serialize;

use super::exit::Io;

/// Writes `text` and a newline.
pub fn print(text: &str) -> Result<(), Io> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Io::while_("write to standard output"))
}

/// Writes `value` as JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), Io> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer(&mut out, value)
        .map_err(io::Error::from)
        .and_then(|()| writeln!(out))
        .and_then(|()| out.flush())
        .map_err(Io::while_("write to standard output"))
}
