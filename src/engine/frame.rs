//! A frame: everything recorded about one step of all lanes. Immutable; the screen, the files and the JSON
//! are made from frames only.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::probe::exit::exit_depth;

pub use super::contributions::Depth;
pub use super::gates::Gates;
pub use crate::meter::card::CardSample;
pub use crate::meter::peaks::Peaks;
pub use crate::meter::timeline::{Call, OpSpan, Timeline};
pub use crate::probe::prompt_span::PromptSpan;
pub use crate::probe::survival::Survival;

/// One step of all lanes. Step 0 is the prompt, step s ≥ 1 feeds the s-th generated token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Frame {
    pub step: u32,
    /// Sublayers finished (attention and MLP counted apart); `None` once the pass is complete.
    pub partial: Option<u32>,
    pub lanes: Vec<LaneFrame>,
    /// What each operation cost in this step (all lanes together).
    pub ops: Vec<OpTime>,
    /// The calls of `ops` in their order; empty for the prompt, whose passes are many, and while times are not taken.
    pub timeline: Timeline,
    /// The pass ran on a card as one graph: its kernels without a call for each.
    pub graph: bool,
    /// What the device does at best, once that has been measured.
    pub peaks: Option<Arc<Peaks>>,
    /// What the card said of itself last; `None` where none is watched or it has said nothing yet.
    pub card: Option<CardSample>,
    pub memory: Memory,
    /// Wall time of the step, nanoseconds: pass, policies, sampling.
    pub wall_ns: u64,
    /// Facts first noticed in this step.
    pub findings: Vec<Finding>,
    /// Named parts of the prompt.
    pub spans: Arc<[PromptSpan]>,
}

/// What one lane did in a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaneFrame {
    /// Policy spec as the user wrote it, normalised.
    pub spec: Arc<str>,
    /// Ids fed in this step: the prompt in step 0, else one.
    pub fed: Arc<[u32]>,
    /// Original position of the first fed token.
    pub pos: u32,
    /// The token sampled after this step (fed in the next one); `None` also where all logits are −∞ or no numbers.
    pub next: Option<u32>,
    /// The model runs on a card, but the attention of this lane on the CPU, for want of a kernel.
    pub on_host: bool,
    /// How it was drawn; `None` before the pass is complete.
    pub pick: Option<Pick>,
    /// Most probable next tokens, best first.
    pub candidates: Vec<Candidate>,
    /// Entropy of the next-token distribution, nats.
    pub entropy: f32,
    /// −ln p(fed token) under the lane's previous distribution, nats; `None` for the prompt (ask `Query::PromptNll`).
    pub nll: Option<f32>,
    /// What sublayers read; the last point is what the final norm reads.
    pub residual: Arc<ResidualStats>,
    /// The running stream, where that is something else because depth is mixed: by points, after each sublayer the sum that
    /// it was added to. No points in a plain model.
    pub stream: Arc<ResidualStats>,
    /// Of the token fed last; `None` while the residual stream is not measured.
    pub depth: Option<Arc<Depth>>,
    pub attention: Arc<AttentionStats>,
    pub kv_norms: Arc<KvNorms>,
    /// Attention received so far by each position, mean over layers and heads of the column sums [positions].
    pub received: Arc<[f32]>,
    /// Attention of the newest query on each position, mean over layers and heads [positions].
    pub row: Arc<[f32]>,
    pub kept: Arc<Kept>,
    pub kv: KvBytes,
    /// What was read of the cache; `None` where that is all of it, as mostly while the prompt is read.
    pub reads: Option<Arc<Reads>>,
    /// Against lane 0 in the same step; `None` on lane 0 itself or where the two have no common step.
    pub against: Option<Against>,
    /// Logit lens of the last fed token; empty while the probe is off.
    pub lens: Vec<LensLayer>,
    /// What is left of each of the frame's spans after the step [spans]; empty where no layer may evict.
    pub survival: Vec<Survival>,
    /// Share of lane 0's attention in this step that falls on positions which the lane held, mean over the heads of the
    /// layers that may evict; `None` for the prompt, while attention is not probed, and where a lane evicts nothing.
    /// Positions count, whatever the two lanes were fed there.
    pub covered: Option<f32>,
    /// What the lane's interventions made of the prompt; `None` without any.
    pub effect: Option<Effect>,
    /// Against the oracle lane whose size is nearest; `None` where none runs, and of oracles themselves.
    pub recall: Option<Recall>,
}

impl LaneFrame {
    /// Layers after which the lens says what the last one says, and all later ones do, too (0 = the embedding alone);
    /// `None` while the probe is off.
    pub fn exit_depth(&self) -> Option<usize> {
        let best: Vec<u32> = self.lens.iter().filter_map(|layer| Some(layer.top.first()?.0)).collect();
        (!best.is_empty()).then(|| exit_depth(&best))
    }

    /// The spec, and where the lane's attention runs when that is not where the model does.
    pub fn title(&self) -> String {
        if self.on_host { format!("{} (attention on the CPU)", self.spec) } else { self.spec.to_string() }
    }
}

/// What interventions make of a prompt, beside lane 0 without them: means over its last `tokens` tokens, each predicted from
/// those before it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    pub tokens: u32,
    /// −ln p of them, nats; and in lane 0.
    pub nll: f32,
    pub nll_full: f32,
    /// KL(lane 0 ‖ lane), nats.
    pub kl: f32,
    /// Share of them before which the two prefer different tokens.
    pub flips: f32,
    /// Share of heads with more than 0.3 of their attention on the first token that was read, mean over the queries; and
    /// in lane 0.
    pub sink_rate: f32,
    pub sink_rate_full: f32,
}

/// Share of an oracle lane's entries of the prompt that a lane holds, too, mean over those heads in which both have
/// evicted some.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    pub oracle: u32,
    pub share: f32,
}

/// A draw: the token with the largest logit / temperature + Gumbel noise (or logit, where greedy) wins.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pick {
    /// What would have been drawn without the winner; `None` where nothing else was left to draw.
    pub runner_up: Option<u32>,
    /// Of winner and runner-up, nats; −∞ where there is none.
    pub scores: [f32; 2],
    /// Their difference, nats: by so much logit / temperature would have to move for the runner-up to be drawn. ∞ without one.
    pub margin: f32,
    /// Tokens that top-k, top-p and min-p leave.
    pub survivors: u32,
    /// Bytes of logits that the step did not keep: all of its row, or 0.
    pub dropped: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    pub id: u32,
    pub logit: f32,
    /// Probability in the model's own distribution (temperature 1, no truncation).
    pub prob: f32,
    /// Probability after temperature and truncation: what the sampler drew from (0 = cut off).
    pub sampled_prob: f32,
}

/// Statistics of the residual stream, `[points][rows]` row-major.
/// Points: embedding, then after attention and after MLP of each layer: 1 + 2L.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ResidualStats {
    pub points: usize,
    pub rows: usize,
    pub l2: Vec<f32>,
    pub rms: Vec<f32>,
    pub absmax: Vec<f32>,
    /// Median of |x| over the channels (mean of the two middle values).
    pub median: Vec<f32>,
    /// Channel of the largest |x|.
    pub argmax: Vec<u32>,
}

/// Reductions of each attention row, `[layers][heads][rows]` row-major.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AttentionStats {
    pub layers: usize,
    pub heads: usize,
    pub rows: usize,
    /// Entropy of the row, nats.
    pub entropy: Vec<f32>,
    /// Probability on position 0.
    pub first: Vec<f32>,
    /// Probability on the most recent `recent_window` visible positions, the query's own included.
    pub recent: Vec<f32>,
    pub recent_window: usize,
    /// Mean distance Σ p·(query position − key position), tokens.
    pub distance: Vec<f32>,
}

/// Norms of the keys and values appended in this step, `[layers][kv heads][rows]` row-major.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KvNorms {
    pub layers: usize,
    pub kv_heads: usize,
    pub rows: usize,
    pub key_l2_pre: Vec<f32>,
    pub key_l2: Vec<f32>,
    pub value_l1: Vec<f32>,
    pub value_l2: Vec<f32>,
}

/// Which positions each (layer, kv head) holds, as bit sets over `0..positions`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub layers: usize,
    pub kv_heads: usize,
    pub positions: usize,
    /// `[layers][kv heads][ceil(positions / 64)]`, least significant bit first.
    pub bits: Vec<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KvBytes {
    /// Bytes really allocated for live entries.
    pub held: u64,
    /// What lane 0 holds for the same positions.
    pub full: u64,
    /// Bytes held per layer.
    pub per_layer: Vec<u64>,
    /// Entries held per layer, all kv heads together.
    pub slots_per_layer: Vec<u32>,
}

/// What a step read of a cache of which a part is enough for its policy (or a prompt, all rows together). Layers not
/// reached yet: nothing seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reads {
    pub layers: usize,
    pub kv_heads: usize,
    pub heads: usize,
    /// Entries that some query head of a kv head read, and those it sees `[layers][kv heads]`.
    pub entries: Vec<u32>,
    pub seen: Vec<u32>,
    /// Bytes of keys and values read `[layers]`.
    pub bytes: Vec<u64>,
    /// Bytes of keys and values seen `[layers]`.
    pub bytes_seen: Vec<u64>,
    /// Bytes read to choose by `[layers]`, and bytes held for that beside the cache.
    pub metadata: Vec<u64>,
    pub metadata_held: u64,
    /// Share of each head's dense attention that falls on what it read `[layers][heads]`; NaN where not reached.
    pub covered: Vec<f32>,
}

/// A lane compared with lane 0 after the same number of steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// KL(lane 0 ‖ lane), nats. Meaningful as a cache effect only while `same_prefix`.
    pub kl: f32,
    pub top1_agrees: bool,
    /// Both lanes have been fed the same tokens so far.
    pub same_prefix: bool,
}

/// Logit lens after one layer: `lm_head(final_norm(residual))`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LensLayer {
    /// Residual point (0 = embedding, 2l+2 = after layer l).
    pub point: u32,
    /// (token, probability), best first.
    pub top: Vec<(u32, f32)>,
    /// Probability here of the token that the last layer finds most probable, and its rank (1 = most probable).
    pub token_prob: f32,
    pub token_rank: u32,
    /// Nats.
    pub entropy: f32,
    /// KL(last layer ‖ this one), nats.
    pub kl: f32,
}

/// Cost of one kind of operation within a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpTime {
    pub name: Arc<str>,
    pub calls: u32,
    pub total_ns: u64,
    /// Wall time of every call, nanoseconds, in order.
    pub ns: Vec<u32>,
    /// Bytes that the operation has to touch at least once (weights, cache, activations): derived from shapes.
    pub bytes: u64,
    /// Floating-point (or integer multiply-add) operations, two per multiply-add: derived from shapes.
    pub flops: u64,
    /// A product with weights: see [`Peaks::product_flops_per_s`].
    pub product: bool,
}

/// Where the memory is, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    pub weights: u64,
    pub kv: u64,
    /// Queries kept so that any map can be computed again.
    pub queries: u64,
    pub queries_budget: u64,
    pub activations: u64,
    pub history: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    MassiveActivation,
    AttentionSink,
    Divergence,
    EndOfText,
    Overflow,
    LowBudget,
    Regret,
}

/// A fact the program noticed by itself, with its evidence and what to do about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub kind: FindingKind,
    pub lane: u32,
    pub step: u32,
    /// One line: what was seen.
    pub title: String,
    /// The numbers behind it and the definition used.
    pub evidence: String,
    /// What an engineer would do next.
    pub advice: String,
    pub layer: Option<u32>,
    pub head: Option<u32>,
    pub position: Option<u32>,
}

impl Frame {
    /// Lane 0 is about to say the end of its text.
    pub fn ends(&self, eos: &[u32]) -> bool {
        self.lanes.first().and_then(|lane| lane.next).is_some_and(|id| eos.contains(&id))
    }
}

impl ResidualStats {
    pub fn at(&self, point: usize, row: usize) -> usize {
        point * self.rows + row
    }
}

impl AttentionStats {
    pub fn at(&self, layer: usize, head: usize, row: usize) -> usize {
        (layer * self.heads + head) * self.rows + row
    }
}

impl KvNorms {
    pub fn at(&self, layer: usize, kv_head: usize, row: usize) -> usize {
        (layer * self.kv_heads + kv_head) * self.rows + row
    }
}

impl Reads {
    /// Bytes read of keys, values and what is chosen by.
    pub fn bytes_read(&self) -> u64 {
        self.bytes.iter().chain(&self.metadata).fold(0, |sum, &bytes| sum.saturating_add(bytes))
    }

    /// Bytes that reading everything takes.
    pub fn bytes_of_all(&self) -> u64 {
        self.bytes_seen.iter().fold(0, |sum, &bytes| sum.saturating_add(bytes))
    }

    /// Bytes read per byte seen; what is chosen by counts, so that it may be above 1.
    pub fn share(&self) -> f64 {
        self.bytes_read() as f64 / self.bytes_of_all().max(1) as f64
    }

    /// Mean and least covered mass over the layers and heads reached; `None` before the first.
    pub fn covers(&self) -> Option<(f32, f32)> {
        let reached = || self.covered.iter().filter(|mass| !mass.is_nan());
        let sum: f64 = reached().map(|&mass| mass as f64).sum();
        let least = reached().copied().reduce(f32::min)?;
        Some(((sum / reached().count() as f64) as f32, least))
    }
}

impl Kept {
    pub fn new(layers: usize, kv_heads: usize, positions: usize) -> Self {
        let bits = vec![0; layers * kv_heads * positions.div_ceil(64)];
        Self { layers, kv_heads, positions, bits }
    }

    fn words(&self) -> usize {
        self.positions.div_ceil(64)
    }

    pub fn set(&mut self, layer: usize, kv_head: usize, position: usize) {
        let words = self.words();
        self.bits[(layer * self.kv_heads + kv_head) * words + position / 64] |= 1 << (position % 64);
    }

    pub fn contains(&self, layer: usize, kv_head: usize, position: usize) -> bool {
        position < self.positions
            && self.bits[(layer * self.kv_heads + kv_head) * self.words() + position / 64] >> (position % 64) & 1 == 1
    }

    /// The bits of one (layer, kv head) [ceil(positions / 64)].
    pub fn head(&self, layer: usize, kv_head: usize) -> &[u64] {
        let words = self.words();
        let from = (layer * self.kv_heads + kv_head) * words;
        &self.bits[from..from + words]
    }

    pub fn count(&self, layer: usize, kv_head: usize) -> usize {
        self.head(layer, kv_head).iter().map(|w| w.count_ones() as usize).sum()
    }

    /// How many positions of `span` are held.
    pub fn held_in(&self, layer: usize, kv_head: usize, span: Range<u32>) -> usize {
        let words = self.head(layer, kv_head).iter().enumerate();
        words.map(|(w, word)| (word & within(w, &span)).count_ones() as usize).sum()
    }

    /// The same where `other`, of the same model, must hold them too.
    pub fn held_by_both(&self, other: &Self, layer: usize, kv_head: usize, span: Range<u32>) -> usize {
        let words = self.head(layer, kv_head).iter().zip(other.head(layer, kv_head)).enumerate();
        words.map(|(w, (a, b))| (a & b & within(w, &span)).count_ones() as usize).sum()
    }

    /// Kept positions of one (layer, kv head), ascending.
    pub fn list(&self, layer: usize, kv_head: usize) -> Vec<u32> {
        (0..self.positions).filter(|&p| self.contains(layer, kv_head, p)).map(|p| p as u32).collect()
    }

    /// In how many of the layer × kv head caches each position is still held, 0..=layers·kv_heads [positions].
    pub fn depth(&self) -> Vec<u32> {
        let mut depth = vec![0; self.positions];
        for cache in self.bits.chunks_exact(self.words().max(1)) {
            for (w, &word) in cache.iter().enumerate() {
                let mut rest = word;
                while rest != 0 {
                    if let Some(d) = depth.get_mut(w * 64 + rest.trailing_zeros() as usize) {
                        *d += 1;
                    }
                    rest &= rest - 1;
                }
            }
        }
        depth
    }
}

/// The positions of `span` in word `word` of a bit set.
fn within(word: usize, span: &Range<u32>) -> u64 {
    let first = word as u64 * 64;
    let below = |end: u32| match u64::from(end).saturating_sub(first) {
        n @ 0..64 => (1 << n) - 1,
        _ => u64::MAX,
    };
    below(span.end) & !below(span.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_remembers_exactly_what_was_set() {
        let mut kept = Kept::new(2, 3, 130);
        for p in [0, 63, 64, 129] {
            kept.set(1, 2, p);
        }
        assert_eq!(kept.list(1, 2), [0, 63, 64, 129]);
        assert_eq!(kept.count(1, 2), 4);
        assert_eq!(kept.count(0, 0), 0);
        assert!(!kept.contains(1, 2, 130));
        assert_eq!(kept.depth()[64], 1);
        let held = |span| kept.held_in(1, 2, span);
        assert_eq!([held(0..130), held(1..64), held(63..65), held(64..129), held(128..999)], [4, 1, 2, 1, 1]);
        assert_eq!(kept.held_by_both(&Kept::new(2, 3, 130), 1, 2, 0..130), 0);
        assert_eq!(kept.held_by_both(&kept, 1, 2, 0..64), 2);
    }
}
