//! Fast KVzip: a narrow gate with learned sinks tells from what a layer's attention is given how KVzip would rate the
//! entry (Kim et al. 2026, arXiv 2601.17668).
//!
//! x is what the layer's attention is given (its norm applied). For each kv head one key k and for each of its query
//! heads g one query q_g, all of width w (16), RMS-normed with learned weights: z_g = q_g·k / √w + b_g, and against
//! every learned sink s of the head, z_gs = q_g·s / √w. Score: the mean over g of 1 / (1 + Σ_s e^(z_gs − z_g)).
//!
//! As for `kvzip`, heads compete for one budget: of all layers (`share=all`) or of each (`share=layer`). The first `sinks`
//! = 4 stay, and the `window` newest: ⌊T/50⌋ of a prompt of T tokens, 4096 from 32,000 on, as in kvpress. Once, after
//! the prompt; generated tokens stay. The authors' own code also cuts while the prompt is read, which this does not.
//!
//! `file` is a safetensors file (f32, f16 or bf16) with the authors' tensors for every layer N: `layers.N.` before
//! `q_proj.weight` [kv heads · g · w, hidden], `q_proj.bias`, `k_proj.weight` [kv heads · w, hidden], `q_norm.weight` and
//! `k_norm.weight` [w], `k_base` [kv heads, 1, sinks, w] and `b` [kv heads, 1, g]. They publish `.pt` files, for Qwen and
//! Gemma models; from one: `save_file({f"layers.{n}.{k}": v.contiguous() for n, gate in
//! enumerate(torch.load(pt)["module"]) for k, v in gate.items()}, path)`. Without a file the policy is refused.

mod gates;

use std::sync::Arc;

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Auto, Count, File, Key};
use super::part::{LaneView, LayerView, Moment, Part, Scorer, Scores, Sizes};
use super::registry::REGISTERED;
use super::surveyed::{SHARE, Share, Surveyed, held};
use gates::Gates;

static FILE: Key<Auto<File>> =
    Key::new("file", "gates of the model, a safetensors file", Auto(File, "none: refused"), None);
static SINKS: Key<Count> = Key::new("sinks", "first positions that always stay", Count(0, 1_000_000), 4);
static WINDOW: Key<Auto<Count>> = Key::new(
    "window",
    "newest entries that always stay",
    Auto(Count(0, 1_000_000), "one in 50; 4096 for prompts from 32000 tokens on"),
    None,
);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "fastkvzip",
    family: Family::Scorer,
    idea: "a narrow gate with learned sinks foresees what KVzip would keep (needs the model's gates)",
    paper: Some(Paper {
        title: "Fast KVzip: Efficient and Accurate LLM Inference with Gated KV Eviction",
        arxiv: "2601.17668",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&FILE, &SHARE, &SINKS, &WINDOW],
    build: |spec| {
        let Some(path) = spec.get(&FILE) else {
            return Part::Missing("needs gates trained for the model: `file=gates.safetensors`".into());
        };
        match Gates::read(&path) {
            Ok(gates) => Part::scorer(FastKvZip {
                gates,
                share: spec.get(&SHARE),
                sinks: spec.get(&SINKS) as usize,
                window: spec.get(&WINDOW).map(|window| window as usize),
            }),
            Err(why) => Part::Missing(format!("cannot use `{}`: {why}", path.display())),
        }
    },
};

struct FastKvZip {
    gates: Gates,
    share: Share,
    sinks: usize,
    window: Option<usize>,
}

impl Scorer for FastKvZip {
    fn decodes(&self) -> bool {
        false
    }

    fn needs_inputs(&self) -> bool {
        true
    }

    fn surveys(&self) -> bool {
        true
    }

    fn shares(&self) -> bool {
        true
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        self.gates.fits(model)
    }

    fn survey(&self, at: Moment, mean: f64, lane: &dyn LaneView) -> Option<Arc<dyn Scorer>> {
        let mut layers = held(lane, at.layers);
        for (layer, slot) in layers.iter_mut().enumerate() {
            let Some(known) = slot else { continue };
            let mut rated = false;
            lane.layer(layer, &mut |view| {
                let (read, heads) = (view.seen() as usize, view.kv_heads());
                let Some(said) = self.gates.of(layer, view.inputs(), read) else { return };
                let of =
                    |(head, held): (usize, &Vec<u32>)| held.iter().map(|&p| said[p as usize * heads + head]).collect();
                let newest = self.window.unwrap_or(if read < 32_000 { read / 50 } else { 4096 });
                known.scores = Scores::free(known.positions.iter().enumerate().map(of).collect()).keep_newest(newest);
                known.keep_first(self.sinks);
                rated = true;
            });
            if !rated {
                *slot = None;
            }
        }
        self.share.divide(&mut layers, mean);
        Some(Arc::new(Surveyed { layers }))
    }

    fn score(&self, _: Moment, _: usize, _: &dyn LayerView) -> Option<Scores> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::policy::tensor_file::tests::file;
    use crate::policy::testing::{Layer, decide, moment, random_layer, sizes};
    use rand::{Rng, SeedableRng};

    const HIDDEN: usize = 5;
    const WIDTH: usize = 3;
    const GROUP: usize = 2;
    const BASES: usize = 4;

    type Named = Vec<(String, Vec<usize>, Vec<f32>)>;

    /// Gates of one layer with two kv heads, and a layer of 60 tokens with what it was given.
    fn drawn() -> (Layer, Named) {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| random.random_range(-1.5..1.5)).collect() };
        let shapes: [(&str, Vec<usize>); 7] = [
            ("q_proj.weight", vec![2 * GROUP * WIDTH, HIDDEN]),
            ("q_proj.bias", vec![2 * GROUP * WIDTH]),
            ("k_proj.weight", vec![2 * WIDTH, HIDDEN]),
            ("q_norm.weight", vec![WIDTH]),
            ("k_norm.weight", vec![WIDTH]),
            ("k_base", vec![2, 1, BASES, WIDTH]),
            ("b", vec![2, 1, GROUP]),
        ];
        let tensors =
            shapes.map(|(name, shape)| (format!("layers.0.{name}"), shape.clone(), numbers(shape.iter().product())));
        (Layer { inputs: numbers(60 * HIDDEN), ..random_layer(8, (2, GROUP), 4, 60) }, tensors.into())
    }

    fn written(tensors: &Named) -> tempfile::NamedTempFile {
        let all: Vec<(&str, &[usize], &[f32])> = tensors.iter().map(|(n, s, v)| (&**n, &**s, &**v)).collect();
        file(&all, &[])
    }

    /// Score of token `t` in kv head `head`, as the authors' module computes it.
    fn slow(layer: &Layer, tensors: &Named, t: usize, head: usize) -> f64 {
        let x = &layer.inputs[t * HIDDEN..][..HIDDEN];
        let at = |part: usize, i: usize| tensors[part].2[i] as f64;
        let through =
            |part: usize, row: usize| -> f64 { (0..HIDDEN).map(|i| at(part, row * HIDDEN + i) * x[i] as f64).sum() };
        let normed = |x: [f64; WIDTH], weight: usize| -> [f64; WIDTH] {
            let rms = (x.iter().map(|x| x * x).sum::<f64>() / WIDTH as f64 + 1e-6).sqrt();
            std::array::from_fn(|i| x[i] / rms * at(weight, i))
        };
        let dot =
            |a: [f64; WIDTH], b: [f64; WIDTH]| (0..WIDTH).map(|i| a[i] * b[i]).sum::<f64>() / (WIDTH as f64).sqrt();
        let key = normed(std::array::from_fn(|i| through(2, head * WIDTH + i)), 4);
        let score = |g: usize| {
            let first = (head * GROUP + g) * WIDTH;
            let query = normed(std::array::from_fn(|i| through(0, first + i) + at(1, first + i)), 3);
            let own = dot(query, key) + at(6, head * GROUP + g);
            let base = |s: usize| dot(query, std::array::from_fn(|i| at(5, (head * BASES + s) * WIDTH + i)));
            1.0 / (1.0 + (0..BASES).map(|s| (base(s) - own).exp()).sum::<f64>())
        };
        (0..GROUP).map(score).sum::<f64>() / GROUP as f64
    }

    /// 60 of 120 entries: sinks and the newest of both heads, then the best of both together.
    #[test]
    fn heads_compete_by_what_their_gates_say() {
        let (layer, tensors) = drawn();
        let file = written(&tensors);
        let policy = Policy::parse(&format!("fastkvzip@50%:file={}", file.path().display())).unwrap();
        let decision = decide(&policy, moment(60, 0), &layer).unwrap();
        let mut all = Vec::new();
        for head in 0..2 {
            for t in 0..60usize {
                let score = slow(&layer, &tensors, t, head);
                assert!((decision.scores.values[head][t] as f64 - score).abs() < 1e-6);
                all.push((!(4..59).contains(&t), score, head, t as u32));
            }
        }
        all.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)));
        let mut kept = vec![Vec::new(); 2];
        all[..60].iter().for_each(|(.., head, t)| kept[*head].push(*t));
        kept.iter_mut().for_each(|kept| kept.sort());
        assert_ne!(kept[0].len(), 30);
        assert_eq!(decision.kept, kept);
    }

    #[test]
    fn without_weights_or_with_those_of_another_model_it_is_refused() {
        let refused = |spec: &str| Policy::parse(spec).unwrap_err().to_string();
        assert!(refused("fastkvzip").contains("needs gates trained for the model"));
        let (_, tensors) = drawn();
        let wrong = |change: &dyn Fn(&mut Named)| {
            let mut tensors = tensors.clone();
            change(&mut tensors);
            let file = written(&tensors);
            refused(&format!("fastkvzip:file={}", file.path().display()))
        };
        assert!(wrong(&|t| drop(t.pop())).contains("no tensor `layers.0.b`"));
        assert!(wrong(&|t| (t[3].1, t[3].2) = (vec![0], Vec::new())).contains("`layers.0.q_norm.weight`"));
        assert!(wrong(&|t| (t[4].1, t[4].2) = (vec![2], vec![1.0; 2])).contains("`layers.0.k_norm.weight`"));
        assert!(wrong(&|t| (t[5].1, t[5].2) = (vec![2, 1, 2, 2], vec![1.0; 8])).contains("`layers.0.k_base`"));
        assert!(wrong(&|t| (t[6].1, t[6].2) = (vec![2, 1, 3], vec![1.0; 6])).contains("`layers.0.b`"));
        assert!(wrong(&|t| (t[2].1, t[2].2) = (vec![4, HIDDEN], vec![1.0; 20])).contains("`layers.0.k_proj.weight`"));
        let file = written(&tensors);
        let policy = Policy::parse(&format!("fastkvzip:file={}", file.path().display())).unwrap();
        let model = Sizes { hidden: HIDDEN, heads: 4, ..sizes(1, 2, 4) };
        assert!(policy.fits(model).is_ok());
        let others = [
            Sizes { layers: 2, ..model },
            Sizes { hidden: 8, ..model },
            Sizes { heads: 6, ..model },
            Sizes { kv_heads: 4, ..model },
        ];
        assert!(others.iter().all(|other| policy.fits(*other).is_err()));
    }
}
