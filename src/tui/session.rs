//! What the engine has said so far: model, prompt, frames, state. Filled by events, read by panels.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::engine::frame::{AttentionStats, Finding, Frame, LaneFrame, ResidualStats};
use crate::engine::message::{Answer, Event, ModelInfo, Speller, State};

use super::text;

/// Work before the first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub what: String,
    pub done: u64,
    /// 0 = unknown.
    pub total: u64,
}

/// Where a position was computed: the frame (as an index into the history) and its row in that frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub frame: usize,
    pub row: usize,
}

pub struct Session {
    pub model: Option<Arc<ModelInfo>>,
    speller: Option<Speller>,
    spelled: RefCell<HashMap<u32, Rc<str>>>,
    pub prompt: Arc<[u32]>,
    pub prompt_nll: Option<Arc<[f32]>>,
    /// Ascending steps; the last one may be partial.
    frames: Vec<Arc<Frame>>,
    pub state: State,
    pub progress: Option<Progress>,
    pub failed: Option<String>,
    /// Changes whenever the history does.
    pub revision: u64,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            model: None,
            speller: None,
            spelled: RefCell::default(),
            prompt: Arc::from([]),
            prompt_nll: None,
            frames: Vec::new(),
            state: State::Loading,
            progress: None,
            failed: None,
            revision: 0,
        }
    }
}

impl Session {
    /// Takes one event in. Other answers than those about the prompt go to whoever asked.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Progress { what, done, total } => {
                self.progress = Some(Progress { what: text::line(&what), done, total });
            }
            Event::Ready(model, speller) => {
                self.model = Some(model);
                self.speller = Some(speller);
                self.spelled.borrow_mut().clear();
                self.progress = None;
            }
            Event::Prompt(ids) => {
                self.prompt = ids;
                self.prompt_nll = None;
                self.frames.clear();
                self.failed = None;
                self.revision += 1;
            }
            Event::Frame(frame) => {
                let from = self.frames.partition_point(|f| f.step < frame.step);
                self.frames.truncate(from);
                self.frames.push(frame);
                self.progress = None;
                self.revision += 1;
            }
            Event::Rewound { step } => {
                let from = self.frames.partition_point(|f| f.step <= step);
                self.frames.truncate(from);
                self.revision += 1;
            }
            Event::State(state) => self.state = state,
            Event::Answer { answer: Answer::PromptNll(nll), .. } => self.prompt_nll = Some(nll),
            Event::Answer { .. } => {}
            Event::Failed(why) => self.failed = Some(text::line(&why)),
        }
    }

    pub fn frames(&self) -> &[Arc<Frame>] {
        &self.frames
    }

    /// Index of the frame of `step`, or of the nearest earlier one.
    pub fn index_of(&self, step: u32) -> Option<usize> {
        self.frames.partition_point(|f| f.step <= step).checked_sub(1)
    }

    /// A token as shown, cached.
    pub fn spell(&self, id: u32) -> Rc<str> {
        if let Some(known) = self.spelled.borrow().get(&id) {
            return known.clone();
        }
        let Some(speller) = &self.speller else { return format!("‹{id}›").into() };
        let shown: Rc<str> = text::token(&(speller.0)(id)).into();
        self.spelled.borrow_mut().insert(id, shown.clone());
        shown
    }

    /// Token ids as running text: escape characters visible, spaces as spaces, line ends as ␊.
    pub fn text(&self, ids: &[u32]) -> String {
        match &self.speller {
            Some(speller) => text::line(&ids.iter().map(|&id| (speller.0)(id)).collect::<String>()),
            None => ids.iter().map(|id| format!("‹{id}›")).collect(),
        }
    }

    /// Ids that `lane` has been fed up to frame `last`, by position [P + steps]. A lane that did not exist yet
    /// shares lane 0's past.
    pub fn tokens(&self, lane: usize, last: usize) -> Vec<u32> {
        let mut ids = self.prompt.to_vec();
        for frame in self.frames.iter().take(last + 1) {
            if let Some(lane) = frame.lanes.get(lane).or(frame.lanes.first()) {
                ids.truncate(lane.pos as usize);
                ids.extend_from_slice(&lane.fed);
            }
        }
        ids
    }

    /// Where `position` was fed.
    pub fn place(&self, position: usize) -> Option<Place> {
        let from = |f: &Arc<Frame>| f.lanes.first().map_or(usize::MAX, |l| l.pos as usize);
        let frame = self.frames.partition_point(|f| from(f) <= position).checked_sub(1)?;
        let row = position - from(&self.frames[frame]);
        (row < self.frames[frame].lanes.first()?.fed.len()).then_some(Place { frame, row })
    }

    fn lane_at(&self, lane: usize, position: usize) -> Option<(&LaneFrame, usize)> {
        let place = self.place(position)?;
        let lanes = &self.frames[place.frame].lanes;
        Some((lanes.get(lane).or(lanes.first())?, place.row))
    }

    /// Attention statistics of the query at `position`, with its row in them.
    pub fn attention(&self, lane: usize, position: usize) -> Option<(&AttentionStats, usize)> {
        let (lane, row) = self.lane_at(lane, position)?;
        (row < lane.attention.rows).then_some((&*lane.attention, row))
    }

    /// Residual statistics at `position`, with its row in them.
    pub fn residual(&self, lane: usize, position: usize) -> Option<(&ResidualStats, usize)> {
        let (lane, row) = self.lane_at(lane, position)?;
        (row < lane.residual.rows).then_some((&*lane.residual, row))
    }

    /// −ln p of the token at `position`, nats.
    pub fn nll(&self, lane: usize, position: usize) -> Option<f32> {
        if position < self.prompt.len() {
            return self.prompt_nll.as_ref()?.get(position).copied().filter(|v| !v.is_nan());
        }
        self.lane_at(lane, position)?.0.nll
    }

    /// Findings of all frames up to `last`, oldest first.
    pub fn findings(&self, last: usize) -> impl Iterator<Item = &Finding> {
        self.frames.iter().take(last + 1).flat_map(|f| &f.findings)
    }
}
