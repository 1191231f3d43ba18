//! The decoder: straight-line model code over a backend. Shapes: R rows of the pass, d hidden, H query heads,
//! G kv heads, D head size, V vocabulary.

use std::sync::Arc;

use crate::backend::draw::Draw;
use crate::backend::{Attention, Backend, Buf, GateUp, LowRank, Matrix, Result, Vector};
use crate::model::alteration::Altered;
use crate::model::config::Config;
use crate::model::residual::{Carrier, Plan, Residual};
use crate::model::soft::{LayerChange, Place};
use crate::model::tensor::Tensor;
use crate::model::weights::{LayerWeights, Weights};

struct Layer {
    attention: Attention,
    attn_norm: Vector,
    qkv: Matrix,
    qkv_bias: Option<Vector>,
    o: Matrix,
    /// The same as stored [d, H·D].
    output: Tensor,
    o_bias: Option<Vector>,
    post_attn_norm: Option<Vector>,
    mlp_norm: Vector,
    gate_up: Matrix,
    gate_up_bias: Option<Vector>,
    down: Matrix,
    down_bias: Option<Vector>,
    post_mlp_norm: Option<Vector>,
}

/// x · wᵀ + bias
struct Product {
    name: &'static str,
    w: Matrix,
    x: Buf,
    bias: Option<Vector>,
}

/// A loaded model. Holds names of backend memory only.
pub struct Decoder {
    config: Config,
    layers: Vec<Layer>,
    final_norm: Vector,
    head: Matrix,
    /// Radians per position of each rope [D / 2].
    turns: Vec<Vec<f32>>,
    /// Residual stream and its normed copy [R, d].
    h: Buf,
    n: Buf,
    /// [R, (H + 2G)·D]
    qkv: Buf,
    /// [R, H·D]
    attn: Buf,
    /// [R, ff]
    ff: Buf,
    /// A sublayer's output before its own norm [R, d] (Gemma).
    y: Buf,
    /// Between what a sublayer writes and what the next one reads, where that is no sum.
    carrier: Option<Carrier>,
    /// The residual stream before a sublayer, of rows where an intervention takes back a part of it [R, d].
    aside: Buf,
}

impl Decoder {
    /// Hands all weights to the backend. `residual`: how sublayers' outputs are carried on. `progress(done, total)`
    /// counts layers.
    pub fn load(
        config: &Config,
        weights: &Weights,
        residual: &Residual,
        backend: &mut dyn Backend,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        let (h, g, d) = (config.heads, config.kv_heads, config.head_dim);
        backend.table(&weights.embed)?;
        let total = config.layers.len() as u64 + 1;
        let mut layers = Vec::new();
        for (i, w) in weights.layers.iter().enumerate() {
            progress(i as u64, total);
            layers.push(layer(config, i, w, backend)?);
        }
        progress(total - 1, total);
        let head = backend.matrix(&[weights.head.as_ref().unwrap_or(&weights.embed)])?;
        let final_norm = backend.vector(&[&weights.final_norm], config.norm_plus_one)?;
        progress(total, total);
        Ok(Self {
            layers,
            final_norm,
            head,
            turns: config.ropes.iter().map(|rope| rope.frequencies(config.head_dim)).collect(),
            h: backend.buffer(config.hidden),
            n: backend.buffer(config.hidden),
            qkv: backend.buffer((h + 2 * g) * d),
            attn: backend.buffer(h * d),
            ff: backend.buffer(config.ff),
            y: backend.buffer(config.hidden),
            carrier: Carrier::load(residual, config.hidden, backend)?,
            aside: backend.buffer(config.hidden),
            config: config.clone(),
        })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn sublayers(&self) -> usize {
        2 * self.layers.len()
    }

    /// How layer `l` attends, for maps computed outside a pass.
    pub fn attention(&self, layer: usize) -> &Attention {
        &self.layers[layer].attention
    }

    /// Rope of layer `l`: channel pair i of position p is turned by p · turns[i] radians [D / 2].
    pub fn turns(&self, layer: usize) -> &[f32] {
        &self.turns[self.layers[layer].attention.rope]
    }

    /// Output projection of layer `l`, as stored [d, H·D].
    pub fn output(&self, layer: usize) -> &Tensor {
        &self.layers[layer].output
    }

    /// How depth is mixed by Attention Residuals, where it is.
    pub fn depth_plan(&self) -> Option<&Plan> {
        self.carrier.as_ref().and_then(Carrier::plan)
    }

    /// Sublayers do not just add to one stream.
    pub fn mixes_depth(&self) -> bool {
        self.carrier.is_some()
    }

    /// Where the embedding goes.
    fn start(&self) -> Buf {
        self.carrier.as_ref().map_or(self.h, Carrier::embedding)
    }

    /// Where the output of a sublayer goes, and whether it replaces what is there.
    fn out(&self, sublayer: usize) -> (Buf, bool) {
        self.carrier.as_ref().map_or((self.h, false), |carrier| carrier.out(sublayer))
    }

    /// What target `target` reads becomes h.
    fn enter(&self, b: &mut dyn Backend, target: usize, altered: &[Altered]) {
        self.carrier.iter().for_each(|carrier| carrier.enter(b, target, self.h));
        altered.iter().for_each(|rows| rows.point(b, self.h, target));
        b.residual_point(self.h, target);
    }

    /// h = embedding · scale
    pub fn embed(&self, b: &mut dyn Backend) {
        self.embed_altered(b, &[]);
    }

    /// The same where rows are altered.
    pub fn embed_altered(&self, b: &mut dyn Backend, altered: &[Altered]) {
        b.embed(self.config.embed_scale, self.start());
        self.enter(b, 0, altered);
    }

    /// h = rows that are no tokens [R, d]
    pub fn fill(&self, b: &mut dyn Backend, rows: &[f32]) {
        b.fill(rows, self.start());
        self.enter(b, 0, &[]);
    }

    /// Sublayer `2l` is the attention of layer l, `2l + 1` its MLP.
    pub fn sublayer(&self, b: &mut dyn Backend, index: usize) {
        self.sublayer_altered(b, index, &[]);
    }

    /// The same where rows are altered.
    pub fn sublayer_altered(&self, b: &mut dyn Backend, index: usize, altered: &[Altered]) {
        self.run_sublayer(b, index, &LayerChange::default(), altered);
    }

    /// The same with the layer's weights changed, for all rows of the pass.
    pub fn sublayer_changed(&self, b: &mut dyn Backend, index: usize, change: &LayerChange) {
        self.run_sublayer(b, index, change, &[]);
    }

    fn run_sublayer(&self, b: &mut dyn Backend, index: usize, change: &LayerChange, altered: &[Altered]) {
        let layer = &self.layers[index / 2];
        b.in_layer(Some(index / 2));
        let (out, fresh) = self.out(index);
        altered.iter().for_each(|rows| rows.before(b, out, fresh, index, self.aside));
        if index.is_multiple_of(2) {
            self.attend(b, layer, change, altered)
        } else {
            self.mlp(b, layer, change)
        }
        altered.iter().for_each(|rows| rows.after(b, out, index, self.aside));
        self.enter(b, index + 1, altered);
        b.in_layer(None);
    }

    fn attend(&self, b: &mut dyn Backend, w: &Layer, change: &LayerChange, altered: &[Altered]) {
        b.rms_norm(self.h, w.attn_norm, self.config.norm_eps, self.n);
        b.matmul("q·k·v", w.qkv, self.n, w.qkv_bias, self.qkv);
        let (queries, keys) = (self.config.heads * self.config.head_dim, self.config.kv_heads * self.config.head_dim);
        for (place, first) in [(Place::Q, 0), (Place::K, queries), (Place::V, queries + keys)] {
            change.at(place).iter().for_each(|change| b.low_rank(change, self.n, first, self.qkv));
        }
        b.attend(&w.attention, self.qkv, self.attn);
        let (layer, dim) = (w.attention.layer, self.config.head_dim);
        altered.iter().for_each(|rows| rows.heads(b, self.attn, layer, dim));
        let out = Product { name: "attention out", w: w.o, x: self.attn, bias: w.o_bias };
        self.add(b, 2 * w.attention.layer, out, change.at(Place::O), w.post_attn_norm);
    }

    fn mlp(&self, b: &mut dyn Backend, w: &Layer, change: &LayerChange) {
        b.rms_norm(self.h, w.mlp_norm, self.config.norm_eps, self.n);
        let gate_up = GateUp { w: w.gate_up, changes: [change.at(Place::Gate), change.at(Place::Up)] };
        b.gated(gate_up, self.n, w.gate_up_bias, self.config.activation, self.ff);
        let out = Product { name: "down", w: w.down, x: self.ff, bias: w.down_bias };
        self.add(b, 2 * w.attention.layer + 1, out, change.at(Place::Down), w.post_mlp_norm);
    }

    /// h += x · wᵀ, through the sublayer's own norm where it has one; or where the carrier wants it.
    fn add(
        &self,
        b: &mut dyn Backend,
        sublayer: usize,
        product: Product,
        change: Option<&Arc<LowRank>>,
        norm: Option<Vector>,
    ) {
        let Product { name, w, x, bias } = product;
        let (out, fresh) = self.out(sublayer);
        match (norm, fresh) {
            (None, false) => b.matmul_add(name, w, x, bias, out),
            (None, true) => b.matmul(name, w, x, bias, out),
            (Some(_), _) => b.matmul(name, w, x, bias, self.y),
        }
        let to = if norm.is_some() { self.y } else { out };
        change.iter().for_each(|change| b.low_rank(change, x, 0, to));
        match (norm, fresh) {
            (None, _) => {}
            (Some(norm), false) => b.add_rms_norm(out, self.y, norm, self.config.norm_eps),
            (Some(norm), true) => b.rms_norm(self.y, norm, self.config.norm_eps, out),
        }
    }

    /// What the attention sublayer of the last pass was given, its norm applied; until another sublayer runs [R, d].
    pub fn attention_input(&self, b: &dyn Backend) -> Vec<f32> {
        b.read(self.n)
    }

    /// The residual stream of the last pass [R, d].
    pub fn residual(&self, b: &dyn Backend) -> Vec<f32> {
        b.read(self.h)
    }

    /// Final norm of all rows and logits [rows.len(), V] of the listed ones.
    pub fn head(&self, b: &mut dyn Backend, rows: std::ops::Range<usize>) {
        b.rms_norm(self.h, self.final_norm, self.config.norm_eps, self.n);
        if !rows.is_empty() {
            b.head(Some(self.head), self.n, rows, self.config.final_softcap);
        }
    }

    /// Final norm of all rows, and a draw from each of the first `draws.len()`.
    pub fn draw(&self, b: &mut dyn Backend, draws: &[Draw]) {
        b.rms_norm(self.h, self.final_norm, self.config.norm_eps, self.n);
        b.draw(self.head, self.n, 0..draws.len(), self.config.final_softcap, draws);
    }

    /// The final norm's output of the last pass [R, d].
    pub fn normed(&self, b: &dyn Backend) -> Vec<f32> {
        b.read(self.n)
    }

    /// Logits [rows, V] of final-normed vectors [rows, d].
    pub fn logits_of_normed(&self, b: &mut dyn Backend, normed: &[f32]) -> Result<()> {
        b.load(self.n, normed)?;
        b.head(Some(self.head), self.n, 0..normed.len() / self.config.hidden, self.config.final_softcap);
        b.run()
    }

    /// Logit lens: logits [rows, V] of residual vectors [rows, d].
    pub fn lens(&self, b: &mut dyn Backend, residual: &[f32]) -> Result<()> {
        b.load(self.h, residual)?;
        self.head(b, 0..residual.len() / self.config.hidden);
        b.run()
    }
}

fn layer(config: &Config, index: usize, w: &LayerWeights, b: &mut dyn Backend) -> Result<Layer> {
    let plus = config.norm_plus_one;
    let kind = config.layers[index];
    let optional = |b: &mut dyn Backend, t: &Option<Tensor>| t.as_ref().map(|t| b.vector(&[t], plus)).transpose();
    let qk_norm = match (&w.q_norm, &w.k_norm) {
        (Some(q), Some(k)) => Some((b.vector(&[q], plus)?, b.vector(&[k], plus)?, config.norm_eps)),
        _ => None,
    };
    let together = |b: &mut dyn Backend, parts: &[&Option<Tensor>]| -> Result<Option<Vector>> {
        let parts: Vec<&Tensor> = parts.iter().filter_map(|p| p.as_ref()).collect();
        if parts.is_empty() { Ok(None) } else { b.vector(&parts, false).map(Some) }
    };
    Ok(Layer {
        attention: Attention {
            layer: index,
            rope: kind.rope,
            scale: config.attn_scale,
            softcap: config.attn_softcap,
            window: kind.window,
            qk_norm,
        },
        attn_norm: b.vector(&[&w.attn_norm], plus)?,
        qkv: b.matrix(&[&w.q, &w.k, &w.v])?,
        qkv_bias: together(b, &[&w.q_bias, &w.k_bias, &w.v_bias])?,
        o: b.matrix(&[&w.o])?,
        output: w.o.clone(),
        o_bias: together(b, &[&w.o_bias])?,
        post_attn_norm: optional(b, &w.post_attn_norm)?,
        mlp_norm: b.vector(&[&w.mlp_norm], plus)?,
        gate_up: b.gate_up(&w.gate, &w.up)?,
        gate_up_bias: together(b, &[&w.gate_bias, &w.up_bias])?,
        down: b.matrix(&[&w.down])?,
        down_bias: together(b, &[&w.down_bias])?,
        post_mlp_norm: optional(b, &w.post_mlp_norm)?,
    })
}
