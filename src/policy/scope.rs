//! SCOPE: the prompt and what is generated have budgets of their own (Wu et al. 2024, arXiv 2412.13649).
//!
//! After the prompt nothing leaves; what another evictor kept of it stays for good: `snapkv@50%+scope`. Of the generated
//! entries the `recent` newest stay, and so many of the rest as the mode allows, those with the highest score: the
//! newest query's attention, mean over the query heads of a kv head.
//! - `slide`: `window` − `recent`, at every step.
//! - `adaptive`: ⌊step/`delta`⌋, at every step, so that the cache grows by one entry in `delta` steps.
//! - `discontinuous`: the same, but only at steps that `delta` divides; between them all stays.
//!
//! window = 1024, recent = 256, delta = 15, mode = slide: the authors'. Their adaptive formula reads ⌊step/(delta · L)⌋
//! with a counter that runs once per layer, so that the number of layers L cancels out; `window` does not bound it.
//! They select per query head on repeated keys.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Choice, Count, Key};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores, group_mean};
use super::registry::REGISTERED;

static MODE: Key<Choice<Mode>> = Key::new(
    "mode",
    "how much is kept of what is generated, and when it is chosen",
    Choice(&[("slide", Mode::Slide), ("adaptive", Mode::Adaptive), ("discontinuous", Mode::Discontinuous)]),
    Mode::Slide,
);
static WINDOW: Key<Count> = Key::new("window", "generated entries that `slide` keeps", Count(1, 1_000_000), 1024);
static RECENT: Key<Count> = Key::new("recent", "newest generated entries that stay", Count(1, 1_000_000), 256);
static DELTA: Key<Count> = Key::new("delta", "steps in which one more entry may stay", Count(1, 1_000_000), 15);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "scope",
    family: Family::Scorer,
    idea: "a budget of its own for what is generated; the prompt stays",
    paper: Some(Paper {
        title: "SCOPE: Optimizing Key-Value Cache Compression in Long-context Generation",
        arxiv: "2412.13649",
    }),
    budget: None,
    keys: &[&MODE, &WINDOW, &RECENT, &DELTA],
    build: |spec| {
        Part::scorer(Scope {
            mode: spec.get(&MODE),
            window: spec.get(&WINDOW) as usize,
            recent: spec.get(&RECENT) as usize,
            delta: spec.get(&DELTA) as u32,
        })
    },
};

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Slide,
    Adaptive,
    Discontinuous,
}

struct Scope {
    mode: Mode,
    window: usize,
    recent: usize,
    delta: u32,
}

impl Scorer for Scope {
    fn schedule(&self) -> Schedule {
        Schedule::EveryStep
    }

    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let generated = match self.mode {
            Mode::Slide => self.window.max(self.recent),
            Mode::Discontinuous if !at.step.is_multiple_of(self.delta) => return None,
            Mode::Adaptive | Mode::Discontinuous => self.recent + (at.step / self.delta) as usize,
        };
        let prompt = |kv_head| view.positions(kv_head).partition_point(|&p| (p as usize) < at.prompt);
        let held = |kv_head| view.positions(kv_head).len();
        let own: Vec<usize> = (0..view.kv_heads()).map(|head| held(head).min(prompt(head) + generated)).collect();
        if at.step == 0 || own.iter().enumerate().all(|(head, &own)| own == held(head)) {
            return None;
        }
        let newest = group_mean(view, |head| view.rows(head, view.newest()..view.newest() + 1));
        let mut scores = Scores::free(newest).keep_newest(self.recent);
        scores.forced.iter_mut().enumerate().for_each(|(head, forced)| forced[..prompt(head)].fill(true));
        Some(Scores { own: Some(own), ..scores })
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use crate::policy::testing::{Layer, moment, random_layer};

    /// Sizes after each step from a prompt of eight, and what is held in the end.
    fn run(spec: &str, steps: u32) -> (Vec<usize>, Vec<u32>) {
        let policy = Policy::parse(spec).unwrap();
        let whole = random_layer(3, (1, 2), 4, 40);
        let mut layer = Layer::from_queries(&whole.queries, whole.keys.clone(), whole.values.clone(), 4, 8);
        let mut sizes = Vec::new();
        for step in 0..=steps {
            if step > 0 {
                layer.step();
            }
            for stage in 0..policy.stages() {
                let decision = policy.decide(stage, moment(8, step), &layer.alone()).remove(0);
                decision.iter().for_each(|decision| layer.keep(decision));
            }
            sizes.push(layer.held[0].len());
        }
        (sizes, layer.held[0].clone())
    }

    #[test]
    fn generated_entries_have_their_own_budget() {
        let (sizes, held) = run("scope:window=3,recent=2", 6);
        assert_eq!(sizes, [8, 9, 10, 11, 11, 11, 11]);
        assert!(held.starts_with(&[0, 1, 2, 3, 4, 5, 6, 7]) && held.ends_with(&[12, 13]));
        assert_eq!(run("snapkv@4:window=2+scope:window=3,recent=2", 6).0, [4, 5, 6, 7, 7, 7, 7]);
    }

    #[test]
    fn it_grows_by_one_in_delta_steps() {
        assert_eq!(run("scope:mode=adaptive,recent=2,delta=3", 9).0, [8, 9, 10, 11, 11, 11, 12, 12, 12, 13]);
        assert_eq!(run("scope:mode=discontinuous,recent=2,delta=3", 9).0, [8, 9, 10, 11, 12, 13, 12, 13, 14, 13]);
    }

    #[test]
    fn the_newest_query_chooses() {
        // four positions, a prompt of one; row 3 attends to 1 more than to 2
        let row = |last: [f32; 4]| [[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.2, 0.3, 0.5, 0.0], last].concat();
        for (last, stays) in [([0.1, 0.4, 0.3, 0.2], 1), ([0.1, 0.3, 0.4, 0.2], 2)] {
            let mut layer = Layer::new(vec![row(last)], vec![vec![0.0; 8]], vec![vec![0.0; 8]], 2, 1);
            (0..3).for_each(|_| layer.step());
            let policy = Policy::parse("scope:window=2,recent=1").unwrap();
            let decision = policy.decide(0, moment(1, 3), &layer.alone()).remove(0).unwrap();
            assert_eq!(decision.kept, [[0, stays, 3]]);
        }
    }
}
