//! What should have been kept, known afterwards: the prompt entries that lane 0's own steps looked at most.
//!
//! Lane 0 runs anyway, so this costs a sum per step and asks for no oracle lane; and the best set can have exactly the
//! size of the one that it is compared with, in every layer and kv head. An `oracle` lane of as many tokens as there are
//! steps keeps the same sets where its budget is the same.

use super::report::Judgement;
use crate::engine::Core;
use crate::probe::coverage::{best, recall};

/// Lane 0's attention on the prompt so far.
#[derive(Debug, Default)]
pub struct Hindsight {
    steps: u32,
    /// Layers that may evict, each with the sums over steps of each kv head, mean over its query heads
    /// [layers][kv heads][P].
    layers: Vec<(usize, Vec<Vec<f32>>)>,
}

impl Hindsight {
    /// After a step.
    pub fn look(&mut self, core: &mut Core) {
        let (heads, kv_heads, prompt) = (core.config().heads, core.config().kv_heads, core.prompt_ids().len());
        if self.steps == 0 {
            let sums = || vec![vec![0.0; prompt]; kv_heads];
            self.layers = core.evicting_layers().map(|layer| (layer, sums())).collect();
        }
        self.steps += 1;
        let group = heads / kv_heads;
        let cache = core.lanes()[0].cache;
        let backend = core.backend();
        for (layer, sums) in &mut self.layers {
            for head in 0..heads {
                let row = backend.newest_row(cache, *layer, head);
                sums[head / group].iter_mut().zip(row).for_each(|(sum, &p)| *sum += p / group as f32);
            }
        }
    }

    /// Of the sets `kept` after the prompt `[layer][kv head][positions]`.
    pub fn judge(&self, kept: &[Vec<Vec<u32>>]) -> Option<Judgement> {
        let (mut recalls, mut covered, mut by_best, mut heads) = (Vec::new(), 0.0f64, 0.0f64, 0u32);
        for (layer, sums) in &self.layers {
            for (kv_head, (scores, kept)) in sums.iter().zip(&kept[*layer]).enumerate() {
                let all: f64 = scores.iter().map(|&s| f64::from(s)).sum();
                let mass = |set: &[u32]| set.iter().map(|&p| f64::from(scores[p as usize])).sum::<f64>();
                let best = best(scores, kept.len());
                // A row sums up to 1: what is not on the prompt is on what was generated.
                let generated = f64::from(self.steps) - all;
                covered += mass(kept) + generated;
                by_best += mass(&best) + generated;
                heads += 1;
                if kept.len() < scores.len() {
                    recalls.extend(recall(kept, &best).map(|recall| (recall, *layer, kv_head)));
                }
            }
        }
        let &(least, layer, kv_head) = recalls.iter().reduce(|least, r| if r.0 < least.0 { r } else { least })?;
        let share = |mass: f64| (mass / f64::from(heads) / f64::from(self.steps)) as f32;
        Some(Judgement {
            recall: recalls.iter().map(|r| r.0).sum::<f32>() / recalls.len() as f32,
            least,
            layer: layer as u32,
            kv_head: kv_head as u32,
            covered: share(covered),
            covered_by_best: share(by_best),
            of_best: (covered / by_best) as f32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sets_have_known_recall_and_mass() {
        // one layer left alone; in layer 1, 2 steps put 1.2 of their mass on the prompt, then 1.6
        let sums = vec![vec![0.5, 0.1, 0.4, 0.2], vec![0.0, 0.9, 0.7, 0.0]];
        let hindsight = Hindsight { steps: 2, layers: vec![(1, sums)] };
        let judge = |first: &[u32], second: &[u32]| hindsight.judge(&[vec![], vec![first.to_vec(), second.to_vec()]]);
        let best = judge(&[0, 2], &[1, 2]).unwrap();
        assert_eq!((best.recall, best.least, best.of_best), (1.0, 1.0, 1.0));
        let half = judge(&[0, 1], &[1, 2]).unwrap();
        assert_eq!((half.recall, half.least, half.layer, half.kv_head), (0.75, 0.5, 1, 0));
        // (0.6 + 0.8 + 1.6 + 0.4) / 4 against (0.9 + 0.8 + 1.6 + 0.4) / 4
        assert!((half.covered - 0.85).abs() < 1e-6 && (half.covered_by_best - 0.925).abs() < 1e-6);
        assert!((half.of_best - 0.85 / 0.925).abs() < 1e-6);
        // a head that keeps everything is not asked for recall, but what it covers counts
        let whole = judge(&[0, 1, 2, 3], &[0]).unwrap();
        assert_eq!((whole.recall, whole.kv_head), (0.0, 1));
        assert!((whole.covered - (2.0 + 0.4) / 4.0).abs() < 1e-6);
        assert!(judge(&[0, 1, 2, 3], &[0, 1, 2, 3]).is_none());
        assert!(Hindsight::default().judge(&[]).is_none());
    }
}
