//! `attnscope bench --serve`: a peer among others. Reads `pp N` (a new prompt), `tg N` (steps after it) and
//! `probes on|off`, `timings off`, line by line; answers each with its seconds.

use std::io::{self, BufRead};

use miette::Result;

use super::Args;
use super::speed::{NO_PROBES, decode, lanes, prefill, synthetic};
use crate::cli::exit::{Io, Usage};
use crate::cli::output::print;
use crate::cli::session::Session;
use crate::engine::message::Probes;

pub fn run(args: &Args) -> Result<()> {
    let mut session = Session::open(&args.model, &args.model.options(lanes(&["full"])?))?;
    session.core.logit_rows = args.logits;
    let vocab = session.core.config().vocab;
    print("ready")?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(Io::while_("read standard input"))?;
        let interrupt = &session.interrupt;
        let seconds = match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] => continue,
            ["pp", n] => {
                let n = count(n)?;
                prefill(&mut session.core, &synthetic(n, vocab), interrupt)?
            }
            ["tg", n] => decode(&mut session.core, count(n)?, interrupt)?.iter().sum(),
            ["probes", "on"] => {
                session.core.probes = Probes::default();
                0.0
            }
            ["probes", "off"] => {
                session.core.probes = NO_PROBES;
                0.0
            }
            ["timings", "off"] => {
                session.core.probes.timings = false;
                0.0
            }
            _ => return Err(unknown(&line).into()),
        };
        print(&format!("{seconds:.6}"))?;
    }
    Ok(())
}

fn count(text: &str) -> Result<u32, Usage> {
    text.parse().map_err(|_| unknown(text))
}

fn unknown(line: &str) -> Usage {
    Usage::new(format!("{line:?} is no command"), "pp N, tg N, probes on, probes off, timings off")
}
