//! What commands write: text on standard output, whose reader may leave early, and files that appear when complete.

use std::io::{self, Write};
use std::path::Path;

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

/// An unfinished file beside the finished one, with the rights of any new file (temporary ones are private).
pub fn part_in(folder: &Path) -> std::io::Result<tempfile::TempPath> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".attnscope-").suffix(".part");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    Ok(builder.tempfile_in(folder)?.into_temp_path())
}
