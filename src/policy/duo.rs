//! DuoAttention: some heads retrieve and keep everything, the others stream (Xiao et al. 2024, arXiv 2410.10819).
//!
//! A file gives each kv head of the model a score, how much it retrieves: a safetensors file with the f32 tensor
//! `duo_head_scores` [layers, kv heads]. The round(stream · L · H) heads with the lowest scores (clipped to 0…1; equal
//! ones in order of layer and head) keep the first `sinks` and the newest `recent` entries, all others keep all. How
//! much is left depends on the prompt's length: there is no budget. Without a file there is nothing to go by, and the
//! policy is refused.
//!
//! sinks = 128, recent = 256, stream = 50 %: the authors', for models with grouped kv heads. Their gates are trained,
//! 2000 steps of distillation on retrieval tasks, and published as text tables to be converted; kvpress can replace
//! them by a proxy of mean queries on mean keys. The authors stream during the prompt, too; here, as in kvpress, the
//! prompt is read with all of the cache. With `every=step` streaming heads stay at sinks + recent while decoding.

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Auto, Choice, Count, File, Key, OfBudget, every};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores, Sizes};
use super::registry::REGISTERED;
use super::tensor_file;
use super::window::recency;

static FILE: Key<Auto<File>> =
    Key::new("file", "safetensors file with the scores of the heads", Auto(File, "none: the policy is refused"), None);
static STREAM: Key<OfBudget> =
    Key::new("stream", "kv heads of the model that stream, a share or a number", OfBudget, Amount::percent(50));
static SINKS: Key<Count> = Key::new("sinks", "first positions that a streaming head keeps", Count(0, 1_000_000), 128);
static RECENT: Key<Count> = Key::new("recent", "newest entries that a streaming head keeps", Count(1, 1_000_000), 256);
static EVERY: Key<Choice<Schedule>> = every(Schedule::AfterPrefill);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "duo",
    family: Family::Budget,
    idea: "heads that do not retrieve keep sinks and recent tokens only",
    paper: Some(Paper {
        title: "DuoAttention: Efficient Long-Context LLM Inference with Retrieval and Streaming Heads",
        arxiv: "2410.10819",
    }),
    budget: None,
    keys: &[&FILE, &STREAM, &SINKS, &RECENT, &EVERY],
    build: |spec| {
        let Some(file) = spec.get(&FILE) else {
            return Part::Missing(format!("needs `file=NAME`: safetensors with f32 `{TENSOR}` [layers, kv heads]"));
        };
        let scores: Vec<Vec<f32>> = match tensor_file::read(&file, TENSOR, "[layers, kv heads]") {
            Ok(([_, heads], scores)) => scores.chunks(heads).map(<[f32]>::to_vec).collect(),
            Err(why) => return Part::Missing(format!("cannot use `{}`: {why}", file.display())),
        };
        Part::scorer(Duo {
            streams: streaming(&scores, spec.get(&STREAM)),
            sinks: spec.get(&SINKS) as usize,
            recent: spec.get(&RECENT) as usize,
            schedule: spec.get(&EVERY),
        })
    },
};

const TENSOR: &str = "duo_head_scores";

struct Duo {
    /// [layers][kv heads]
    streams: Vec<Vec<bool>>,
    sinks: usize,
    recent: usize,
    schedule: Schedule,
}

impl Scorer for Duo {
    fn schedule(&self) -> Schedule {
        self.schedule
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        let Sizes { layers, kv_heads, .. } = model;
        let of_file = (self.streams.len(), self.streams.first().map_or(0, Vec::len));
        match of_file == (layers, kv_heads) {
            true => Ok(()),
            false => Err(format!(
                "the head scores of `duo` are for {} layers with {} kv heads each, the model has {layers} with {kv_heads}",
                of_file.0, of_file.1
            )),
        }
    }

    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let streams = self.streams.get(at.layer).filter(|streams| streams.len() == view.kv_heads())?;
        let scores = Scores::free(recency(view)).keep_first(self.sinks, view);
        let own = streams.iter().zip(&scores.forced).map(|(&streams, forced)| match streams {
            true => (forced.iter().filter(|&&sink| sink).count() + self.recent).min(forced.len()),
            false => forced.len(),
        });
        Some(Scores { own: Some(own.collect()), ..scores })
    }
}

/// Which heads stream [layers][kv heads].
fn streaming(scores: &[Vec<f32>], share: Amount) -> Vec<Vec<bool>> {
    let heads = || scores.iter().enumerate().flat_map(|(l, heads)| (0..heads.len()).map(move |h| (l, h)));
    let mut order: Vec<(usize, usize)> = heads().collect();
    order.sort_by(|a, b| scores[a.0][a.1].clamp(0.0, 1.0).total_cmp(&scores[b.0][b.1].clamp(0.0, 1.0)));
    let mut streams: Vec<Vec<bool>> = scores.iter().map(|heads| vec![false; heads.len()]).collect();
    let count = share.mean(order.len()).round_ties_even() as usize;
    order.into_iter().take(count).for_each(|(layer, head)| streams[layer][head] = true);
    streams
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{decide, moment, random_layer, sizes};
    use crate::policy::{Policy, Spec};
    use safetensors::tensor::{Dtype, TensorView, serialize};

    /// A file of its own for each test.
    fn written(name: &str, tensor: &str, shape: [usize; 2], scores: &[f32]) -> String {
        let bytes: Vec<u8> = scores.iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).unwrap();
        let path = std::env::temp_dir().join(format!("attnscope-duo-{}-{name}", std::process::id()));
        std::fs::write(&path, serialize([(tensor, view)], None).unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn heads_with_the_lowest_scores_stream() {
        let file = written("lowest", TENSOR, [2, 3], &[0.9, 0.1, 0.5, 0.2, 0.8, 0.7]);
        let policy = Policy::parse(&format!("duo:file={file},sinks=2,recent=3")).unwrap();
        let kept = |layer| {
            let at = crate::policy::part::Moment { layer, layers: 2, ..moment(10, 0) };
            decide(&policy, at, &random_layer(1, (3, 1), 4, 10)).unwrap().kept
        };
        let (all, some): (Vec<u32>, _) = ((0..10).collect(), vec![0, 1, 7, 8, 9]);
        assert_eq!(kept(0), [all.clone(), some.clone(), some.clone()]);
        assert_eq!(kept(1), [some, all.clone(), all]);
        assert!(policy.fits(sizes(2, 3, 4)).is_ok());
        assert!(policy.fits(sizes(2, 4, 4)).unwrap_err().contains("2 layers with 3 kv heads"));
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn shares_round_to_even_and_equal_scores_go_in_order() {
        let scores = vec![vec![0.5, 0.0], vec![0.0, 0.5], vec![-1.0, 2.0]];
        let count = |share: &str| streaming(&scores, share.parse().unwrap()).concat().iter().filter(|s| **s).count();
        assert_eq!([count("0%"), count("25%"), count("75%"), count("100%"), count("1")], [0, 2, 4, 6, 1]);
        assert_eq!(streaming(&scores, "2".parse().unwrap()), [[false, true], [true, false], [false, false]]);
    }

    #[test]
    fn without_a_usable_file_it_is_refused() {
        let why = |spec: &str| Policy::parse(spec).unwrap_err().to_string();
        assert!(why("duo").contains("needs `file=NAME`"), "{}", why("duo"));
        assert!(why("duo:file=/no/such/file").contains("cannot use `/no/such/file`: "));
        assert!(why("duo:file=/").contains("not a plain file"));
        for (i, (tensor, scores, expected)) in
            [("other", 0.5, "no tensor"), (TENSOR, f32::NAN, "not finite")].into_iter().enumerate()
        {
            let file = written(&format!("bad{i}"), tensor, [1, 2], &[0.1, scores]);
            assert!(why(&format!("duo:file={file}")).contains(expected));
            std::fs::write(&file, b"\xff\xff\xff\xff\xff\xff\xff\x7f{}").unwrap();
            assert!(why(&format!("duo:file={file}")).contains("not a safetensors file"));
            std::fs::remove_file(file).unwrap();
        }
        assert!(Spec::parse("duo:file=a\u{202e}b").is_err());
    }
}
