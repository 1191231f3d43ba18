//! The order of the work: prompt after prompt, all policies of a prompt together, and nothing twice.

use std::collections::HashSet;

use indicatif::{ProgressBar, ProgressStyle};
use miette::{Report, Result};

use super::contender::Contender;
use super::measure::measure;
use super::record::{Cell, Setting};
use super::store::Store;
use super::task::{Item, Maker, Place, Task};
use crate::cli::exit::{Interrupted, Usage};
use crate::cli::session::Session;
use crate::engine::{EngineError, LaneSpec, Sampler};

/// Lanes that decode as one batch; more policies read the prompt again.
const LANES_AT_ONCE: usize = 64;

/// One prompt to be run.
pub struct Job {
    pub task: &'static Task,
    pub place: Place,
    pub item: Item,
}

/// All prompts, the first seed of everything before the second of anything: a run that is stopped early has gone
/// through every task and length.
pub fn places(tasks: &[&'static Task], lengths: &[u32], depths: &[u32], seeds: u64) -> Vec<(&'static Task, Place)> {
    let mut all: Vec<(&Task, Place)> = Vec::new();
    for seed in 0..seeds {
        for &task in tasks {
            for &length in lengths {
                let depths = if task.depths { depths.iter().copied().map(Some).collect() } else { vec![None] };
                all.extend(depths.into_iter().map(|depth| (task, Place { length, depth, seed })));
            }
        }
    }
    // Whatever was named twice is run once.
    let mut seen = HashSet::new();
    all.retain(|(task, place)| seen.insert((task.name, *place)));
    all
}

/// Writes all prompts, so that one that cannot be written, or does not fit the context, is known before any is run.
pub fn jobs(places: &[(&'static Task, Place)], maker: &Maker, session: &Session) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for &(task, place) in places {
        let item = (task.make)(maker, &place)?;
        session.core.check(&item.context)?;
        let (tokens, context) = (item.longest(), session.info.context);
        if tokens > context {
            let what = format!(
                "{} at a length of {} takes {tokens} tokens; the context has {context}",
                task.name, place.length
            );
            return Err(Usage::new(what, "give smaller --lengths").into());
        }
        jobs.push(Job { task, place, item });
    }
    Ok(jobs)
}

/// Runs what `store` does not know yet. `Err(Interrupted)` leaves everything that was finished in it.
pub fn run(
    session: &mut Session,
    jobs: &[Job],
    contenders: &[Contender],
    setting: &Setting,
    store: &mut Store,
) -> Result<()> {
    let bar = bar(jobs.len() as u64);
    for job in jobs {
        bar.set_message(job.to_string());
        let missing: Vec<&Contender> =
            contenders.iter().filter(|c| store.get(&setting.key(job.task, &job.place, &c.policy)).is_none()).collect();
        for some in missing.chunks(LANES_AT_ONCE) {
            let cells = batch(session, job, some, contenders, setting).inspect_err(|_| bar.finish_and_clear())?;
            store.add(cells)?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Some policies on one prompt, beside lane 0.
fn batch(
    session: &mut Session,
    job: &Job,
    some: &[&Contender],
    contenders: &[Contender],
    setting: &Setting,
) -> Result<Vec<Cell>> {
    let lane = |c: &Contender| LaneSpec { policy: c.policy.clone(), sampler: Sampler::default() };
    let full = contenders.iter().filter(|c| c.is_full());
    let others = some.iter().filter(|c| !c.is_full()).copied();
    let lanes: Vec<&Contender> = full.chain(others).collect();
    session.core.set_lanes(lanes.iter().map(|c| lane(c)).collect());
    let outcomes = measure(session, &job.item, setting.question, job.task.answers).map_err(stopped)?;
    let wanted =
        lanes.iter().zip(outcomes).filter(|(lane, _)| some.iter().any(|c| c.policy.spec() == lane.policy.spec()));
    let cell = |(lane, result): (&&Contender, _)| Cell {
        key: setting.key(job.task, &job.place, &lane.policy),
        context_tokens: job.item.context.len() as u32,
        result,
    };
    Ok(wanted.map(cell).collect())
}

/// A pass that a signal stopped is an interruption like any other.
fn stopped(report: Report) -> Report {
    use crate::backend::BackendError;
    match report.downcast_ref::<EngineError>() {
        Some(EngineError::Backend(BackendError::Interrupted)) => Interrupted.into(),
        _ => report,
    }
}

fn bar(prompts: u64) -> ProgressBar {
    const TEMPLATE: &str = "{bar:30} {pos}/{len} prompts, {elapsed} gone, {eta} to go: {msg}";
    let bar = ProgressBar::new(prompts);
    // The template is a constant; the default style stands in for one that would not parse.
    match ProgressStyle::with_template(TEMPLATE) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {} tokens", self.task.name, self.place.length)?;
        if let Some(depth) = self.place.depth {
            write!(f, ", depth {depth} %")?;
        }
        write!(f, ", seed {}", self.place.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::eval::task::find;

    #[test]
    fn the_first_seed_goes_through_everything() {
        let tasks = [find("needle").unwrap(), find("nll").unwrap()];
        let all = places(&tasks, &[128, 256], &[0, 100], 2);
        let words: Vec<String> =
            all.iter().map(|(t, p)| format!("{} {} {:?} {}", t.name, p.length, p.depth, p.seed)).collect();
        assert_eq!(
            words[..6],
            [
                "needle 128 Some(0) 0",
                "needle 128 Some(100) 0",
                "needle 256 Some(0) 0",
                "needle 256 Some(100) 0",
                "nll 128 None 0",
                "nll 256 None 0"
            ]
        );
        assert_eq!((words.len(), words[6].as_str()), (12, "needle 128 Some(0) 1"));
        let twice = [&tasks[..], &tasks].concat();
        assert_eq!(places(&twice, &[128, 256, 128], &[0, 100, 0], 2), all);
    }
}
