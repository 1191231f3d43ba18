//! A lane of one run beside a lane of the other: all steps that both have.

use serde::Serialize;

use super::step::{Place, Point, StepDiff};
use crate::engine::frame::LaneFrame;

/// Index and spec of the lane in each run, and what differs.
#[derive(Debug, Serialize)]
pub struct LaneDiff {
    pub lane: [usize; 2],
    pub spec: [String; 2],
    /// Every number of every step is the same, bit for bit.
    pub equal: bool,
    pub first: First,
    pub largest: Largest,
    /// Share of the steps on the same text after which both prefer the same token; `null` without any.
    pub top1_agree: Option<f32>,
    pub steps: Vec<StepDiff>,
    /// Steps on the same text, and those of them after which both prefer the same token.
    #[serde(skip)]
    shared: u32,
    #[serde(skip)]
    agreed: u32,
}

/// The first step at which something differs.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct First {
    /// Any number at all.
    pub number: Option<u32>,
    pub fed: Option<u32>,
    pub argmax: Option<u32>,
    pub kept: Option<u32>,
}

/// The largest differences while both were on the same text, with the step.
#[derive(Debug, Default, Serialize)]
pub struct Largest {
    pub entropy: Option<At<f32>>,
    pub nll: Option<At<f32>>,
    /// The least Jaccard index.
    pub jaccard: Option<At<Place>>,
    pub residual_l2: Option<At<Point>>,
    pub residual_absmax: Option<At<Point>>,
    pub attention_entropy: Option<At<Place>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct At<T> {
    pub step: u32,
    pub what: T,
}

/// Keeps the larger of two by `size`.
fn raise<T: Copy>(most: &mut Option<At<T>>, step: u32, new: Option<T>, size: impl Fn(&T) -> f32) {
    let Some(what) = new else { return };
    if most.as_ref().is_none_or(|old| size(&what) > size(&old.what)) {
        *most = Some(At { step, what });
    }
}

impl LaneDiff {
    pub fn new(a: usize, b: usize, spec_a: String, spec_b: String) -> Self {
        Self {
            lane: [a, b],
            spec: [spec_a, spec_b],
            equal: true,
            first: First::default(),
            largest: Largest::default(),
            top1_agree: None,
            steps: Vec::new(),
            shared: 0,
            agreed: 0,
        }
    }

    /// The next step; `equal`: all numbers are the same.
    pub fn add(&mut self, step: u32, a: &LaneFrame, b: &LaneFrame, shapes: bool, equal: bool) {
        let prefix = self.steps.last().is_none_or(|last| last.same_prefix);
        let diff = StepDiff::of(step, a, b, shapes, equal, prefix);
        self.equal &= equal;
        let note = |first: &mut Option<u32>, differs: bool| {
            if differs && first.is_none() {
                *first = Some(step);
            }
        };
        note(&mut self.first.number, !equal);
        note(&mut self.first.fed, !diff.fed_equal);
        note(&mut self.first.argmax, !diff.argmax_equal);
        note(&mut self.first.kept, !diff.kept_equal);
        if diff.same_prefix {
            let most = &mut self.largest;
            raise(&mut most.entropy, step, diff.entropy, |d| d.abs());
            raise(&mut most.nll, step, diff.nll, |d| d.abs());
            raise(&mut most.jaccard, step, diff.jaccard_least, |d| -d.value);
            raise(&mut most.residual_l2, step, diff.residual_l2, |d| d.value);
            raise(&mut most.residual_absmax, step, diff.residual_absmax, |d| d.value);
            raise(&mut most.attention_entropy, step, diff.attention_entropy, |d| d.value);
        }
        if diff.same_prefix {
            self.shared += 1;
            self.agreed += u32::from(diff.argmax_equal);
            self.top1_agree = Some(self.agreed as f32 / self.shared as f32);
        }
        self.steps.push(diff);
    }
}
