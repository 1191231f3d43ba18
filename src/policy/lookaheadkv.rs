//! LookaheadKV: learned soft tokens behind the prompt look back at it as the answer will (2026, arXiv 2603.10899).
//!
//! n_look rows P, learned, enter the first layer behind the prompt at positions T, T + 1, …: they attend to the prompt
//! and to each other, and every linear weight is W + α/r · B·A for them alone. Score of entry t in head h:
//! (1/n_look) Σ_i A[h, P_i, t], softmax over all that P_i sees; then as in SnapKV pooled along the prompt (`kernel`,
//! `pool`) and averaged over the query heads of a kv head. The highest n stay, nothing is protected; P is forgotten.
//! Once, after the prompt; generated tokens stay. The paper does not say whether it pools; `kernel=1` does not.
//!
//! `file` is a safetensors file (f32, f16 or bf16) of three kinds of tensors:
//! - `lookahead.embeddings` [n_look, hidden]: P as it enters the first layer, where embeddings are scaled (Gemma) after
//!   that.
//! - `…layers.N.MODULE.lora_A.weight` [r, in] and `…layers.N.MODULE.lora_B.weight` [out, r], as in peft's
//!   `adapter_model.safetensors` (what stands before `layers.` does not matter, nor does `.default` before `.weight`),
//!   MODULE one of `self_attn.q_proj`, `k_proj`, `v_proj`, `o_proj`, `mlp.gate_proj`, `up_proj`, `down_proj`. Weights
//!   are those of the Hugging Face layout, also where the model itself comes from a GGUF file. Which modules have a pair
//!   is free, but the same in all layers; r may differ from pair to pair.
//! - nothing else; α is the text `lora_alpha` in the metadata, left out where there are no pairs.
//!
//! From peft: `save_file({"lookahead.embeddings": P, **get_peft_model_state_dict(model)}, path, metadata={"lora_alpha":
//! "32"})`, tensors contiguous and on the CPU. The paper has n_look = 32, r = 8, α = 32, all seven modules. Without a
//! file the policy is refused; `oracle` is what such a file imitates, `laq` comes close without one.

mod weights;

use std::sync::Arc;

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Auto, File, Key};
use super::part::{LaneView, LayerView, Moment, Part, Scorer, Scores, Sizes, Start, group_mean};
use super::registry::REGISTERED;
use super::snapkv::{KERNEL, POOL, Pool};
use super::surveyed::{Surveyed, held};
use weights::Lookahead;

static FILE: Key<Auto<File>> =
    Key::new("file", "soft tokens trained for the model, a safetensors file", Auto(File, "none: refused"), None);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "lookaheadkv",
    family: Family::Scorer,
    idea: "learned soft tokens foresee what the answer will look at (needs those of the model)",
    paper: Some(Paper {
        title: "LookaheadKV: Fast and Accurate KV Cache Eviction by Glimpsing into the Future without Generation",
        arxiv: "2603.10899",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&FILE, &KERNEL, &POOL],
    build: |spec| {
        let Some(path) = spec.get(&FILE) else {
            return Part::Missing("needs soft tokens trained for the model: `file=lookahead.safetensors`".into());
        };
        match Lookahead::read(&path) {
            Ok(lookahead) => {
                Part::scorer(LookaheadKv { lookahead, kernel: spec.get(&KERNEL) as usize, pool: spec.get(&POOL) })
            }
            Err(why) => Part::Missing(format!("cannot use `{}`: {why}", path.display())),
        }
    },
};

struct LookaheadKv {
    lookahead: Lookahead,
    kernel: usize,
    pool: Pool,
}

impl Scorer for LookaheadKv {
    fn decodes(&self) -> bool {
        false
    }

    fn surveys(&self) -> bool {
        true
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        self.lookahead.fits(model)
    }

    fn survey(&self, at: Moment, _mean: f64, lane: &dyn LaneView) -> Option<Arc<dyn Scorer>> {
        let mut layers = held(lane, at.layers);
        let first = lane.tokens().len() as u32;
        lane.ahead(Start::Behind, &mut |ahead| {
            ahead.read_soft(&self.lookahead.soft);
            ahead.lane(&mut |lane| {
                for (layer, known) in layers.iter_mut().enumerate() {
                    let Some(known) = known else { continue };
                    let lengths: Vec<usize> = known.positions.iter().map(Vec::len).collect();
                    lane.layer(layer, &mut |view| {
                        known.scores.values =
                            group_mean(view, |head| self.foreseen(view, head, first, lengths[head / view.group()]));
                    });
                }
            });
        });
        Some(Arc::new(Surveyed { layers }))
    }

    fn score(&self, _: Moment, _: usize, _: &dyn LayerView) -> Option<Scores> {
        None
    }
}

impl LookaheadKv {
    /// Pooled mean of the rows from position `first` on, over the `own` slots before them [own].
    fn foreseen(&self, view: &dyn LayerView, head: usize, first: u32, own: usize) -> Vec<f32> {
        let n = view.positions(head / view.group()).len();
        let rows = view.rows(head, first..view.newest() + 1);
        let mut mean = vec![0.0f32; own];
        for row in rows.chunks_exact(n.max(1)) {
            mean.iter_mut().zip(row).for_each(|(m, a)| *m += a);
        }
        let count = (rows.len() / n.max(1)).max(1) as f32;
        mean.iter_mut().for_each(|m| *m /= count);
        self.pool.along(&mean, self.kernel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::policy::tensor_file::tests::file;
    use crate::policy::testing::{after_prompt, random_layer, sizes};

    fn soft(count: usize) -> tempfile::NamedTempFile {
        file(&[("lookahead.embeddings", &[count, 5], &vec![0.5; count * 5])], &[])
    }

    /// Rows 20 to 22 of a layer that has read 20, pooled over three.
    #[test]
    fn what_the_soft_rows_look_at_stays() {
        let mut layer = random_layer(6, (2, 2), 4, 24);
        layer.held = vec![(0..20).collect(); 2];
        layer.newest = 19;
        let file = soft(3);
        for (kernel, half) in [(1, 0usize), (3, 1)] {
            let kept = after_prompt(&format!("lookaheadkv@25%:file={},kernel={kernel}", file.path().display()), &layer);
            for (kv_head, kept) in kept.iter().enumerate() {
                let mean = |t: usize| -> f32 {
                    let cells =
                        [2 * kv_head, 2 * kv_head + 1].map(|h| [20, 21, 22].map(|i| layer.attention[h][i * 24 + t]));
                    cells.as_flattened().iter().sum()
                };
                let pooled = |t: usize| (t.saturating_sub(half)..(t + half + 1).min(20)).map(mean).sum::<f32>();
                let mut order: Vec<u32> = (0..20).collect();
                order.sort_by(|&a, &b| pooled(b as usize).total_cmp(&pooled(a as usize)));
                let mut expected = order[..5].to_vec();
                expected.sort_unstable();
                assert_eq!(kept, &expected, "kernel {kernel}");
            }
        }
    }

    #[test]
    fn without_weights_it_is_refused() {
        let refused = |spec: &str| Policy::parse(spec).unwrap_err().to_string();
        assert!(refused("lookaheadkv@50%").contains("needs soft tokens trained for the model"));
        assert!(refused("lookaheadkv:file=/nowhere").contains("cannot use `/nowhere`"));
        let file = soft(2);
        let policy = Policy::parse(&format!("lookaheadkv:file={}", file.path().display())).unwrap();
        let model = Sizes { hidden: 5, ..sizes(4, 2, 4) };
        assert!(policy.fits(model).is_ok());
        assert!(policy.fits(Sizes { hidden: 6, ..model }).is_err_and(|why| why.contains("width of 5")));
    }
}
