//! SimLayerKV: layers that only look at the beginning and the recent past keep nothing else (Zhang et al. 2024,
//! arXiv 2410.13846).
//!
//! Mass of a layer: the attention of the last prompt query, mean over all query heads, on the first `sinks` entries and
//! on the `recent` entries before that query's own. Above `threshold` the layer is lazy and keeps its sinks and its
//! recent − 1 newest entries; other layers keep everything. Once, after the prompt; not on prompts of up to
//! sinks + recent + 1 tokens. How much stays depends on the prompt: there is no budget.
//!
//! sinks = 4, recent = 1024 (authors, kvpress). The threshold depends on the model: 0.9 (Llama 3, the default), 0.65
//! (Llama 2), 0.8 (Mistral), 0.85 (Qwen); kvpress' default of 1 never evicts. One query decides, as in kvpress.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Count, Key, Real};
use super::part::{LayerView, Moment, Part, Scorer, Scores};
use super::registry::REGISTERED;
use super::window::recency;

static THRESHOLD: Key<Real> =
    Key::new("threshold", "attention on sinks and recent entries above which a layer is lazy", Real(0.0, 1.0), 0.9);
static SINKS: Key<Count> = Key::new("sinks", "first positions that a lazy layer keeps", Count(0, 1_000_000), 4);
static RECENT: Key<Count> =
    Key::new("recent", "recent entries of a lazy layer, the next token's included", Count(2, 1_000_000), 1024);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "simlayer",
    family: Family::Budget,
    idea: "layers that look at sinks and recent tokens only keep no more than these",
    paper: Some(Paper {
        title: "SimLayerKV: A Simple Framework for Layer-Level KV Cache Reduction",
        arxiv: "2410.13846",
    }),
    budget: None,
    keys: &[&THRESHOLD, &SINKS, &RECENT],
    build: |spec| {
        Part::scorer(SimLayer {
            threshold: spec.get(&THRESHOLD),
            sinks: spec.get(&SINKS) as usize,
            recent: spec.get(&RECENT) as usize,
        })
    },
};

struct SimLayer {
    threshold: f64,
    sinks: usize,
    recent: usize,
}

impl Scorer for SimLayer {
    fn window(&self, _prompt: usize) -> usize {
        1
    }

    fn score(&self, _at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let long = |kv_head| view.positions(kv_head).len() > self.sinks + self.recent + 1;
        if !(0..view.kv_heads()).all(long) || self.mass(view) as f64 <= self.threshold {
            return None;
        }
        let scores = Scores::free(recency(view)).keep_first(self.sinks, view);
        let sinks = scores.forced.iter().map(|forced| forced.iter().filter(|&&forced| forced).count());
        let own = sinks.map(|sinks| sinks + self.recent - 1).collect();
        Some(Scores { own: Some(own), ..scores })
    }
}

impl SimLayer {
    fn mass(&self, view: &dyn LayerView) -> f32 {
        let heads = view.kv_heads() * view.group();
        let mass = |head| {
            let held = view.positions(head / view.group());
            let row = view.rows(head, view.newest()..view.newest() + 1);
            let sinks = held.partition_point(|&p| (p as usize) < self.sinks);
            let before = held.len() - 1;
            row[..sinks].iter().sum::<f32>() + row[before - self.recent..before].iter().sum::<f32>()
        };
        (0..heads).map(mass).sum::<f32>() / heads as f32
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use crate::policy::testing::{after_prompt, decide, moment, toy};

    /// Mean last row of the toy: .183 .148 .137 .183 .195 .156; the sink and the two before the last hold .560.
    #[test]
    fn the_toy_is_lazy_below_its_mass() {
        let left_alone = |spec| decide(&Policy::parse(spec).unwrap(), moment(6, 0), &toy()).is_none();
        assert_eq!(after_prompt("simlayer:sinks=1,recent=2,threshold=0.56", &toy()), [[0, 5]]);
        assert!(left_alone("simlayer:sinks=1,recent=2,threshold=0.561"));
        assert_eq!(after_prompt("simlayer:sinks=0,recent=3,threshold=0.514", &toy()), [[4, 5]]);
        assert!(left_alone("simlayer:sinks=0,recent=3,threshold=0.515"));
        assert!(left_alone("simlayer:sinks=1,recent=4,threshold=0"), "too short");
    }

    #[test]
    fn there_is_no_budget_to_act_on() {
        assert!(Policy::parse("simlayer").unwrap().budget(0, 100).is_none());
        assert!(Policy::parse("simlayer@50%").is_err());
        assert!(Policy::parse("adakv+simlayer").is_err());
    }
}
