//! The tensors of a decoder, each checked against the configuration. Nothing is decoded: they lie as in the file.

use super::config::Config;
use super::error::ModelError;
use super::names::{Names, Part};
use super::residual::{self, Residual};
use super::rope_layout::{half_split_bias, half_split_rows};
use super::tensor::Tensor;

/// Weights are `[out, in]`, norms and biases one row. `d` hidden, `H` heads, `G` key-value heads, `D` head size.
#[derive(Debug, Clone)]
pub struct LayerWeights {
    /// [d]
    pub attn_norm: Tensor,
    /// [H·D, d]
    pub q: Tensor,
    /// [G·D, d]
    pub k: Tensor,
    /// [G·D, d]
    pub v: Tensor,
    /// [H·D]
    pub q_bias: Option<Tensor>,
    /// [G·D]
    pub k_bias: Option<Tensor>,
    /// [G·D]
    pub v_bias: Option<Tensor>,
    /// [D]
    pub q_norm: Option<Tensor>,
    /// [D]
    pub k_norm: Option<Tensor>,
    /// [d, H·D]
    pub o: Tensor,
    /// [d]
    pub o_bias: Option<Tensor>,
    /// [d]
    pub post_attn_norm: Option<Tensor>,
    /// [d]
    pub mlp_norm: Tensor,
    /// [ff, d]
    pub gate: Tensor,
    /// [ff, d]
    pub up: Tensor,
    /// [d, ff]
    pub down: Tensor,
    /// [ff]
    pub gate_bias: Option<Tensor>,
    /// [ff]
    pub up_bias: Option<Tensor>,
    /// [d]
    pub down_bias: Option<Tensor>,
    /// [d]
    pub post_mlp_norm: Option<Tensor>,
}

#[derive(Debug, Clone)]
pub struct Weights {
    /// [V, d]
    pub embed: Tensor,
    pub layers: Vec<LayerWeights>,
    /// [d]
    pub final_norm: Tensor,
    /// [V, d]; `None` where the embedding table serves.
    pub head: Option<Tensor>,
    /// How depth is mixed.
    pub residual: Residual,
}

/// Anything that hands out tensors by name.
pub(super) trait TensorStore {
    fn tensor(&self, name: &str) -> Result<Option<Tensor>, ModelError>;
}

/// How the weights lie in the file.
pub(super) struct Layout {
    pub names: Names,
    /// Q and K rows are in interleaved rope order.
    pub interleaved: bool,
}

struct Loader<'a> {
    config: &'a Config,
    store: &'a dyn TensorStore,
    layout: &'a Layout,
}

impl Loader<'_> {
    fn get(&self, name: String, rows: usize, cols: usize) -> Result<Tensor, ModelError> {
        let Some(tensor) = self.store.tensor(&name)? else { return Err(ModelError::MissingTensor { name }) };
        if (tensor.rows, tensor.cols) != (rows, cols) {
            let (want_rows, want_cols) = (rows, cols);
            return Err(ModelError::TensorShape { name, rows: tensor.rows, cols: tensor.cols, want_rows, want_cols });
        }
        Ok(tensor)
    }

    fn weight(&self, layer: usize, part: Part, rows: usize, cols: usize) -> Result<Tensor, ModelError> {
        self.get(self.layout.names.layer(layer, part, "weight", self.config.sandwich_norms), rows, cols)
    }

    /// A row that is added or multiplied elementwise, so it cannot be quantised.
    fn vector(&self, name: String, len: usize) -> Result<Tensor, ModelError> {
        let tensor = self.get(name, 1, len)?;
        if tensor.dtype.is_quantized() {
            return Err(ModelError::TensorValues {
                name: tensor.name,
                problem: "norms and biases must not be quantised",
            });
        }
        Ok(tensor)
    }

    fn norm(&self, layer: usize, part: Part, len: usize, wanted: bool) -> Result<Option<Tensor>, ModelError> {
        let name = self.layout.names.layer(layer, part, "weight", self.config.sandwich_norms);
        wanted.then(|| self.vector(name, len)).transpose()
    }

    fn bias(&self, layer: usize, part: Part, len: usize, wanted: bool) -> Result<Option<Tensor>, ModelError> {
        let name = self.layout.names.layer(layer, part, "bias", self.config.sandwich_norms);
        wanted.then(|| self.vector(name, len)).transpose()
    }

    fn layer(&self, layer: usize) -> Result<LayerWeights, ModelError> {
        let c = self.config;
        let (d, ff, head) = (c.hidden, c.ff, c.head_dim);
        let (queries, keys) = (c.heads * head, c.kv_heads * head);
        let always = |norm: Option<Tensor>, part| {
            norm.ok_or_else(|| ModelError::MissingTensor {
                name: self.layout.names.layer(layer, part, "weight", false),
            })
        };
        let turn = |weight| if self.layout.interleaved { half_split_rows(weight, head) } else { weight };
        let turn_bias = |bias| if self.layout.interleaved { half_split_bias(bias, head) } else { bias };
        Ok(LayerWeights {
            attn_norm: always(self.norm(layer, Part::AttnNorm, d, true)?, Part::AttnNorm)?,
            q: turn(self.weight(layer, Part::Q, queries, d)?),
            k: turn(self.weight(layer, Part::K, keys, d)?),
            v: self.weight(layer, Part::V, keys, d)?,
            q_bias: self.bias(layer, Part::Q, queries, c.qkv_bias)?.map(turn_bias),
            k_bias: self.bias(layer, Part::K, keys, c.qkv_bias)?.map(turn_bias),
            v_bias: self.bias(layer, Part::V, keys, c.qkv_bias)?,
            q_norm: self.norm(layer, Part::QNorm, head, c.qk_norm)?,
            k_norm: self.norm(layer, Part::KNorm, head, c.qk_norm)?,
            o: self.weight(layer, Part::O, d, queries)?,
            o_bias: self.bias(layer, Part::O, d, c.o_bias)?,
            post_attn_norm: self.norm(layer, Part::PostAttnNorm, d, c.sandwich_norms)?,
            mlp_norm: always(self.norm(layer, Part::MlpNorm, d, true)?, Part::MlpNorm)?,
            gate: self.weight(layer, Part::Gate, ff, d)?,
            up: self.weight(layer, Part::Up, ff, d)?,
            down: self.weight(layer, Part::Down, d, ff)?,
            gate_bias: self.bias(layer, Part::Gate, ff, c.mlp_bias)?,
            up_bias: self.bias(layer, Part::Up, ff, c.mlp_bias)?,
            down_bias: self.bias(layer, Part::Down, d, c.mlp_bias)?,
            post_mlp_norm: self.norm(layer, Part::PostMlpNorm, d, c.sandwich_norms)?,
        })
    }
}

impl Weights {
    pub(super) fn load(config: &Config, store: &dyn TensorStore, layout: &Layout) -> Result<Weights, ModelError> {
        let loader = Loader { config, store, layout };
        let (vocab, d) = (config.vocab, config.hidden);
        Ok(Weights {
            embed: loader.get(layout.names.embed(), vocab, d)?,
            layers: (0..config.layers.len()).map(|layer| loader.layer(layer)).collect::<Result<_, _>>()?,
            final_norm: loader.vector(layout.names.final_norm(), d)?,
            head: (!config.tied_head).then(|| loader.get(layout.names.head(), vocab, d)).transpose()?,
            residual: match &layout.names {
                Names::Gguf => Residual::Plain,
                Names::Hf { body, .. } => residual::load(config, store, body)?,
            },
        })
    }

    /// Every tensor once, embedding first.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let ends = [Some(&self.embed), Some(&self.final_norm), self.head.as_ref()];
        ends.into_iter().flatten().chain(self.layers.iter().flat_map(LayerWeights::tensors))
    }
}

impl LayerWeights {
    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        let always =
            [&self.attn_norm, &self.q, &self.k, &self.v, &self.o, &self.mlp_norm, &self.gate, &self.up, &self.down];
        let sometimes = [
            &self.q_bias,
            &self.k_bias,
            &self.v_bias,
            &self.q_norm,
            &self.k_norm,
            &self.o_bias,
            &self.post_attn_norm,
            &self.gate_bias,
            &self.up_bias,
            &self.down_bias,
            &self.post_mlp_norm,
        ];
        always.into_iter().chain(sometimes.into_iter().flatten())
    }
}
