//! Two recorded runs side by side: what differs, where first, and where most.

mod lane;
mod step;

use std::sync::Arc;

use serde::Serialize;

use super::error::Result;
use super::reader::Trace;
use super::standing::Standing;
use crate::engine::frame::{Frame, LaneFrame};
use crate::engine::message::ModelInfo;

pub use lane::{At, LaneDiff};
pub use step::StepDiff;

pub const SCHEMA: u32 = 1;

/// One of the two.
pub struct Side {
    trace: Trace,
    standing: Standing,
    /// This lane alone.
    lane: Option<usize>,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: u32,
    /// The same prompt, steps and lanes, and every number of every frame but times and memory the same.
    pub equal: bool,
    pub a: Facts,
    pub b: Facts,
    pub prompts_equal: bool,
    /// Layers, heads and kv heads are the same in number: statistics of layers and heads can be compared.
    pub shapes_equal: bool,
    pub lanes: Vec<LaneDiff>,
}

/// What a trace holds at its end.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    pub file: String,
    pub model: String,
    pub device: String,
    pub precision: String,
    pub prompt_tokens: usize,
    /// After the prompt.
    pub steps: usize,
    pub lanes: Vec<String>,
}

impl Side {
    /// The run as it stands at the end of `trace`; `lane` = this one alone.
    pub fn new(trace: Trace, lane: Option<usize>) -> Self {
        let standing = Standing::of(&trace);
        Self { trace, standing, lane }
    }

    /// Specs of the lanes at the end.
    pub fn specs(&mut self) -> Result<Vec<Arc<str>>> {
        match self.standing.frames.len().checked_sub(1) {
            Some(last) => Ok(self.frame(last)?.lanes.into_iter().map(|lane| lane.spec).collect()),
            None => Ok(Vec::new()),
        }
    }

    fn frame(&mut self, at: usize) -> Result<Frame> {
        self.trace.frame(self.standing.frames[at].1)
    }

    fn model(&self) -> &ModelInfo {
        &self.trace.header.model
    }

    fn prompt(&self) -> &[u32] {
        self.standing.prompt.as_deref().unwrap_or_default()
    }

    /// Index of each lane that takes part.
    fn lanes(&self, count: usize) -> Vec<usize> {
        self.lane.map_or_else(|| (0..count).collect(), |lane| vec![lane])
    }

    fn facts(&self, specs: &[Arc<str>]) -> Facts {
        let model = self.model();
        Facts {
            file: self.trace.path().display().to_string(),
            model: model.id.clone(),
            device: model.device.clone(),
            precision: model.precision.clone(),
            prompt_tokens: self.prompt().len(),
            steps: self.standing.frames.iter().filter(|(step, _)| *step > 0).count(),
            lanes: specs.iter().map(ToString::to_string).collect(),
        }
    }

    /// What the trace spells.
    pub fn spell(&self, id: u32) -> String {
        (self.trace.speller().0)(id)
    }
}

/// Compares the lanes of both by their index (or the two that were chosen), step by step, as far as both have them.
pub fn diff(a: &mut Side, b: &mut Side) -> Result<Report> {
    let (specs_a, specs_b) = (a.specs()?, b.specs()?);
    let shape = |side: &Side| (side.model().layers, side.model().heads, side.model().kv_heads);
    let shapes_equal = shape(a) == shape(b);
    let pairs: Vec<(usize, usize)> = a.lanes(specs_a.len()).into_iter().zip(b.lanes(specs_b.len())).collect();
    let lane = |&(i, j): &(usize, usize)| {
        let spec = |specs: &[Arc<str>], at: usize| specs.get(at).map_or(String::new(), ToString::to_string);
        LaneDiff::new(i, j, spec(&specs_a, i), spec(&specs_b, j))
    };
    let mut lanes: Vec<LaneDiff> = pairs.iter().map(lane).collect();
    let steps = |side: &Side| side.standing.frames.iter().map(|(step, _)| *step).collect::<Vec<_>>();
    let (steps_a, steps_b) = (steps(a), steps(b));
    let (mut at_a, mut at_b) = (0, 0);
    while let (Some(step_a), Some(step_b)) = (steps_a.get(at_a), steps_b.get(at_b)) {
        if step_a == step_b {
            let (of_a, of_b) = (a.frame(at_a)?, b.frame(at_b)?);
            for (lane, &(i, j)) in lanes.iter_mut().zip(&pairs) {
                if let (Some(x), Some(y)) = (of_a.lanes.get(i), of_b.lanes.get(j)) {
                    lane.add(*step_a, x, y, shapes_equal, same(x, y));
                }
            }
        }
        (at_a, at_b) = (at_a + (step_a <= step_b) as usize, at_b + (step_b <= step_a) as usize);
    }
    let prompts_equal = a.prompt() == b.prompt();
    let as_many = a.lanes(specs_a.len()).len() == b.lanes(specs_b.len()).len() && steps_a == steps_b;
    let equal = prompts_equal && shapes_equal && as_many && lanes.iter().all(|lane| lane.equal);
    let (a, b) = (a.facts(&specs_a), b.facts(&specs_b));
    Ok(Report { schema: SCHEMA, equal, a, b, prompts_equal, shapes_equal, lanes })
}

/// Every number the same, bit for bit; names and what is said of other lanes do not count.
fn same(a: &LaneFrame, b: &LaneFrame) -> bool {
    let bits = |lane: &LaneFrame| {
        let bare = LaneFrame { spec: "".into(), against: None, ..lane.clone() };
        postcard::to_stdvec(&bare).ok()
    };
    bits(a).is_some_and(|a| Some(a) == bits(b))
}
