//! What a policy may look at: a layer, a lane, and what the lane would hold after reading on.

use std::borrow::Cow;
use std::ops::Range;

use super::watch::Watch;
use crate::model::soft::SoftTokens;

/// Where the pass stands when a scorer is asked.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// 0 = after the prompt, s ≥ 1 = after the s-th decoded token.
    pub step: u32,
    /// Prompt length T, tokens. Budgets in percent refer to it.
    pub prompt: usize,
    /// Layers in the model, and which one is being asked about.
    pub layers: usize,
    pub layer: usize,
}

/// Sizes of a model, for data that were made for one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the MLP.
    pub ff: usize,
}

/// What a scorer may look at in one layer. Slots are the entries now held, ascending by position.
/// Everything is computed when asked for; a scorer pays for what it reads.
pub trait LayerView {
    fn kv_heads(&self) -> usize;
    /// Query heads per kv head; query head h belongs to kv head h / group().
    fn group(&self) -> usize;
    fn head_dim(&self) -> usize;
    /// Factor on q·k.
    fn scale(&self) -> f32;
    /// Original positions of the held slots, ascending [n].
    fn positions(&self, kv_head: usize) -> &[u32];
    /// Keys after rope (and after QK-norm) [n, D].
    fn keys(&self, kv_head: usize) -> Cow<'_, [f32]>;
    /// Values [n, D].
    fn values(&self, kv_head: usize) -> Cow<'_, [f32]>;
    /// L2 norms of the keys [n].
    fn key_norms(&self, kv_head: usize) -> Vec<f32>;
    /// Attention rows of query head `head` for queries at positions `rows`, over the held slots of its kv head
    /// `[rows, n]` row-major. Softmax over all visible slots with the model's own scale, cap and masks; 0 where
    /// a query does not see a slot. After a step only the newest row exists.
    fn rows(&self, head: usize, rows: Range<u32>) -> Vec<f32>;
    /// Position of the newest query.
    fn newest(&self) -> u32;
    /// Tokens that the lane has read so far. Where only a part of the layer is shown, its newest query is older.
    fn seen(&self) -> u32 {
        self.newest() + 1
    }
    /// Column sums of query head `head` over every row since the start [n].
    fn received(&self, head: usize) -> &[f32];
    /// In how many of the newest `rows` rows of query head `head` each slot received at least the average, 1 / slots
    /// that the row's query sees [n]. As many rows as [`Scorer::history`](super::part::Scorer::history) asks for.
    fn above_average(&self, head: usize, rows: usize) -> Vec<u32>;
    /// What the layer's attention was given at every position of the prompt, its norm applied [P, hidden]. After the
    /// prompt, and only where [`Scorer::needs_inputs`](super::part::Scorer::needs_inputs) says so; else empty.
    fn inputs(&self) -> &[f32];
    /// What it was given at `position` [hidden]. After a step, as far back as
    /// [`Scorer::recent_inputs`](super::part::Scorer::recent_inputs) asks for; else `None`.
    fn input(&self, position: u32) -> Option<&[f32]>;
    /// What is added to every logit on the held slots, nats [n]; empty where nothing is.
    fn offsets(&self, kv_head: usize) -> &[f32];
    /// Queries of head `head` at positions `rows` after rope (and after QK-norm) [rows, D]. After the prompt only.
    fn queries(&self, head: usize, rows: Range<u32>) -> Vec<f32>;
    /// Rope: channel pair (i, i + D/2) of position p is turned by p · turns[i] radians [D/2].
    fn turns(&self) -> &[f32];
    /// ‖W_O,h · v_t‖ in norm `norm` of the held values of query head `head`, W_O,h its columns of the output projection [n].
    fn projected(&self, head: usize, norm: Norm) -> Vec<f32>;
    /// What `watch` has made of all rows of query head `head`, held entries only [n]. After the prompt only: from the
    /// reading of the prompt where nothing has left since, else from rows that are computed again.
    fn watched(&self, layer: usize, head: usize, watch: &dyn Watch) -> Vec<f32>;
}

/// How long a vector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// Σ |x|
    L1,
    /// √Σ x²
    L2,
}

/// All layers of a lane's cache, looked at one after the other, and the text that it stands for.
pub trait LaneView {
    /// Shows layer `layer` to `look`; false where policies leave the layer alone (a sliding
    /// window of its own, or another layer's keys).
    fn layer(&self, layer: usize, look: &mut dyn FnMut(&dyn LayerView)) -> bool;
    /// Shows each of the first `layers` layers to `look` in any order, several at a time where nothing has to be
    /// computed for it; those left alone are passed over.
    fn layers(&self, layers: usize, look: &(dyn Fn(usize, &dyn LayerView) + Sync)) {
        (0..layers).for_each(|layer| {
            self.layer(layer, &mut |view| look(layer, view));
        });
    }
    /// Ids read so far, those of evicted entries included.
    fn tokens(&self) -> &[u32];
    /// Most positions that the model can read.
    fn context(&self) -> usize;
    /// The model's tokenizer.
    fn text(&self) -> &dyn Text;
    /// The most probable next token. After the prompt only.
    fn next(&self) -> u32;
    /// Mean over the prompt's tokens of the cosine between the residual stream before and after each layer's attention
    /// [layers]. Only where [`Allocator::needs_cosines`](super::part::Allocator::needs_cosines) says so, else empty.
    fn cosines(&self) -> &[f32];
    /// Lets `work` read further tokens; afterwards all is as it was. After the prompt only.
    fn ahead(&self, start: Start<'_>, work: &mut dyn FnMut(&mut dyn Ahead));
}

/// Where reading ahead starts.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// Behind all that is held.
    Behind,
    /// Behind these slots of what is held, ascending [layer][kv head]; `None` keeps all of a layer.
    Kept(&'a [Option<Vec<Vec<u32>>>]),
    /// At position 0, with nothing held.
    Nothing,
}

/// A lane that reads tokens which will be forgotten again. Queries and rows are those of the tokens read here.
pub trait Ahead {
    /// Reads `tokens` behind what is held; the logits after the last one [V], empty where they could not be read.
    fn read(&mut self, tokens: &[u32]) -> Vec<f32>;
    /// Reads rows that are no tokens. The changes that they bring act on them alone.
    fn read_soft(&mut self, soft: &SoftTokens);
    /// The lane as it stands now.
    fn lane(&self, look: &mut dyn FnMut(&dyn LaneView));
    /// L2 norms of what the attention of each layer was given, for every row read here [layers][rows].
    fn input_norms(&self) -> &[Vec<f32>];
}

/// Tokens to text and back.
pub trait Text {
    /// Ids of a text, without anything that a prompt would begin or end with.
    fn encode(&self, text: &str) -> Vec<u32>;
    /// The text of one token as it is, control characters included.
    fn spell(&self, id: u32) -> String;
    /// Marks something instead of being text.
    fn is_special(&self, id: u32) -> bool;
}
