//! What a policy is made of. A chain (`a+b`) is a list of parts; each part plays one role.
//!
//! The engine calls a scorer after the prompt and, where it says so, after every step; the allocator turns
//! scores into a number of entries per kv head; the entries that lose leave the cache.

use std::borrow::Cow;
use std::ops::Range;

/// When a scorer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Once, after the prompt: generated tokens are always kept.
    AfterPrefill,
    /// After the prompt and after every step, whenever more than the budget is held.
    EveryStep,
}

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
    /// `[rows, n]` row-major. Softmax over all visible slots with the model's own scale, cap and masks.
    /// After a step only the newest row exists.
    fn rows(&self, head: usize, rows: Range<u32>) -> Vec<f32>;
    /// Position of the newest query.
    fn newest(&self) -> u32;
    /// Column sums of query head `head` over every row since the start [n].
    fn received(&self, head: usize) -> &[f32];
}

/// Scores of one layer: higher stays. `forced` slots stay whatever their score (a mask, never a sentinel score).
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// [kv heads][n]
    pub values: Vec<Vec<f32>>,
    /// [kv heads][n]
    pub forced: Vec<Vec<bool>>,
}

impl Scores {
    /// No slot forced.
    pub fn free(values: Vec<Vec<f32>>) -> Self {
        let forced = values.iter().map(|v| vec![false; v.len()]).collect();
        Self { values, forced }
    }
}

/// Rates the held slots of a layer.
pub trait Scorer: Send + Sync {
    fn schedule(&self) -> Schedule;
    fn score(&self, at: Moment, view: &dyn LayerView) -> Scores;
    /// Prompt queries that must stay available until the policy has decided (rows asked for: the last `n`).
    fn window(&self) -> usize {
        0
    }
    /// The scorer reads `received`: column sums of the prompt are taken even with the attention probe off.
    fn needs_received(&self) -> bool {
        false
    }
}
