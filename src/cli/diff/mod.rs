//! `attnscope diff`: two recorded runs, or two lanes of one, side by side.

mod table;

use std::path::{Path, PathBuf};

use miette::Result;

use super::exit::Usage;
use super::output::{print, print_json};
use super::replay;
use crate::trace::diff::{Side, diff};

/// Compare two recorded runs step by step
///
/// Lanes are compared by their number; FILE:LANE takes one lane of a file, so that `diff a.trace:0 a.trace:1` compares
/// two lanes of one run. The exit code is 0 whether the runs are equal or not: the first line and the JSON's `equal`
/// say which.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A trace file, or FILE:LANE
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// Another, or another lane
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// Print JSON: all steps with all measures
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let (file_a, lane_a) = place(&args.a);
    let (file_b, lane_b) = place(&args.b);
    if lane_a.is_some() != lane_b.is_some() {
        let help = "name a lane of both (A:0 B:1), or of none to compare all lanes by their number";
        return Err(Usage::new("a single lane cannot be compared with all lanes", help).into());
    }
    let mut a = side(&file_a, lane_a)?;
    let mut b = side(&file_b, lane_b)?;
    let report = diff(&mut a, &mut b)?;
    match args.json {
        true => print_json(&report)?,
        false => print(&table::text(&report, &[&a, &b]))?,
    }
    Ok(())
}

/// A file of that very name, else what stands before `:LANE`.
fn place(path: &Path) -> (PathBuf, Option<usize>) {
    if !path.exists()
        && let Some((file, lane)) = path.to_str().and_then(|text| text.rsplit_once(':'))
        && let Ok(lane) = lane.parse()
    {
        return (file.into(), Some(lane));
    }
    (path.to_owned(), None)
}

fn side(file: &Path, lane: Option<usize>) -> Result<Side> {
    let mut side = Side::new(replay::open(file)?, lane);
    let lanes = side.specs()?.len();
    match lane {
        Some(lane) if lane >= lanes => {
            let what = format!("{file:?} has no lane {lane} at its end");
            Err(Usage::new(what, format!("lanes are numbered from 0; there are {lanes}")).into())
        }
        _ => Ok(side),
    }
}
