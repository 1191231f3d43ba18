//! The frames as JSON, with every field under its name in `engine::frame`.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;

use super::{Failed, List, frames};
use crate::trace::{Standing, Trace};

pub const SCHEMA: u32 = 1;

/// `{schema, program, model, lanes, prompt_ids, spellings, frames}`; a number that is not finite is `null`.
pub fn json(trace: &mut Trace, out: &mut impl Write) -> Result<(), Failed> {
    let header = trace.header.clone();
    let prompt = Standing::of(trace).prompt.unwrap_or_default();
    let spellings: BTreeMap<u32, String> = trace.spellings.iter().map(|(id, text)| (*id, text.clone())).collect();
    let about = [
        ("schema", json!(SCHEMA)),
        ("program", json!(header.program)),
        ("model", json!(header.model)),
        ("lanes", json!(header.lanes)),
        ("prompt_ids", json!(prompt)),
        ("spellings", json!(spellings)),
    ];
    out.write_all(b"{")?;
    for (name, value) in about {
        writeln!(out, "\"{name}\":{value},")?;
    }
    out.write_all(b"\"frames\":[")?;
    let mut list = List::new(out);
    frames(trace, |frame| list.put(frame))?;
    Ok(out.write_all(b"\n]}\n")?)
}
