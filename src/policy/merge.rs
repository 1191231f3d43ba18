//! Merging: an evicted value is folded into the kept entry whose key is most like its own (kvpress' MergingPress, after
//! token merging, Bolya et al. 2022, arXiv 2210.09461).
//!
//! Per kv head, for evicted e with the most cosine-similar kept key t (the first of equals): weight
//! w = max(cos, 0) · ‖v_e‖ / (‖v_e‖ + ‖v_t‖ + 1e-6), counted where cos ≥ `similarity`; then
//! v_t ← (v_t + Σ w·v_e) / (1 + Σ w). Keys stay as they are.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Key, Real};
use super::part::{LayerView, Moment, Part, Rewriter, Rewritten};
use super::registry::REGISTERED;

static SIMILARITY: Key<Real> = Key::new("similarity", "least cosine of two keys that merge", Real(0.0, 1.0), 0.0);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "merge",
    family: Family::Wrapper,
    idea: "fold evicted values into the kept entries with the most similar keys",
    paper: Some(Paper { title: "Token Merging: Your ViT But Faster", arxiv: "2210.09461" }),
    budget: None,
    keys: &[&SIMILARITY],
    build: |spec| Part::rewriter(Merge { similarity: spec.get(&SIMILARITY) as f32 }),
};

struct Merge {
    similarity: f32,
}

const EPS: f32 = 1e-6;

fn length(x: &[f32]) -> f32 {
    x.iter().map(|v| v * v).sum::<f32>().sqrt()
}

impl Rewriter for Merge {
    fn rewrite(&self, _at: Moment, kept: &[Vec<u32>], view: &dyn LayerView) -> Vec<Rewritten> {
        kept.iter().enumerate().map(|(kv_head, kept)| self.head(kv_head, kept, view)).collect()
    }
}

impl Merge {
    fn head(&self, kv_head: usize, kept: &[u32], view: &dyn LayerView) -> Rewritten {
        let dim = view.head_dim();
        let (keys, values) = (view.keys(kv_head), view.values(kv_head));
        let row = |of: &[f32], slot: u32| of[slot as usize * dim..(slot as usize + 1) * dim].to_vec();
        let unit = |slot: u32| {
            let key = row(&keys, slot);
            let scale = 1.0 / length(&key).max(EPS);
            key.into_iter().map(|x| x * scale).collect::<Vec<f32>>()
        };
        let units: Vec<f32> = kept.iter().flat_map(|&slot| unit(slot)).collect();
        let mut merged: Vec<f32> = kept.iter().flat_map(|&slot| row(&values, slot)).collect();
        let lengths: Vec<f32> = merged.chunks_exact(dim).map(length).collect();
        let mut weights = vec![0.0f32; kept.len()];
        let mut stays = kept.iter().peekable();
        for slot in 0..view.positions(kv_head).len() as u32 {
            if stays.next_if(|&&s| s == slot).is_some() || kept.is_empty() {
                continue;
            }
            let key = unit(slot);
            let cosine = |t: &[f32]| t.iter().zip(&key).map(|(a, b)| a * b).sum::<f32>();
            let mut best = (0, f32::NEG_INFINITY);
            for (t, unit) in units.chunks_exact(dim).enumerate() {
                let similar = cosine(unit);
                if similar > best.1 {
                    best = (t, similar);
                }
            }
            if best.1 >= self.similarity {
                let value = row(&values, slot);
                let own = length(&value);
                let weight = best.1.max(0.0) * own / (own + lengths[best.0] + EPS);
                weights[best.0] += weight;
                let into = &mut merged[best.0 * dim..(best.0 + 1) * dim];
                into.iter_mut().zip(&value).for_each(|(sum, v)| *sum += weight * v);
            }
        }
        for (value, weight) in merged.chunks_exact_mut(dim).zip(weights) {
            value.iter_mut().for_each(|v| *v /= 1.0 + weight);
        }
        Rewritten { values: Some(merged), ..Rewritten::default() }
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use crate::policy::testing::{close, decide, moment, toy};

    #[test]
    fn an_evicted_value_goes_to_the_most_similar_key() {
        // Kept: 0, 4, 5. Key 1 is most like 0 (cosine 1/√2), 2 and 3 most like 5 (0.1 and 0.2 of length √0.3).
        let decision = decide(&Policy::parse("merge+streaming@3:sinks=1").unwrap(), moment(6, 0), &toy()).unwrap();
        assert_eq!(decision.kept, [[0, 4, 5]]);
        let values = decision.rewritten[0].values.as_ref().unwrap();
        let w = std::f32::consts::FRAC_1_SQRT_2 / (1.0 + 5f32.sqrt());
        close(&values[..4], &[1.0 / (1.0 + w), (2.0 + w) / (1.0 + w), 0.0, 0.0]);
        close(&values[4..8], &[0.0, 0.0, 0.0, -2.0]);
        let root = 0.3f32.sqrt();
        let (two, three) = (0.1 / root * 3.0 / 3.5, 0.2 / root * 2.0 / 2.5);
        let sum = 1.0 + two + three;
        close(&values[8..], &[(0.5 + three) / sum, three / sum, (3.0 * two + three) / sum, three / sum]);
    }

    #[test]
    fn unlike_keys_do_not_merge() {
        let spec = "merge:similarity=0.9+streaming@3:sinks=1";
        let decision = decide(&Policy::parse(spec).unwrap(), moment(6, 0), &toy()).unwrap();
        close(&decision.rewritten[0].values.as_ref().unwrap()[..4], &[1.0, 2.0, 0.0, 0.0]);
    }
}
