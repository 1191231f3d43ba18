//! KVzap: a small network tells from what a layer's attention is given how KVzip+ would rate the entry (2026, arXiv
//! 2601.07891).
//!
//! Score of entry t for each kv head: the layer's gate at the prompt's t-th input (after the attention's norm), a log of
//! KVzip+'s score. The highest stay up to the budget: once, after the prompt. Or, with `threshold`, all entries from it
//! on: then there is no budget, how much stays depends on the text, and generated tokens are judged, too. As in DMS the
//! `recent` newest (128) stay whatever their score; after every step the one that has become older is judged, by what
//! the attention was given when it came.
//!
//! `file` names the model's gates as their authors publish them: `layers.N.weight` and `layers.N.bias` [kv heads, hidden],
//! or `layers.N.0` and `layers.N.2` with GELU between. There are none for the models fetched here; without a file the
//! policy is refused, and `kvzip:plus=on` is what such gates imitate.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::gate::Gates;
use super::key::{Auto, Count, File, Key, Real};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores, Sizes};
use super::registry::REGISTERED;

static FILE: Key<Auto<File>> =
    Key::new("file", "gates of the model, a safetensors file", Auto(File, "none: refused"), None);
static THRESHOLD: Key<Auto<Real>> = Key::new(
    "threshold",
    "score from which entries stay, instead of the budget",
    Auto(Real(-1000.0, 1000.0), "the budget decides"),
    None,
);
static RECENT: Key<Count> =
    Key::new("recent", "newest entries that a threshold does not touch", Count(0, 1_000_000), 128);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "kvzap",
    family: Family::Scorer,
    idea: "a learned gate foresees what KVzip+ would keep (needs the model's gates)",
    paper: Some(Paper { title: "KVzap: Fast, Adaptive, and Faithful KV Cache Pruning", arxiv: "2601.07891" }),
    budget: Some(Amount::percent(50)),
    keys: &[&FILE, &THRESHOLD, &RECENT],
    build: |spec| {
        let Some(path) = spec.get(&FILE) else {
            return Part::Missing("needs gates trained for the model: `file=gates.safetensors`".into());
        };
        match Gates::read(&path) {
            Ok(gates) => {
                Part::scorer(KvZap { gates, threshold: spec.get(&THRESHOLD), recent: spec.get(&RECENT) as usize })
            }
            Err(why) => Part::Missing(why),
        }
    },
};

struct KvZap {
    gates: Gates,
    threshold: Option<f64>,
    recent: usize,
}

impl Scorer for KvZap {
    fn schedule(&self) -> Schedule {
        if self.threshold.is_some() { Schedule::EveryStep } else { Schedule::AfterPrefill }
    }

    /// Not at other steps than its own.
    fn decodes(&self) -> bool {
        false
    }

    fn sizes_itself(&self) -> bool {
        self.threshold.is_some()
    }

    fn recent_inputs(&self) -> usize {
        self.threshold.map_or(0, |_| self.recent + 1)
    }

    fn needs_inputs(&self) -> bool {
        true
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        self.gates.fits(model)
    }

    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        if at.step > 0 {
            return self.judge_next(at, view);
        }
        let (read, heads) = (view.seen() as usize, view.kv_heads());
        let said = self.gates.of(at.layer, view.inputs(), read)?;
        let of = |kv_head: usize| view.positions(kv_head).iter().map(|&p| said[p as usize * heads + kv_head]).collect();
        let scores = Scores::free((0..heads).map(of).collect());
        let Some(threshold) = self.threshold else { return Some(scores) };
        Some(scores.keep_newest(self.recent).keep_from(threshold))
    }
}

impl KvZap {
    /// All but the entry that has just become older than `recent` were judged or will be.
    fn judge_next(&self, at: Moment, view: &dyn LayerView) -> Option<Scores> {
        let position = view.newest().checked_sub(self.recent as u32)?;
        let said = self.gates.of(at.layer, view.input(position)?, 1)?;
        let mut scores = Scores::default();
        for (kv_head, said) in said.into_iter().enumerate() {
            let held = view.positions(kv_head);
            let (mut values, mut forced) = (vec![0.0; held.len()], vec![true; held.len()]);
            if let Ok(slot) = held.binary_search(&position) {
                (values[slot], forced[slot]) = (said, false);
            }
            scores.values.push(values);
            scores.forced.push(forced);
        }
        self.threshold.map(|threshold| scores.keep_from(threshold))
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use crate::policy::part::Sizes;
    use crate::policy::tensor_file::tests::file;
    use crate::policy::testing::{Layer, after_prompt, decide, moment, random_layer, sizes, toy};

    /// The gate says the first of two inputs; entry t was given (t mod 4, 0).
    fn zapped() -> (Layer, tempfile::NamedTempFile) {
        let inputs = (0..6).flat_map(|t| [(t % 4) as f32, 0.0]).collect();
        let gates = file(&[("layers.0.weight", &[1, 2], &[1.0, 5.0]), ("layers.0.bias", &[1], &[-1.0])], &[]);
        (Layer { inputs, ..toy() }, gates)
    }

    #[test]
    fn the_gate_rates_what_the_attention_was_given() {
        let (layer, gates) = zapped();
        let path = gates.path().display();
        // scores −1 0 1 2 −1 0
        assert_eq!(after_prompt(&format!("kvzap@3:file={path}"), &layer), [[2, 3, 5]]);
        assert_eq!(after_prompt(&format!("kvzap:file={path},threshold=1,recent=1"), &layer), [[2, 3, 5]]);
        assert_eq!(after_prompt(&format!("kvzap:file={path},threshold=-0.5,recent=0"), &layer), [[1, 2, 3, 5]]);
    }

    /// Scores −1 0 1 2 −1 0 1 2 …; the newest two wait.
    #[test]
    fn generated_tokens_are_judged_once_they_are_old_enough() {
        let (_, gates) = zapped();
        let inputs = (0..12).flat_map(|t| [(t % 4) as f32, 0.0]).collect();
        let mut layer = Layer { inputs, ..random_layer(2, (1, 2), 4, 12) };
        (layer.held, layer.newest) = (vec![(0..6).collect()], 5);
        let policy = Policy::parse(&format!("kvzap:file={},threshold=1,recent=2", gates.path().display())).unwrap();
        assert_eq!((policy.recent_inputs(), policy.budget(0, 6)), (3, None));
        for step in 0..=6u32 {
            if step > 0 {
                layer.step();
            }
            if let Some(decision) = decide(&policy, moment(6, step), &layer) {
                layer.keep(&decision);
            }
            let newest = 5 + step;
            let stays = |p: &u32| p % 4 >= 2 || p + 2 > newest;
            assert_eq!(layer.held[0], (0..=newest).filter(stays).collect::<Vec<_>>(), "step {step}");
        }
        let refused = |spec: &str| Policy::parse(&spec.replace("FILE", &gates.path().display().to_string())).is_err();
        assert!(
            refused("decoding:every=4+kvzap:file=FILE,threshold=1") && refused("adakv+kvzap:file=FILE,threshold=1")
        );
        assert!(!refused("adakv+kvzap:file=FILE"));
    }

    #[test]
    fn without_weights_it_is_refused() {
        let refused = |spec: &str| Policy::parse(spec).unwrap_err().to_string();
        assert!(refused("kvzap@50%").contains("needs gates"), "{}", refused("kvzap@50%"));
        assert!(refused("kvzap:file=/nowhere.safetensors").contains("cannot use"));
        let (_, gates) = zapped();
        let policy = Policy::parse(&format!("kvzap:file={}", gates.path().display())).unwrap();
        let model = Sizes { hidden: 2, ..sizes(1, 1, 4) };
        assert!(policy.fits(model).is_ok() && policy.needs_inputs());
        assert!(
            policy.fits(Sizes { layers: 30, ..model }).is_err() && policy.fits(Sizes { hidden: 3, ..model }).is_err()
        );
    }
}
