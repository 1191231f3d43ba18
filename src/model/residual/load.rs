//! Depth queries from the tensors of a checkpoint, and which dialect they speak: told by the tensors' names first, by
//! `attnres_mode` second.

use super::{AttnResKeys, DepthMixing, DepthQuery, Dialect, Gate, Residual};
use crate::model::config::Config;
use crate::model::error::ModelError;
use crate::model::tensor::{DType, Tensor};
use crate::model::weights::TensorStore;

/// Kimi K3's `model_type`s: its Attention Residuals can be read, the rest of it cannot be run.
pub const K3_TYPES: [&str; 3] = ["kimi_k3", "kimi_linear", "kimi_k3_text"];

/// How a checkpoint calls the parts of a query.
struct Naming {
    /// Before `{proj,norm}.weight` in a layer: attention, MLP.
    layer: [&'static str; 2],
    /// The same of the output.
    output: &'static str,
}

const COMMON: Naming = Naming { layer: ["attn_res_", "mlp_res_"], output: "final_res_" };
const K3: Naming = Naming { layer: ["self_attention_res_", "mlp_res_"], output: "output_attn_res_" };

struct Loader<'a> {
    store: &'a dyn TensorStore,
    /// Before `layers.0…`
    body: &'a str,
    naming: Naming,
    hidden: usize,
}

impl Loader<'_> {
    fn target(&self, target: usize, sublayers: usize) -> String {
        match target {
            t if t == sublayers => format!("{}{}", self.body, self.naming.output),
            t => format!("{}layers.{}.{}", self.body, t / 2, self.naming.layer[t % 2]),
        }
    }

    fn numbers(&self, name: String, count: usize) -> Result<Option<Vec<f32>>, ModelError> {
        numbers(self.store, &name, count)
    }

    fn one(&self, name: String) -> Result<Option<f32>, ModelError> {
        Ok(self.numbers(name, 1)?.map(|x| x[0]))
    }

    fn gate(&self, prefix: &str) -> Result<Option<Gate>, ModelError> {
        for unsupported in ["gate_proj.weight", "gate_proj.bias"] {
            let name = format!("{prefix}{unsupported}");
            if self.store.tensor(&name)?.is_some() {
                return Err(unread(&name, "a gate that depends on the input (sigmoid_vector)"));
            }
        }
        let sigmoid = self.one(format!("{prefix}gate_logit"))?.map(|x| 1.0 / (1.0 + (-x).exp()));
        match sigmoid {
            Some(gate) => Ok(Some(gate)),
            None => self.one(format!("{prefix}alpha")),
        }
    }

    fn query(&self, target: usize, sublayers: usize) -> Result<Option<DepthQuery>, ModelError> {
        let prefix = self.target(target, sublayers);
        let Some(w) = self.numbers(format!("{prefix}proj.weight"), self.hidden)? else { return Ok(None) };
        let name = format!("{prefix}norm.weight");
        let norm = self.numbers(name.clone(), self.hidden)?.ok_or(ModelError::MissingTensor { name })?;
        let null = match target {
            t if t == sublayers => None,
            t => {
                let part = if t % 2 == 0 { "attn" } else { "mlp" };
                self.numbers(format!("{}layers.{}.{part}_null_source", self.body, t / 2), self.hidden)?
            }
        };
        Ok(Some(DepthQuery {
            key: w.iter().zip(&norm).map(|(w, norm)| w * norm).collect(),
            bias: self.one(format!("{prefix}bias"))?.unwrap_or(0.0),
            gate: self.gate(&prefix)?,
            null,
        }))
    }

    fn has(&self, name: &str) -> Result<bool, ModelError> {
        Ok(self.store.tensor(&format!("{}{name}", self.body))?.is_some())
    }
}

fn unread(name: &str, what: &str) -> ModelError {
    ModelError::Depth { name: name.to_owned(), what: what.to_owned() }
}

/// All numbers of a tensor, whatever its shape; `None` where the checkpoint has none of that name.
pub fn numbers(store: &dyn TensorStore, name: &str, count: usize) -> Result<Option<Vec<f32>>, ModelError> {
    let Some(tensor) = store.tensor(name)? else { return Ok(None) };
    let name = name.to_owned();
    if tensor.rows * tensor.cols != count {
        let (rows, cols) = (tensor.rows, tensor.cols);
        return Err(ModelError::TensorShape { name, rows, cols, want_rows: 1, want_cols: count });
    }
    let values = values(&tensor);
    match values.iter().all(|x| x.is_finite()) {
        true => Ok(Some(values)),
        false => Err(ModelError::TensorValues { name, problem: "what mixes depth must be finite" }),
    }
}

/// f32, f16 or bf16.
fn values(tensor: &Tensor) -> Vec<f32> {
    let data = tensor.data();
    let halves = |f: fn(u16) -> f32| data.chunks_exact(2).map(|b| f(u16::from_le_bytes([b[0], b[1]]))).collect();
    match tensor.dtype {
        DType::F16 => halves(|b| half::f16::from_bits(b).to_f32()),
        DType::BF16 => halves(|b| half::bf16::from_bits(b).to_f32()),
        _ => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    }
}

/// `body` stands before `layers.0…`.
pub fn load(config: &Config, store: &dyn TensorStore, body: &str) -> Result<Residual, ModelError> {
    let (layers, hidden) = (config.layers.len(), config.hidden);
    let sublayers = 2 * layers;
    let has = |name: &str| Ok::<_, ModelError>(store.tensor(&format!("{body}{name}"))?.is_some());
    let naming = match (has("layers.0.mlp_res_proj.weight")?, has("layers.0.self_attention_res_proj.weight")?) {
        (_, true) => K3,
        (true, false) => COMMON,
        (false, false) if config.attnres.is_some() => {
            return Err(ModelError::MissingTensor { name: format!("{body}layers.0.mlp_res_proj.weight") });
        }
        (false, false) => {
            return Ok(super::hyper::load(config, store, body)?.map_or(Residual::Plain, Residual::Hyper));
        }
    };
    let loader = Loader { store, body, naming, hidden };
    if loader.has("layers.0.v_res_proj.weight")? {
        return Err(unread("v_res_proj", "a mix of its own for values"));
    }
    if loader.has("layers.0.attn_pre_gate.weight")? {
        return Err(unread("attn_pre_gate", "sources that are gated before they are mixed"));
    }
    let keys = config.attnres.clone().unwrap_or_default();
    let dialect = dialect(&loader, &keys)?;
    let mut queries = (0..=sublayers).map(|target| loader.query(target, sublayers)).collect::<Result<Vec<_>, _>>()?;
    let needed = if dialect == Dialect::Faithful { sublayers + 1 } else { sublayers };
    if let Some(target) = (1..needed).find(|&target| queries[target].is_none()) {
        return Err(ModelError::MissingTensor { name: format!("{}proj.weight", loader.target(target, sublayers)) });
    }
    if dialect != Dialect::Faithful {
        queries[sublayers] = None;
    }
    let starts = starts(dialect, layers, &keys)?;
    Ok(Residual::AttnRes(DepthMixing { dialect, starts, queries, eps: config.norm_eps }))
}

fn dialect(loader: &Loader<'_>, keys: &AttnResKeys) -> Result<Dialect, ModelError> {
    if loader.has("output_attn_res_proj.weight")? || loader.has("final_res_proj.weight")? {
        return Ok(Dialect::Faithful);
    }
    if loader.has("layers.0.attn_res_bias")? {
        return Ok(Dialect::Cumulative);
    }
    match keys.mode.as_deref() {
        Some("delta") => Ok(Dialect::Delta),
        Some("delta_block") => Ok(Dialect::DeltaBlock),
        Some("block" | "full") | None => {
            Err(ModelError::MissingTensor { name: format!("{}final_res_proj.weight", loader.body) })
        }
        Some(other) => Err(unread("attnres_mode", other)),
    }
}

/// First sublayer of each block.
fn starts(dialect: Dialect, layers: usize, keys: &AttnResKeys) -> Result<Vec<usize>, ModelError> {
    let full = keys.mode.as_deref() == Some("full") || dialect == Dialect::Delta;
    if full {
        return Ok((0..2 * layers).collect());
    }
    let per_block = match (keys.layers_per_block, keys.blocks) {
        (Some(layers), _) => layers,
        (None, blocks) => layers.div_ceil(blocks.unwrap_or(8).clamp(1, layers)),
    };
    if per_block == 0 {
        return Err(unread("attn_res_block_size", "blocks of no layers"));
    }
    Ok((0..2 * layers).step_by(per_block.saturating_mul(2)).collect())
}
