//! Protected entries: the first and the newest stay, whatever the scorer says.
//!
//! Positions below `sinks` and the `recent` newest of all tokens read so far are forced: they come first and count
//! inside the budget; if they alone exceed it, the newest of them stay. What the scorer itself protects stays so. Many
//! scorers from key statistics lose attention sinks, which costs more than anything they choose: `protect+knorm@50%`.
//! A policy that says itself how much each head keeps keeps at
//! least what is protected. It changes the scorer, not the choice, so budgets, refiners and chunks see protected entries as forced.

use std::sync::Arc;

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family};
use super::key::{Count, Key};
use super::part::{LaneView, LayerView, Moment, Part, Schedule, Scorer, Scores, Sizes};
use super::registry::REGISTERED;
use super::watch::Watch;

static SINKS: Key<Count> = Key::new("sinks", "first positions that always stay", Count(0, 1_000_000), 4);
static RECENT: Key<Count> = Key::new("recent", "newest positions that always stay", Count(0, 1_000_000), 0);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "protect",
    family: Family::Wrapper,
    idea: "the first and the newest entries stay, whatever the scorer says",
    paper: None,
    budget: None,
    keys: &[&SINKS, &RECENT],
    build: |spec| {
        let (sinks, recent) = (spec.get(&SINKS) as usize, spec.get(&RECENT) as u32);
        Part::around(move |scorer| Protect { scorer, sinks, recent })
    },
};

struct Protect {
    scorer: Arc<dyn Scorer>,
    sinks: usize,
    recent: u32,
}

impl Scorer for Protect {
    fn schedule(&self) -> Schedule {
        self.scorer.schedule()
    }

    fn score(&self, at: Moment, budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let mut scores = self.scorer.score(at, budget, view)?.keep_first(self.sinks, view);
        let old = view.seen().saturating_sub(self.recent);
        for (kv_head, forced) in scores.forced.iter_mut().enumerate() {
            let from = view.positions(kv_head).partition_point(|&p| p < old);
            forced[from..].fill(true);
        }
        if let Some(own) = &mut scores.own {
            let protected = scores.forced.iter().map(|forced| forced.iter().filter(|&&forced| forced).count());
            own.iter_mut().zip(protected).for_each(|(own, protected)| *own = protected.max(*own));
        }
        Some(scores)
    }

    fn shares(&self) -> bool {
        self.scorer.shares()
    }

    fn surveys(&self) -> bool {
        self.scorer.surveys()
    }

    fn survey(&self, at: Moment, mean: f64, lane: &dyn LaneView) -> Option<Arc<dyn Scorer>> {
        let scorer = self.scorer.survey(at, mean, lane)?;
        Some(Arc::new(Self { scorer, sinks: self.sinks, recent: self.recent }))
    }

    fn decodes(&self) -> bool {
        self.scorer.decodes()
    }

    fn window(&self, prompt: usize) -> usize {
        self.scorer.window(prompt)
    }

    fn watch(&self) -> Option<Arc<dyn Watch>> {
        self.scorer.watch()
    }

    fn needs_inputs(&self) -> bool {
        self.scorer.needs_inputs()
    }

    fn recent_inputs(&self) -> usize {
        self.scorer.recent_inputs()
    }

    fn history(&self) -> usize {
        self.scorer.history()
    }

    fn needs_received(&self) -> bool {
        self.scorer.needs_received()
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        self.scorer.fits(model)
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use crate::policy::part::Schedule;
    use crate::policy::testing::{after_prompt, toy};

    #[test]
    fn first_and_newest_of_the_toy_stay() {
        // knorm alone: 1 and 5
        assert_eq!(after_prompt("protect:sinks=1+knorm@2", &toy()), [[0, 5]]);
        assert_eq!(after_prompt("protect:sinks=1,recent=2+knorm@4", &toy()), [[0, 1, 4, 5]]);
        assert_eq!(after_prompt("protect:sinks=2,recent=2+knorm@3", &toy()), [[1, 4, 5]]);
        assert_eq!(after_prompt("protect:sinks=0+knorm@2", &toy()), after_prompt("knorm@2", &toy()));
    }

    /// "Newest" is of the whole prompt even where a chunk is scored alone.
    #[test]
    fn chunks_see_the_same_entries_protected() {
        assert_eq!(after_prompt("chunk:size=3+knorm@2", &toy()), [[1, 5]]);
        assert_eq!(after_prompt("protect:sinks=1,recent=2+chunk:size=3+knorm@2", &toy()), [[0, 5]]);
        assert_eq!(after_prompt("chunk:size=3+protect:sinks=0,recent=2+knorm@2", &toy()), [[1, 5]]);
    }

    #[test]
    fn the_rest_is_as_the_scorer_says() {
        let policy = Policy::parse("protect+h2o@50%").unwrap();
        assert!(policy.needs_received() && policy.schedule(0) == Schedule::EveryStep);
        assert_eq!(Policy::parse("protect+snapkv@50%").unwrap().window(465), 64);
        assert!(Policy::parse("decoding+protect+snapkv@50%").is_err());
    }
}
