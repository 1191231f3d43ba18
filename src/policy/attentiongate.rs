//! Attention-Gate: a small attention over the whole prompt decides for each token and kv head whether its entry stays
//! (Zeng et al. 2024, arXiv 2410.12876).
//!
//! What a layer's attention is given (its norm applied), x [T, d], goes through a reduced multi-head attention of h
//! heads of width w: softmax(q·kᵀ / √w)·v, without positions and without a mask, so that every token's gate knows the
//! whole prompt. From its outputs, heads side by side, one number for each kv head: g = σ(o·x + b). Entries with
//! g < `threshold` (½) leave, so how much stays depends on the text; the `recent` newest (1 at least) never do. Once,
//! after the prompt; generated tokens stay.
//!
//! `file` is a safetensors file (f32, f16 or bf16) with, for every layer N from 0 on, `layers.N.q.weight`,
//! `layers.N.k.weight` and `layers.N.v.weight` [h·w, d], `layers.N.o.weight` [kv heads, h·w] and `layers.N.o.bias`
//! [kv heads], all as of `torch.nn.Linear`, and h as the text `heads` in its metadata:
//! `save_file(tensors, path, metadata={"heads": "4"})`. The authors publish no weights, hence no layout either; without a
//! file the policy is refused.
//!
//! Theirs also hides what leaves from the prompt's own later rows; here the prompt is read densely and cut afterwards,
//! as with all policies that act after it. They do not say what a gate's head is under GQA: here a kv head. The gate
//! costs T² · h · w per layer, on one thread.

mod gates;

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Auto, Count, File, Key, Real};
use super::part::{LayerView, Moment, Part, Scorer, Scores, Sizes};
use super::registry::REGISTERED;
use gates::Gates;

static FILE: Key<Auto<File>> =
    Key::new("file", "gates of the model, a safetensors file", Auto(File, "none: refused"), None);
static THRESHOLD: Key<Real> = Key::new("threshold", "gate from which an entry stays", Real(0.0, 1.0), 0.5);
static RECENT: Key<Count> = Key::new("recent", "newest entries that always stay", Count(1, 1_000_000), 1);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "attentiongate",
    family: Family::Scorer,
    idea: "a small attention over the prompt opens or shuts each entry's gate (needs the model's gates)",
    paper: Some(Paper { title: "In-context KV-Cache Eviction for LLMs via Attention-Gate", arxiv: "2410.12876" }),
    budget: None,
    keys: &[&FILE, &THRESHOLD, &RECENT],
    build: |spec| {
        let Some(path) = spec.get(&FILE) else {
            return Part::Missing("needs gates trained for the model: `file=gates.safetensors`".into());
        };
        match Gates::read(&path) {
            Ok(gates) => Part::scorer(AttentionGate {
                gates,
                threshold: spec.get(&THRESHOLD),
                recent: spec.get(&RECENT) as usize,
            }),
            Err(why) => Part::Missing(format!("cannot use `{}`: {why}", path.display())),
        }
    },
};

struct AttentionGate {
    gates: Gates,
    threshold: f64,
    recent: usize,
}

impl Scorer for AttentionGate {
    fn decodes(&self) -> bool {
        false
    }

    fn needs_inputs(&self) -> bool {
        true
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        self.gates.fits(model)
    }

    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let heads = view.kv_heads();
        let open = self.gates.of(at.layer, view.inputs(), view.seen() as usize)?;
        let of = |kv_head: usize| view.positions(kv_head).iter().map(|&p| open[p as usize * heads + kv_head]).collect();
        let scores = Scores::free((0..heads).map(of).collect());
        Some(scores.keep_newest(self.recent).keep_from(self.threshold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::policy::tensor_file::tests::file;
    use crate::policy::testing::{Layer, after_prompt, random_layer, sizes};
    use rand::{Rng, SeedableRng};

    const HIDDEN: usize = 6;
    const HEADS: usize = 2;
    const WIDTH: usize = 3;

    type Named = Vec<(String, Vec<usize>, Vec<f32>)>;

    /// Gates of one layer with two kv heads, and a layer of 20 tokens with what it was given.
    fn drawn() -> (Layer, Named) {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let mut numbers = |n: usize| -> Vec<f32> { (0..n).map(|_| random.random_range(-1.5..1.5)).collect() };
        let inner = HEADS * WIDTH;
        let mut tensors: Named = ["q", "k", "v"]
            .map(|part| (format!("layers.0.{part}.weight"), vec![inner, HIDDEN], numbers(inner * HIDDEN)))
            .into();
        tensors.push(("layers.0.o.weight".into(), vec![2, inner], numbers(2 * inner)));
        tensors.push(("layers.0.o.bias".into(), vec![2], vec![0.1, -0.2]));
        let layer = Layer { inputs: numbers(20 * HIDDEN), ..random_layer(8, (2, 1), 4, 20) };
        (layer, tensors)
    }

    fn written(tensors: &Named, heads: &str) -> tempfile::NamedTempFile {
        let all: Vec<(&str, &[usize], &[f32])> = tensors.iter().map(|(n, s, v)| (&**n, &**s, &**v)).collect();
        file(&all, &[("heads", heads)])
    }

    /// Gate of token `t` and kv head `g`, one sum at a time.
    fn slow(layer: &Layer, tensors: &Named, t: usize, g: usize) -> f64 {
        let given = |t: usize| &layer.inputs[t * HIDDEN..][..HIDDEN];
        let through = |part: usize, t: usize, row: usize| -> f64 {
            let w = &tensors[part].2[row * HIDDEN..][..HIDDEN];
            w.iter().zip(given(t)).map(|(w, x)| *w as f64 * *x as f64).sum()
        };
        let mut z = tensors[4].2[g] as f64;
        for head in 0..HEADS {
            let rows = head * WIDTH..(head + 1) * WIDTH;
            let logit = |s: usize| {
                let dot: f64 = rows.clone().map(|r| through(0, t, r) * through(1, s, r)).sum();
                (dot / (WIDTH as f64).sqrt()).exp()
            };
            let sum: f64 = (0..20).map(logit).sum();
            for r in rows.clone() {
                let mixed: f64 = (0..20).map(|s| logit(s) / sum * through(2, s, r)).sum();
                z += tensors[3].2[g * HEADS * WIDTH + r] as f64 * mixed;
            }
        }
        1.0 / (1.0 + (-z).exp())
    }

    #[test]
    fn gates_are_those_of_plain_sums() {
        let (layer, tensors) = drawn();
        let file = written(&tensors, "2");
        let Part::Scorer(scorer) = built(&file) else { panic!("refused") };
        let scores = scorer.score(crate::policy::testing::moment(20, 0), 20, &layer).unwrap();
        for g in 0..2 {
            let gates: Vec<f64> = (0..20).map(|t| slow(&layer, &tensors, t, g)).collect();
            for (ours, gate) in scores.values[g].iter().zip(&gates) {
                assert!((*ours as f64 - gate).abs() < 1e-6, "{ours} {gate}");
            }
            assert!(gates.iter().any(|gate| *gate < 0.5) && gates.iter().any(|gate| *gate > 0.5), "{gates:?}");
        }
        for threshold in [0.3, 0.5, 0.6] {
            let kept =
                after_prompt(&format!("attentiongate:file={},threshold={threshold}", file.path().display()), &layer);
            for (g, kept) in kept.iter().enumerate() {
                let open = |t: &u32| *t == 19 || slow(&layer, &tensors, *t as usize, g) >= threshold;
                assert_eq!(kept, &(0..20).filter(open).collect::<Vec<u32>>(), "{threshold}");
            }
        }
    }

    fn built(file: &tempfile::NamedTempFile) -> Part {
        let spec = crate::policy::Spec::parse(&format!("attentiongate:file={}", file.path().display())).unwrap();
        (POLICY.build)(&spec.parts()[0])
    }

    /// Nothing open: the newest entry stays all the same.
    #[test]
    fn the_newest_never_leaves() {
        let (layer, mut tensors) = drawn();
        tensors[4].2 = vec![-1e3; 2];
        let file = written(&tensors, "2");
        assert_eq!(after_prompt(&format!("attentiongate:file={}", file.path().display()), &layer), [[19], [19]]);
        let three = format!("attentiongate:file={},recent=3", file.path().display());
        assert_eq!(after_prompt(&three, &layer), [[17, 18, 19], [17, 18, 19]]);
    }

    #[test]
    fn without_weights_or_with_those_of_another_model_it_is_refused() {
        let refused = |spec: &str| Policy::parse(spec).unwrap_err().to_string();
        assert!(refused("attentiongate").contains("needs gates trained for the model"));
        assert!(refused("attentiongate:file=/nowhere.safetensors").contains("cannot use `/nowhere.safetensors`"));
        let (_, tensors) = drawn();
        let wrong = |change: &dyn Fn(&mut Named), heads: &str| {
            let mut tensors = tensors.clone();
            change(&mut tensors);
            match built(&written(&tensors, heads)) {
                Part::Missing(why) => why,
                _ => panic!("accepted"),
            }
        };
        assert!(wrong(&|_| {}, "4").contains("cannot be divided among 4 heads"));
        assert!(wrong(&|_| {}, "many").contains("`heads`"));
        assert!(wrong(&|t| t.truncate(4), "2").contains("`layers.0.o.bias`"));
        assert!(wrong(&|t| t[1] = ("layers.0.k.weight".into(), vec![6, 3], vec![0.0; 18]), "2").contains("[6, 3]"));
        assert!(wrong(&|t| t[2].2[5] = f32::NAN, "2").contains("not finite"));
        assert!(wrong(&|t| t.clear(), "2").contains("`layers.0.q.weight`"));

        let file = written(&tensors, "2");
        let policy = Policy::parse(&format!("attentiongate:file={}", file.path().display())).unwrap();
        let model = Sizes { hidden: HIDDEN, ..sizes(1, 2, 4) };
        assert!(policy.fits(model).is_ok() && policy.needs_inputs());
        let others = [Sizes { layers: 2, ..model }, Sizes { kv_heads: 1, ..model }, Sizes { hidden: 8, ..model }];
        assert!(others.iter().all(|other| policy.fits(*other).is_err_and(|why| why.contains("1 layers"))));
    }
}
