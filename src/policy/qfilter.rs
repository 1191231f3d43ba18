//! Q-Filters: one direction per kv head tells which keys queries like (Godey et al. 2025, arXiv 2503.02812).
//!
//! Score of entry t, per kv head: −f·k_t (keys after rope); the highest n stay, nothing is protected. A filter f
//! points away from the queries of its kv head. Once, after the prompt.
//!
//! `file` names a safetensors file with an f32 tensor `q_filters` [layers, kv heads, D], as the authors publish them
//! per model (main direction of many texts' queries). `file=auto` needs none: f = minus the mean query after rope
//! of this very prompt from position 4 on, over the query heads of the kv head, to length one. That knows the prompt,
//! which the authors' filters do not, and reads all its queries.

use std::path::{Path, PathBuf};

use linkme::distributed_slice;

use super::amount::Amount;
use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Auto, File, Key};
use super::part::{LayerView, Moment, Part, Scorer, Scores, Sizes};
use super::registry::REGISTERED;
use super::tensor_file;

static FILE: Key<Auto<File>> =
    Key::new("file", "filters of the model, a safetensors file", Auto(File, "from this very prompt"), None);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "qfilter",
    family: Family::Scorer,
    idea: "keep keys that lie along the direction of the queries",
    paper: Some(Paper {
        title: "Q-Filters: Leveraging QK Geometry for Efficient KV Cache Compression",
        arxiv: "2503.02812",
    }),
    budget: Some(Amount::percent(50)),
    keys: &[&FILE],
    build: |spec| match spec.get(&FILE).map(|path| Filters::read(&path)).transpose() {
        Ok(filters) => Part::scorer(QFilter { filters }),
        Err(why) => Part::Missing(why),
    },
};

struct QFilter {
    filters: Option<Filters>,
}

/// Queries before this position say little about the others (attention sinks).
const SINKS: u32 = 4;

impl Scorer for QFilter {
    fn decodes(&self) -> bool {
        self.filters.is_some()
    }

    fn window(&self, prompt: usize) -> usize {
        if self.filters.is_some() { 0 } else { prompt }
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        self.filters.as_ref().map_or(Ok(()), |filters| filters.fit([model.layers, model.kv_heads, model.head_dim]))
    }

    fn score(&self, at: Moment, _budget: usize, view: &dyn LayerView) -> Option<Scores> {
        let dim = view.head_dim();
        let model = [at.layers, view.kv_heads(), dim];
        if self.filters.as_ref().is_some_and(|filters| filters.fit(model).is_err()) {
            return None;
        }
        let score = |kv_head: usize| {
            let filter = match &self.filters {
                Some(filters) => filters.of(at.layer, kv_head).to_vec(),
                None => calibrated(view, kv_head),
            };
            let along = |key: &[f32]| key.iter().zip(&filter).map(|(k, f)| (k * f) as f64).sum::<f64>();
            view.keys(kv_head).chunks_exact(dim).map(|key| -along(key) as f32).collect()
        };
        Some(Scores::free((0..view.kv_heads()).map(score).collect()))
    }
}

/// Minus the direction of the mean query [D]; of the whole prompt where it has no more than the sinks.
fn calibrated(view: &dyn LayerView, kv_head: usize) -> Vec<f32> {
    let (dim, end) = (view.head_dim(), view.newest() + 1);
    let mut sum = vec![0.0f64; dim];
    for head in kv_head * view.group()..(kv_head + 1) * view.group() {
        for query in view.queries(head, if end > SINKS { SINKS } else { 0 }..end).chunks_exact(dim) {
            sum.iter_mut().zip(query).for_each(|(sum, &q)| *sum += q as f64);
        }
    }
    let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-30);
    sum.iter().map(|x| (-x / length) as f32).collect()
}

struct Filters {
    path: PathBuf,
    /// Layers, kv heads, head dimension.
    shape: [usize; 3],
    values: Vec<f32>,
}

impl Filters {
    /// `model`: layers, kv heads, head dimension.
    fn fit(&self, model: [usize; 3]) -> Result<(), String> {
        let misfit =
            || format!("{} has filters of shape {:?}, the model needs {model:?}", self.path.display(), self.shape);
        (self.shape == model).then_some(()).ok_or_else(misfit)
    }

    /// Fails with a sentence about what is wrong with the file.
    fn read(path: &Path) -> Result<Self, String> {
        let read = tensor_file::read(path, "q_filters", "[layers, kv heads, head dimension]");
        let (shape, values) = read.map_err(|why| format!("cannot use `{}`: {why}", path.display()))?;
        Ok(Self { path: path.into(), shape, values })
    }

    fn of(&self, layer: usize, kv_head: usize) -> &[f32] {
        let [_, kv_heads, dim] = self.shape;
        &self.values[(layer * kv_heads + kv_head) * dim..][..dim]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::policy::testing::{close, drawn, score, sizes};
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    /// A file of one tensor, gone when dropped.
    struct Written(PathBuf);

    impl Written {
        fn new(tag: &str, name: &str, shape: &[usize], values: &[f32]) -> Self {
            let path = std::env::temp_dir().join(format!("attnscope-{}-{tag}.safetensors", std::process::id()));
            let data: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            let view = TensorView::new(Dtype::F32, shape.to_vec(), &data).unwrap();
            std::fs::write(&path, safetensors::serialize([(name, view)], None).unwrap()).unwrap();
            Self(path)
        }

        fn spec(&self) -> String {
            format!("qfilter@3:file={}", self.0.display())
        }
    }

    impl Drop for Written {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn filters_of_a_file_point_away_from_what_stays() {
        let file = Written::new("good", "q_filters", &[1, 2, 4], &[0.0, 0.0, -1.0, 0.0, 2.0, 0.0, 0.0, 0.0]);
        let layer = drawn(8);
        let scores = score(&file.spec(), &layer).values;
        close(&scores[0], &layer.keys[0].chunks(4).map(|k| k[2]).collect::<Vec<_>>());
        close(&scores[1], &layer.keys[1].chunks(4).map(|k| -2.0 * k[0]).collect::<Vec<_>>());
        let policy = Policy::parse(&file.spec()).unwrap();
        assert_eq!(policy.window(100), 0);
        assert!(policy.fits(sizes(1, 2, 4)).is_ok());
        let error = policy.fits(sizes(30, 3, 64)).unwrap_err().to_string();
        assert!(error.contains("[1, 2, 4]") && error.contains("[30, 3, 64]"), "{error}");
    }

    #[test]
    fn without_a_file_the_prompt_is_the_calibration() {
        let layer = drawn(8);
        let mut mean = [0.0f64; 4];
        for q in [2, 3].iter().flat_map(|&h| layer.queries[h].chunks(4).skip(4)) {
            mean.iter_mut().zip(q).for_each(|(m, &q)| *m += q as f64);
        }
        let length = mean.iter().map(|m| m * m).sum::<f64>().sqrt();
        let along = |k: &[f32]| k.iter().zip(mean).map(|(&k, m)| k as f64 * m / length).sum::<f64>() as f32;
        close(&score("qfilter@3", &layer).values[1], &layer.keys[1].chunks(4).map(along).collect::<Vec<_>>());
        assert_eq!(Policy::parse("qfilter").unwrap().window(100), 100);
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let refused = |spec: &str| Policy::parse(spec).unwrap_err().to_string();
        assert!(refused("qfilter:file=/nonexistent").contains("/nonexistent"));
        assert!(refused("qfilter:file=/").contains("is no file"));
        assert!(refused(&Written::new("name", "filters", &[1, 1, 1], &[0.0]).spec()).contains("no tensor"));
        assert!(refused(&Written::new("shape", "q_filters", &[1], &[0.0]).spec()).contains("kv heads"));
        assert!(refused(&Written::new("nan", "q_filters", &[1, 1, 1], &[f32::NAN]).spec()).contains("finite"));
    }
}
