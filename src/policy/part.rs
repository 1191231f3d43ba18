//! What a policy is made of. A chain (`a+b`) is a list of parts; each part plays one role.
//!
//! The engine calls a scorer after the prompt and, where it says so, after every step; the allocator turns
//! scores into a number of entries per kv head; the entries that lose leave the cache.

use std::sync::Arc;

use super::amount::Amount;
use super::delta::Sparse;
use super::intervene::Intervention;
use super::reader::Reader;
use super::sharing::Sharing;
pub use super::storage::Storage;
pub use super::view::{Ahead, LaneView, LayerView, Moment, Norm, Sizes, Start, Text};
use super::watch::Watch;

/// When a scorer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// Once, after the prompt: generated tokens are always kept.
    AfterPrefill,
    /// After the prompt and after every step, whenever more than the budget is held.
    EveryStep,
    /// While the prompt is read, after every so many of its tokens and at its end.
    Blocks { size: u32 },
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
            Self::AfterPrefill | Self::Blocks { .. } => step == 0,
            Self::EveryStep => true,
            Self::Decoding { every, .. } => step > 0 && step.is_multiple_of(every.max(1)),
        }
    }

    pub fn acts_in_decode(self) -> bool {
        !matches!(self, Self::AfterPrefill | Self::Blocks { .. })
    }

    pub const fn words(self) -> &'static str {
        match self {
            Self::AfterPrefill => "after the prompt",
            Self::Blocks { .. } => "while the prompt is read",
            Self::EveryStep => "every step",
            Self::Decoding { .. } => "every few steps",
        }
    }

    /// Tokens of the prompt that are read before entries may leave, where that happens while it is read.
    pub fn block(self) -> Option<usize> {
        match self {
            Self::Blocks { size } => Some(size.max(1) as usize),
            _ => None,
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

    /// Each kv head says itself how many it keeps: what is forced and what scores `threshold` or more, at least one.
    pub fn keep_from(mut self, threshold: f64) -> Self {
        let stays = |(values, forced): (&Vec<f32>, &Vec<bool>)| {
            values.iter().zip(forced).filter(|(value, forced)| **forced || **value as f64 >= threshold).count().max(1)
        };
        self.own = Some(self.values.iter().zip(&self.forced).map(stays).collect());
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
    /// [`Scorer::survey`] has something to say.
    fn surveys(&self) -> bool {
        false
    }
    /// Looks at the whole lane once, before any layer is scored, where a kv head may keep `mean` entries on average
    /// (not yet rounded down). The scorer it gives rates the layers.
    fn survey(&self, _at: Moment, _mean: f64, _lane: &dyn LaneView) -> Option<Arc<dyn Scorer>> {
        None
    }
    /// The heads of all layers compete for one budget, which the scorer divides itself.
    fn shares(&self) -> bool {
        false
    }
    /// Scores can be taken after a step, when only the newest row exists.
    fn decodes(&self) -> bool {
        true
    }
    /// Queries at the end of a prompt of `prompt` tokens that will be asked for after it, or whose rows will be.
    fn window(&self, _prompt: usize) -> usize {
        0
    }
    /// What is wrong if the scorer cannot work on a model of this shape (it has data of its own for another one).
    fn fits(&self, _model: Sizes) -> Result<(), String> {
        Ok(())
    }
    /// What looks at every row of the prompt while it is read; its sums are [`LayerView::watched`].
    fn watch(&self) -> Option<Arc<dyn Watch>> {
        None
    }
    /// The scorer reads [`LayerView::inputs`], which are gathered while the prompt is read.
    fn needs_inputs(&self) -> bool {
        false
    }
    /// The scorer says itself how much stays: it has no budget.
    fn sizes_itself(&self) -> bool {
        false
    }
    /// So many of the newest positions will be asked for with [`LayerView::input`] after a step.
    fn recent_inputs(&self) -> usize {
        0
    }
    /// Rows of the past that [`LayerView::above_average`] will be asked about.
    fn history(&self) -> usize {
        0
    }
    /// What the policy itself does to what stays. Another rewriter in front of it is refused.
    fn rewriter(&self) -> Option<Arc<dyn Rewriter>> {
        None
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
    fn allocate(&self, ask: Divide<'_>, scores: &mut [Option<Scores>], budgets: &mut [Vec<usize>]);
    /// It reads [`LaneView::cosines`], which are taken while the prompt is read.
    fn needs_cosines(&self) -> bool {
        false
    }
    /// Queries at the end of a prompt of `prompt` tokens that will be asked for.
    fn window(&self, _prompt: usize) -> usize {
        0
    }
    /// It can divide after a step, too, when nothing can be read ahead and only the newest row exists.
    fn decodes(&self) -> bool {
        true
    }
    /// As [`Scorer::fits`].
    fn fits(&self, _model: Sizes) -> Result<(), String> {
        Ok(())
    }
}

/// What an [`Allocator`] divides a budget among.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Layers,
    Heads,
}

/// What an [`Allocator`] is asked with.
#[derive(Clone, Copy)]
pub struct Divide<'a> {
    /// Its layer means nothing.
    pub at: Moment,
    /// Entries per kv head, on average, before rounding down.
    pub mean: f64,
    pub lane: &'a dyn LaneView,
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
    /// Added to every logit on a slot, nats [kept]: an entry that stands for m others has ln m. `None` leaves them.
    pub offsets: Option<Vec<f32>>,
}

/// Changes what stays, once it is known what leaves.
pub trait Rewriter: Send + Sync {
    /// `kept` [kv heads][slots of `view`], `view` as it was before anything left.
    fn rewrite(&self, at: Moment, kept: &[Vec<u32>], view: &dyn LayerView) -> Vec<Rewritten>;
    /// Keys lie at positions 0, 1, 2, … after the prompt and decoding goes on there.
    fn cache_positions(&self) -> bool {
        false
    }
    /// So they do after every step: the next position is always the number of entries held.
    fn always_cache_positions(&self) -> bool {
        false
    }
    /// As [`Scorer::needs_received`].
    fn needs_received(&self) -> bool {
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

/// What a policy file builds from its part of a spec: one variant per role in a chain. All but scorers and
/// storage act on the scorer that follows them.
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
    /// Packs what the lane holds; stands behind all evictors.
    Storage(Arc<dyn Storage>),
    /// Evicts nothing and reads a part in every step.
    Reader(Arc<dyn Reader>),
    /// Evicts nothing and reads the prompt sparsely.
    Prefill(Sparse),
    /// The scorer's own schedule does not count.
    Schedule(Schedule),
    /// Turns the scorer into another one, before anything else acts on it.
    Around(Arc<Around>),
    /// Wires layers to each other; scorers act on what is left.
    Sharing(Arc<dyn Sharing>),
    /// Changes what the model computes.
    Intervention(Arc<dyn Intervention>),
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

    pub fn storage(storage: impl Storage + 'static) -> Self {
        Self::Storage(Arc::new(storage))
    }

    pub fn reader(reader: impl Reader + 'static) -> Self {
        Self::Reader(Arc::new(reader))
    }

    pub fn chooser(chooser: impl Chooser + 'static) -> Self {
        Self::Chooser(Arc::new(chooser))
    }

    pub fn sharing(sharing: impl Sharing + 'static) -> Self {
        Self::Sharing(Arc::new(sharing))
    }

    pub fn intervention(intervention: impl Intervention + 'static) -> Self {
        Self::Intervention(Arc::new(intervention))
    }

    pub fn around<S: Scorer + 'static>(wrap: impl Fn(Arc<dyn Scorer>) -> S + Send + Sync + 'static) -> Self {
        Self::Around(Arc::new(move |scorer| Arc::new(wrap(scorer))))
    }
}
