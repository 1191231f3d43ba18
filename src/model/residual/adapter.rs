//! Depth queries learned on a plain model: `depth.query` [L + 1, d], one row a target, and optionally `depth.norm` of the
//! same shape (1 where left out). The mix is multiplied by the number of its sources, so that queries of 0 are the model
//! itself, up to rounding.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::{DepthMixing, DepthQuery, Dialect};
use crate::model::config::Config;
use crate::model::error::{ModelError, Quoted};

/// Largest file that is read: two matrices of 4096 targets and 16,384 channels.
const MOST_BYTES: u64 = 1 << 30;

pub fn read(path: &Path, config: &Config) -> Result<DepthMixing, ModelError> {
    let io = |source| ModelError::Io { path: path.to_owned(), source };
    let wrong = |problem: String| ModelError::Safetensors { path: path.to_owned(), problem };
    if std::fs::metadata(path).map_err(io)?.len() > MOST_BYTES {
        return Err(wrong("it is larger than any file of depth queries".into()));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let quoted = |e: safetensors::SafeTensorError| wrong(Quoted::new(&e.to_string()).to_string());
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(quoted)?;
    let told = |key: &str| header.metadata().as_ref().and_then(|all| all.get(key).cloned());
    if told("format").as_deref() != Some("attnscope-depth-adapter") {
        return Err(wrong("its `format` is not attnscope-depth-adapter".into()));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(quoted)?;
    let (targets, hidden) = (2 * config.layers.len() + 1, config.hidden);
    let rows = |name: &str| -> Result<Option<Vec<f32>>, ModelError> {
        let Ok(view) = file.tensor(name) else { return Ok(None) };
        if view.shape() != [targets, hidden] {
            let (found, wanted) = (view.shape(), [targets, hidden]);
            return Err(wrong(format!("`{name}` is {found:?}, this model's is {wanted:?}")));
        }
        if view.dtype() != Dtype::F32 {
            return Err(wrong(format!("`{name}` is {:?}, it must be F32", view.dtype())));
        }
        let values: Vec<f32> =
            view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        match values.iter().all(|x| x.is_finite()) {
            true => Ok(Some(values)),
            false => Err(wrong(format!("`{name}` has values that are not finite"))),
        }
    };
    let queries = rows("depth.query")?.ok_or_else(|| wrong("it has no `depth.query`".into()))?;
    let norms = rows("depth.norm")?.unwrap_or_else(|| vec![1.0; targets * hidden]);
    let eps = match told("eps") {
        None => config.norm_eps,
        Some(text) => text
            .parse()
            .ok()
            .filter(|eps: &f32| eps.is_finite() && *eps > 0.0)
            .ok_or_else(|| wrong(format!("its `eps` is {}, it must be a number above 0", Quoted::new(&text))))?,
    };
    let folded: Vec<f32> = queries.iter().zip(&norms).map(|(w, norm)| w * norm).collect();
    Ok(DepthMixing::learned(folded.chunks_exact(hidden).map(<[f32]>::to_vec).collect(), eps))
}

impl DepthMixing {
    /// Over the embedding and all sublayer outputs; `keys` [L + 1][d], of target 0 too, which has one source.
    pub fn learned(keys: Vec<Vec<f32>>, eps: f32) -> Self {
        let sublayers = keys.len() - 1;
        let query = |key| Some(DepthQuery { key, bias: 0.0, gate: None, null: None });
        DepthMixing {
            dialect: Dialect::Learned,
            starts: (0..sublayers).collect(),
            queries: keys.into_iter().map(query).collect(),
            eps,
        }
    }
}
