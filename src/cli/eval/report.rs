//! What an evaluation found: `eval --json` prints it, table and plots are made from it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::contender::Contender;
use super::record::{Cell, Mode, Setting, mean};
use super::runner::Job;
use super::store::Store;
use super::task::{PROTOCOL, Task};
use crate::engine::message::ModelInfo;

pub const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    /// Of prompts and judging; results of different ones cannot be compared.
    pub protocol: u32,
    pub model: String,
    pub model_sha256: String,
    pub device: String,
    pub precision: String,
    pub kv_type: String,
    pub question: Mode,
    pub lengths: Vec<u32>,
    pub depths: Vec<u32>,
    pub seeds: u64,
    /// Budgets that policies without one of their own got.
    pub budgets: Vec<String>,
    /// Every policy has gone through every prompt.
    pub complete: bool,
    /// A row for each task and policy at a budget, in the order asked for.
    pub rows: Vec<Row>,
    /// Every result.
    pub cells: Vec<Cell>,
}

/// One policy at one budget on all prompts of a task.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub task: &'static str,
    /// As written, without a budget that it got here.
    pub policy: String,
    pub budget: Option<String>,
    pub spec: String,
    pub prompts: usize,
    /// Share of questions answered; `null` where nothing is right or wrong.
    pub accuracy: Option<Spread>,
    /// Mean −ln p of the answers' tokens, nats.
    pub nll: Option<Spread>,
    /// Mean share of what says the answer that was held.
    pub span_kept: Option<f32>,
    /// Mean share of entries that were held.
    pub kept: f32,
    /// The same for bytes.
    pub kv_share: f32,
    /// By length and depth, where the task has depths.
    pub grid: Vec<Square>,
    /// By the question's place in the prompt, where there are several.
    pub asks: Vec<Place>,
}

/// Mean and spread over seeds: of each seed the mean of its prompts is taken first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub mean: f32,
    /// Standard deviation (n − 1) of the seeds' means; `null` with one seed.
    pub sd: Option<f32>,
    pub seeds: usize,
}

/// Of all seeds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Square {
    pub length: u32,
    pub depth: u32,
    pub accuracy: Option<f32>,
    pub nll: Option<f32>,
    pub span_kept: Option<f32>,
}

/// Of all prompts.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Place {
    pub accuracy: Option<f32>,
    pub nll: Option<f32>,
    pub span_kept: Option<f32>,
}

impl Spread {
    /// Of `(seed, value)`.
    pub fn of(values: impl Iterator<Item = (u64, f32)>) -> Option<Self> {
        let mut by_seed: BTreeMap<u64, Vec<f32>> = BTreeMap::new();
        values.for_each(|(seed, value)| by_seed.entry(seed).or_default().push(value));
        let means: Vec<f32> = by_seed.values().filter_map(|values| mean(values.iter().copied())).collect();
        let all = mean(means.iter().copied())?;
        let squares: f64 = means.iter().map(|m| f64::from(m - all).powi(2)).sum();
        let sd = (means.len() > 1).then(|| (squares / (means.len() - 1) as f64).sqrt() as f32);
        Some(Self { mean: all, sd, seeds: means.len() })
    }
}

impl Report {
    pub fn new(
        info: &ModelInfo,
        setting: &Setting,
        (lengths, depths, seeds): (&[u32], &[u32], u64),
        jobs: &[Job],
        contenders: &[Contender],
        store: &Store,
    ) -> Self {
        let mut cells = Vec::new();
        let mut rows = Vec::new();
        let mut tasks: Vec<&'static Task> = Vec::new();
        jobs.iter().for_each(|job| {
            if tasks.iter().all(|task| task.name != job.task.name) {
                tasks.push(job.task);
            }
        });
        for task in tasks {
            for contender in contenders {
                let places = jobs.iter().filter(|job| job.task.name == task.name).map(|job| job.place);
                let known = places.filter_map(|place| store.get(&setting.key(task, &place, &contender.policy)));
                let known: Vec<&Cell> = known.collect();
                rows.extend(Row::of(task, contender, &known));
                cells.extend(known.into_iter().cloned());
            }
        }
        let mut budgets: Vec<String> = Vec::new();
        for budget in contenders.iter().filter_map(|c| c.budget).map(|b| b.to_string()) {
            if !budgets.contains(&budget) {
                budgets.push(budget);
            }
        }
        Self {
            schema: SCHEMA,
            protocol: PROTOCOL,
            model: info.id.clone(),
            model_sha256: setting.model_sha256.clone(),
            device: info.device.clone(),
            precision: setting.precision.clone(),
            kv_type: setting.kv_type.clone(),
            question: setting.question,
            lengths: lengths.to_vec(),
            depths: depths.to_vec(),
            seeds,
            budgets,
            complete: cells.len() == jobs.len() * contenders.len(),
            rows,
            cells,
        }
    }
}

impl Row {
    fn of(task: &'static Task, contender: &Contender, cells: &[&Cell]) -> Option<Self> {
        if cells.is_empty() {
            return None;
        }
        let over_seeds = |of: fn(&Cell) -> Option<f32>| {
            Spread::of(cells.iter().filter_map(|cell| of(cell).map(|value| (cell.key.seed, value))))
        };
        Some(Self {
            task: task.name,
            policy: contender.row.clone(),
            budget: contender.budget.map(|budget| budget.to_string()),
            spec: contender.spec(),
            prompts: cells.len(),
            accuracy: over_seeds(|cell| cell.result.accuracy()),
            nll: over_seeds(|cell| cell.result.nll()),
            span_kept: mean(cells.iter().filter_map(|cell| cell.result.span_kept())),
            kept: mean(cells.iter().map(|cell| cell.result.kept)).unwrap_or_default(),
            kv_share: mean(cells.iter().map(|cell| cell.result.kv_share)).unwrap_or_default(),
            grid: grid(cells),
            asks: asks(cells),
        })
    }
}

fn grid(cells: &[&Cell]) -> Vec<Square> {
    let mut squares: BTreeMap<(u32, u32), Vec<&Cell>> = BTreeMap::new();
    for cell in cells {
        if let Some(depth) = cell.key.depth {
            squares.entry((cell.key.length, depth)).or_default().push(cell);
        }
    }
    let square = |((length, depth), cells): ((u32, u32), Vec<&Cell>)| Square {
        length,
        depth,
        accuracy: mean(cells.iter().filter_map(|cell| cell.result.accuracy())),
        nll: mean(cells.iter().filter_map(|cell| cell.result.nll())),
        span_kept: mean(cells.iter().filter_map(|cell| cell.result.span_kept())),
    };
    squares.into_iter().map(square).collect()
}

fn asks(cells: &[&Cell]) -> Vec<Place> {
    let count = cells.iter().map(|cell| cell.result.asks.len()).max().unwrap_or(0);
    let place = |i: usize| {
        let these = || cells.iter().filter_map(move |cell| cell.result.asks.get(i));
        Place {
            accuracy: mean(these().filter_map(|ask| ask.found).map(|found| f32::from(u8::from(found)))),
            nll: mean(these().filter_map(|ask| ask.nll)),
            span_kept: mean(these().filter_map(|ask| ask.span_kept)),
        }
    };
    if count > 1 { (0..count).map(place).collect() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_that_of_the_seeds() {
        let spread = Spread::of([(0, 1.0), (0, 0.0), (1, 1.0), (1, 1.0)].into_iter()).unwrap();
        assert_eq!((spread.mean, spread.seeds), (0.75, 2));
        assert!((spread.sd.unwrap() - 0.125f32.sqrt()).abs() < 1e-6);
        assert_eq!(Spread::of([(7, 0.5)].into_iter()), Some(Spread { mean: 0.5, sd: None, seeds: 1 }));
        assert_eq!(Spread::of(std::iter::empty()), None);
    }
}
