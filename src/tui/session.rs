//! What the engine has said so far: model, prompt, frames, state. Filled by events, read by panels.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::engine::frame::{AttentionStats, Finding, Frame, LaneFrame};
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
    /// Forked lanes with the lane they continue.
    forks: HashMap<usize, usize>,
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
            forks: HashMap::new(),
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
                self.forks.clear();
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
            Event::Forked { lane, from } => {
                self.forks.insert(lane as usize, from as usize);
            }
            Event::State(state) => self.state = state,
            Event::Answer { answer: Answer::PromptNll(nll), .. } => self.prompt_nll = Some(nll),
            Event::Answer { .. } | Event::Notice(_) => {}
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

    /// A lane of a frame; before it was forked, the lane that it continues.
    pub fn lane<'a>(&self, frame: &'a Frame, lane: usize) -> Option<&'a LaneFrame> {
        let mut lane = lane;
        // A fork continues a lane with a smaller index: this ends.
        while lane >= frame.lanes.len() {
            lane = self.forks.get(&lane).copied().filter(|from| *from < lane).unwrap_or(0);
            if lane == 0 {
                break;
            }
        }
        frame.lanes.get(lane)
    }

    /// Ids that `lane` has been fed up to frame `last`, by position [P + steps].
    pub fn tokens(&self, lane: usize, last: usize) -> Vec<u32> {
        let mut ids = self.prompt.to_vec();
        for frame in self.frames.iter().take(last + 1) {
            if let Some(lane) = self.lane(frame, lane) {
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

    /// The lane in which `position` was fed, and its row there.
    pub fn fed(&self, lane: usize, position: usize) -> Option<(&LaneFrame, usize)> {
        let place = self.place(position)?;
        let lane = self.lane(&self.frames[place.frame], lane)?;
        // a lane may have left out the prompt's first token
        Some((lane, position.checked_sub(lane.pos as usize)?))
    }

    /// Attention statistics of the query at `position`, with its row in them.
    pub fn attention(&self, lane: usize, position: usize) -> Option<(&AttentionStats, usize)> {
        let (lane, row) = self.fed(lane, position)?;
        (row < lane.attention.rows).then_some((&*lane.attention, row))
    }

    /// −ln p of the token at `position`, nats.
    pub fn nll(&self, lane: usize, position: usize) -> Option<f32> {
        if position < self.prompt.len() {
            return self.prompt_nll.as_ref()?.get(position).copied().filter(|v| !v.is_nan());
        }
        self.fed(lane, position)?.0.nll
    }

    /// Findings of all frames up to `last`, oldest first.
    pub fn findings(&self, last: usize) -> impl Iterator<Item = &Finding> {
        self.frames.iter().take(last + 1).flat_map(|f| &f.findings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(pos: u32, fed: &[u32]) -> LaneFrame {
        LaneFrame {
            spec: "full".into(),
            fed: fed.into(),
            pos,
            next: None,
            on_host: false,
            pick: None,
            candidates: Vec::new(),
            entropy: 0.0,
            nll: None,
            residual: Arc::default(),
            attention: Arc::default(),
            stream: Arc::default(),
            depth: None,
            kv_norms: Arc::default(),
            received: Arc::from([]),
            row: Arc::from([]),
            kept: Arc::default(),
            kv: Default::default(),
            reads: None,
            against: None,
            lens: Vec::new(),
            survival: Vec::new(),
            covered: None,
            effect: None,
            recall: None,
        }
    }

    fn frame(step: u32, lanes: Vec<LaneFrame>) -> Event {
        Event::Frame(Arc::new(Frame {
            step,
            partial: None,
            lanes,
            ops: Vec::new(),
            timeline: Default::default(),
            peaks: None,
            graph: false,
            card: None,
            memory: Default::default(),
            wall_ns: 0,
            findings: Vec::new(),
            spans: Arc::from([]),
        }))
    }

    /// Two lanes that part at step 2; a fork of lane 1 after step 2 goes on at step 3.
    fn session() -> Session {
        let mut session = Session::default();
        session.take(Event::Prompt(Arc::from([10, 11])));
        session.take(frame(0, vec![lane(0, &[10, 11]), lane(0, &[10, 11])]));
        session.take(frame(1, vec![lane(2, &[20]), lane(2, &[20])]));
        session.take(frame(2, vec![lane(3, &[21]), lane(3, &[31])]));
        session.take(Event::Forked { lane: 2, from: 1 });
        session.take(frame(3, vec![lane(4, &[22]), lane(4, &[32]), lane(4, &[42])]));
        session
    }

    #[test]
    fn each_lane_has_its_own_tokens_and_a_fork_its_parents_past() {
        let session = session();
        assert_eq!(session.tokens(0, 3), [10, 11, 20, 21, 22]);
        assert_eq!(session.tokens(1, 3), [10, 11, 20, 31, 32]);
        assert_eq!(session.tokens(2, 3), [10, 11, 20, 31, 42]);
        assert_eq!(session.tokens(0, 1), [10, 11, 20]);
    }

    #[test]
    fn positions_are_found_where_they_were_fed() {
        let session = session();
        assert_eq!(session.place(1), Some(Place { frame: 0, row: 1 }));
        assert_eq!(session.place(4), Some(Place { frame: 3, row: 0 }));
        assert_eq!(session.place(5), None);
    }

    #[test]
    fn steps_computed_again_replace_those_that_were() {
        let mut session = session();
        session.take(frame(2, vec![lane(3, &[51])]));
        assert_eq!(session.frames().len(), 3);
        assert_eq!(session.tokens(0, 9), [10, 11, 20, 51]);
        session.take(Event::Rewound { step: 0 });
        assert_eq!(session.index_of(7), Some(0));
    }

    #[test]
    fn without_a_speller_ids_are_shown() {
        assert_eq!(&*Session::default().spell(7), "‹7›");
    }
}
