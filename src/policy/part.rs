//! What a policy is made of. A chain (`a+b`) is a list of parts; each part plays one role.
//!
//! The engine calls a scorer after the prompt and, where it says so, after every step; the allocator turns
//! scores into a number of entries per kv head; the entries that lose leave the cache.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::amount::Amount;

/// When a scorer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Once, after the prompt: generated tokens are always kept.
    AfterPrefill,
    /// After the prompt and after every step, whenever more than the budget is held.
    EveryStep,
    /// After every so many steps, not after the prompt. A budget in percent is of `of`.
    Decoding { every: u32, of: Whole },
}

/// What a budget in percent is a share of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whole {
    /// The prompt: the budget stays as it is while the text grows.
    Prompt,
    /// All tokens so far, evicted ones included.
    Seen,
}

impl Schedule {
    /// Whether step `step` (0 = the prompt) is its moment.
    pub fn acts(self, step: u32) -> bool {
        match self {
            Self::AfterPrefill => step == 0,
            Self::EveryStep => true,
            Self::Decoding { every, .. } => step > 0 && step.is_multiple_of(every.max(1)),
        }
    }

    pub fn acts_in_decode(self) -> bool {
        self != Self::AfterPrefill
    }

    pub const fn words(self) -> &'static str {
        match self {
            Self::AfterPrefill => "after the prompt",
            Self::EveryStep => "every step",
            Self::Decoding { .. } => "every few steps",
        }
    }

    /// Tokens that a budget in percent is a share of.
    pub fn whole(self, at: Moment) -> usize {
        match self {
            Self::Decoding { of: Whole::Seen, .. } => at.prompt + at.step as usize,
            _ => at.prompt,
        }
    }
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
    /// Queries of head `head` at positions `rows` after rope (and after QK-norm) [rows, D]. After the prompt only.
    fn queries(&self, head: usize, rows: Range<u32>) -> Vec<f32>;
    /// Rope: channel pair (i, i + D/2) of position p is turned by p · turns[i] radians [D/2].
    fn turns(&self) -> &[f32];
    /// ‖W_O,h · v_t‖₁ of the held values of query head `head`, W_O,h its columns of the output projection [n].
    fn projected(&self, head: usize) -> Vec<f32>;
}

/// All layers of a lane's cache, looked at one after the other.
pub trait LaneView {
    /// Shows layer `layer` to `look`; false where policies leave the layer alone (a sliding window of its own).
    fn layer(&self, layer: usize, look: &mut dyn FnMut(&dyn LayerView)) -> bool;
}

/// Scores of one layer: higher stays. `forced` slots stay whatever their score (a mask, never a sentinel score).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// [kv heads][n]
    pub values: Vec<Vec<f32>>,
    /// [kv heads][n]
    pub forced: Vec<Vec<bool>>,
    /// Entries that each kv head keeps, where the policy itself says how many [kv heads]; else the budget.
    pub own: Option<Vec<usize>>,
}

impl Scores {
    /// No slot forced.
    pub fn free(values: Vec<Vec<f32>>) -> Self {
        let forced = values.iter().map(|v| vec![false; v.len()]).collect();
        Self { values, forced, own: None }
    }

    /// The newest `count` slots of every kv head stay.
    pub fn keep_newest(mut self, count: usize) -> Self {
        for forced in &mut self.forced {
            let from = forced.len().saturating_sub(count);
            forced[from..].fill(true);
        }
        self
    }

    /// Slots whose original position is below `count` stay.
    pub fn keep_first(mut self, count: usize, view: &dyn LayerView) -> Self {
        for (kv_head, forced) in self.forced.iter_mut().enumerate() {
            let sinks = view.positions(kv_head).partition_point(|&p| (p as usize) < count);
            forced[..sinks].fill(true);
        }
        self
    }
}

/// Mean over the query heads of each kv head: `per_head` [H][n] → [kv heads][n].
pub fn group_mean(view: &dyn LayerView, mut per_head: impl FnMut(usize) -> Vec<f32>) -> Vec<Vec<f32>> {
    let group = view.group();
    let mean = |kv_head: usize| {
        let mut mean = per_head(kv_head * group);
        for head in kv_head * group + 1..(kv_head + 1) * group {
            mean.iter_mut().zip(per_head(head)).for_each(|(m, x)| *m += x);
        }
        mean.iter_mut().for_each(|m| *m /= group as f32);
        mean
    };
    (0..view.kv_heads()).map(mean).collect()
}

/// Rates the held slots of a layer. Stateless: the same view gives the same scores, so that rewinding is exact.
pub trait Scorer: Send + Sync {
    fn schedule(&self) -> Schedule {
        Schedule::AfterPrefill
    }
    /// Scores of the slots that `view` holds, where a kv head may keep `budget` of them.
    /// `None`: this layer is left alone.
    fn score(&self, at: Moment, budget: usize, view: &dyn LayerView) -> Option<Scores>;
    /// Scores can be taken after a step, when only the newest row exists.
    fn decodes(&self) -> bool {
        true
    }
    /// Queries at the end of a prompt of `prompt` tokens that will be asked for after it, or whose rows will be.
    fn window(&self, _prompt: usize) -> usize {
        0
    }
    /// What is wrong if the scorer cannot work on a model of this shape (it has data of its own for another one).
    fn fits(&self, _layers: usize, _kv_heads: usize, _head_dim: usize) -> Result<(), String> {
        Ok(())
    }
    /// The scorer reads `received`: column sums of the prompt are taken even with the attention probe off.
    fn needs_received(&self) -> bool {
        false
    }
}

/// Divides a budget among layers or among the heads of a layer.
pub trait Allocator: Send + Sync {
    /// Layers come before heads, wherever the part stands in the chain. An evictor has one of each at most.
    fn level(&self) -> Level;
    /// `budgets` [layer][kv head] come as the level above left them (at first all alike) and are changed, `scores`
    /// [layer] where the division itself protects entries. Empty where a layer is left alone.
    fn allocate(&self, ask: Divide, scores: &mut [Option<Scores>], budgets: &mut [Vec<usize>]);
}

/// What an [`Allocator`] divides a budget among.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Layers,
    Heads,
}

/// What an [`Allocator`] is asked with.
#[derive(Debug, Clone, Copy)]
pub struct Divide {
    /// Its layer means nothing.
    pub at: Moment,
    /// Entries per kv head, on average, before rounding down.
    pub mean: f64,
}

/// Changes scores once the budgets are known.
pub trait Refiner: Send + Sync {
    /// `budgets` [kv heads] of this layer.
    fn refine(&self, at: Moment, budgets: &[usize], scores: Scores, view: &dyn LayerView) -> Scores;
}

/// Picks slots otherwise than by the highest scores.
pub trait Chooser: Send + Sync {
    /// Slots that stay, ascending and unique [kv heads][kept]. The scorer may be asked again about a part of the
    /// layer (see [`super::subset::Subset`]).
    fn choose(&self, ask: Ask<'_>, view: &dyn LayerView) -> Vec<Vec<u32>>;
    /// Queries at the end of a prompt that are needed where the scorer alone needs `scorers`.
    fn window(&self, _prompt: usize, scorers: usize) -> usize {
        scorers
    }
}

/// What a [`Chooser`] is asked with.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    pub at: Moment,
    pub scorer: &'a dyn Scorer,
    pub scores: &'a Scores,
    /// Of each kv head.
    pub budgets: &'a [usize],
    /// As written.
    pub amount: Amount,
}

/// New contents of the slots that one kv head keeps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rewritten {
    /// After rope [kept, D].
    pub keys: Option<Vec<f32>>,
    /// [kept, D]
    pub values: Option<Vec<f32>>,
}

/// Changes what stays, once it is known what leaves.
pub trait Rewriter: Send + Sync {
    /// `kept` [kv heads][slots of `view`], `view` as it was before anything left.
    fn rewrite(&self, at: Moment, kept: &[Vec<u32>], view: &dyn LayerView) -> Vec<Rewritten>;
    /// Keys lie at positions 0, 1, 2, … afterwards and decoding goes on there.
    fn cache_positions(&self) -> bool {
        false
    }
}

impl Ask<'_> {
    /// Of `some` of the `held` entries of a kv head, as many as its budget is of them all, rounded down. Exact where
    /// the budget is the share as written: ⌊some · N%⌋.
    pub fn share(&self, kv_head: usize, held: usize, some: usize) -> usize {
        let budget = self.budgets[kv_head];
        match self.amount {
            Amount::Share(_) if budget == self.amount.of(held).max(1) => self.amount.of(some),
            _ => (some as u128 * budget.min(held) as u128 / held.max(1) as u128) as usize,
        }
    }
}

/// From one scorer to another.
pub type Around = dyn Fn(Arc<dyn Scorer>) -> Arc<dyn Scorer> + Send + Sync;

/// What a policy file builds from its part of a spec: one variant per role in a chain. All but a scorer act on the
/// scorer that follows them.
#[derive(Clone)]
pub enum Part {
    /// Keeps everything.
    Full,
    /// Rates entries; those over the budget leave.
    Scorer(Arc<dyn Scorer>),
    Allocator(Arc<dyn Allocator>),
    Refiner(Arc<dyn Refiner>),
    Chooser(Arc<dyn Chooser>),
    Rewriter(Arc<dyn Rewriter>),
    /// The scorer's own schedule does not count.
    Schedule(Schedule),
    /// Turns the scorer into another one, before anything else acts on it.
    Around(Arc<Around>),
    /// What the part cannot do without and did not get, as the user should read it.
    Missing(String),
}

impl Part {
    pub fn scorer(scorer: impl Scorer + 'static) -> Self {
        Self::Scorer(Arc::new(scorer))
    }

    pub fn allocator(allocator: impl Allocator + 'static) -> Self {
        Self::Allocator(Arc::new(allocator))
    }

    pub fn refiner(refiner: impl Refiner + 'static) -> Self {
        Self::Refiner(Arc::new(refiner))
    }

    pub fn rewriter(rewriter: impl Rewriter + 'static) -> Self {
        Self::Rewriter(Arc::new(rewriter))
    }

    pub fn chooser(chooser: impl Chooser + 'static) -> Self {
        Self::Chooser(Arc::new(chooser))
    }

    pub fn around<S: Scorer + 'static>(wrap: impl Fn(Arc<dyn Scorer>) -> S + Send + Sync + 'static) -> Self {
        Self::Around(Arc::new(move |scorer| Arc::new(wrap(scorer))))
    }
}
