//! LU-KV: budgets of the heads from curves that were computed beforehand (2026, arXiv 2602.08585).
//!
//! `file`: safetensors with an f32 tensor `prune_ratios` [99, layers, kv heads], row i: what part each head gives away
//! where (i + 1) % are to leave (the authors' .npy array of this shape, converted). The row nearest to the budget's
//! share of the prompt is used; a kv head's budget is proportional to what it keeps there, the sum is the budget.
//! Without a file there is nothing to go by, and the policy is refused.
//!
//! The only published curves are for Llama 3.1 8B and kvpress' expected attention with ε = 0.02 behind 4 sinks and the
//! newest entry: `lukv:file=…+protect:sinks=4,recent=1+expected:epsilon=0.02`. kvpress does not scale a row to the budget.

use std::path::PathBuf;

use linkme::distributed_slice;

use super::{acting, divide_heads};
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Auto, File, Key};
use crate::policy::part::{Allocator, Divide, Level, Part, Scores, Sizes};
use crate::policy::registry::REGISTERED;
use crate::policy::spec::PartSpec;
use crate::policy::tensor_file;

static FILE: Key<Auto<File>> =
    Key::new("file", "safetensors file with the curves", Auto(File, "none: the policy is refused"), None);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "lukv",
    family: Family::Budget,
    idea: "heads share the budget by curves from a file",
    paper: Some(Paper {
        title: "Predicting Future Utility: Global Combinatorial Optimization for Task-Agnostic KV Cache Eviction",
        arxiv: "2602.08585",
    }),
    budget: None,
    keys: &[&FILE],
    build: |spec: &PartSpec| {
        let Some(path) = spec.get(&FILE) else {
            return Part::Missing(format!("needs `file=NAME`: safetensors with f32 `{TENSOR}` [99, layers, kv heads]"));
        };
        match tensor_file::read(&path, TENSOR, "[99, layers, kv heads]") {
            Ok((shape, _)) if shape[0] != ROWS => {
                Part::Missing(format!("cannot use `{}`: `{TENSOR}` has {} rows, not {ROWS}", path.display(), shape[0]))
            }
            Ok((shape, ratios)) => Part::allocator(LuKv { path, shape, ratios }),
            Err(why) => Part::Missing(format!("cannot use `{}`: {why}", path.display())),
        }
    },
};

const TENSOR: &str = "prune_ratios";
const ROWS: usize = 99;

struct LuKv {
    path: PathBuf,
    shape: [usize; 3],
    ratios: Vec<f32>,
}

impl Allocator for LuKv {
    fn level(&self) -> Level {
        Level::Layers
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        let model = [ROWS, model.layers, model.kv_heads];
        let misfit =
            || format!("{} has curves of shape {:?}, the model needs {model:?}", self.path.display(), self.shape);
        (self.shape == model).then_some(()).ok_or_else(misfit)
    }

    fn allocate(&self, ask: Divide<'_>, scores: &mut [Option<Scores>], budgets: &mut [Vec<usize>]) {
        let [_, layers, kv_heads] = self.shape;
        if layers != ask.at.layers {
            return;
        }
        let leaves = 100.0 * (1.0 - ask.mean / ask.at.prompt.max(1) as f64);
        let row = (leaves.round_ties_even().clamp(1.0, ROWS as f64) as usize - 1) * layers * kv_heads;
        let kept = |layer: usize| {
            let ratios = &self.ratios[row + layer * kv_heads..][..kv_heads];
            // a head that gives all away still has its newest entry
            ratios.iter().map(|&ratio| (1.0 - ratio as f64).clamp(1e-6, 1.0))
        };
        let weights: Vec<f64> = acting(budgets).flat_map(kept).collect();
        divide_heads(&weights, 0, scores, budgets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::policy::part::Moment;
    use crate::policy::testing::{Lane, moment, random_layer, sizes};
    use safetensors::tensor::{Dtype, TensorView, serialize};

    fn written(name: &str, shape: [usize; 3], ratio: impl Fn(usize, usize) -> f32) -> String {
        let heads = shape[1] * shape[2];
        let numbers = (0..shape[0] * heads).flat_map(|i| ratio(i / heads, i % heads).to_le_bytes());
        let bytes: Vec<u8> = numbers.collect();
        let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap();
        let path = std::env::temp_dir().join(format!("attnscope-lukv-{}-{name}", std::process::id()));
        std::fs::write(&path, serialize([(TENSOR, view)], None).unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Where a quarter stays, the four heads keep 10, 20, 30 and 40 %; elsewhere all the same.
    #[test]
    fn heads_keep_what_their_curves_say() {
        let file = written("curves", [99, 2, 2], |row, head| if row == 74 { 0.9 - head as f32 * 0.1 } else { 0.5 });
        let layers: Vec<_> = (0..2).map(|seed| random_layer(seed, (2, 1), 4, 40)).collect();
        let budgets = |budget: &str| {
            let policy = Policy::parse(&format!("lukv:file={file}+knorm@{budget}")).unwrap();
            assert!(
                policy.fits(sizes(2, 2, 4)).is_ok() && policy.fits(sizes(2, 3, 4)).unwrap_err().contains("[99, 2, 3]")
            );
            let decisions = policy.decide(0, Moment { layers: 2, ..moment(40, 0) }, &Lane(&layers));
            decisions.into_iter().flatten().flat_map(|decision| decision.budget).collect::<Vec<_>>()
        };
        assert_eq!(budgets("25%"), [4, 8, 12, 16]);
        assert_eq!(budgets("10"), [4, 8, 12, 16]);
        assert_eq!(budgets("50%"), [20; 4]);
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn without_usable_curves_it_is_refused() {
        let why = |spec: &str| Policy::parse(spec).unwrap_err().to_string();
        assert!(why("lukv+knorm@5").contains("needs `file=NAME`"));
        let file = written("short", [98, 1, 1], |_, _| 0.5);
        assert!(why(&format!("lukv:file={file}+knorm@5")).contains("has 98 rows"));
        std::fs::remove_file(file).unwrap();
    }
}
