//! How a lane stores what it holds: quantizers and channel pruning. Nothing is evicted.
//!
//! Slots are packed oldest first, after the pass that wrote them and after evictors had their say: the prompt is read
//! with exact keys and values, and a step's own entry is exact while the step runs. Layers with a sliding window of
//! their own stay as they are.

pub mod akvq;
pub mod kivi;
pub mod plain;
pub mod think;
pub mod wkvquant;
pub mod zipcache;

use super::key::{Choice, Count, Key};
use super::part::{LayerView, Moment};
use crate::cache::{Code, Groups, Pack, Packing, Quantization, Smoothing};

/// Decides what of a layer is packed, and how.
pub trait Storage: Send + Sync {
    /// What to pack now, where so many slots' keys and values are packed already [kv heads]; empty: nothing.
    fn pack(&self, at: Moment, packed: &[(usize, usize)], view: &dyn LayerView) -> Vec<Packing>;
    /// Packs after steps too.
    fn acts_in_decode(&self) -> bool {
        true
    }
    /// Queries at the end of a prompt of `prompt` tokens that will be asked for after it, or whose rows will be.
    fn window(&self, _prompt: usize) -> usize {
        0
    }
    /// The column sums of the attention must be taken.
    fn needs_received(&self) -> bool {
        false
    }
}

/// Slots that each kv head holds.
fn held(view: &dyn LayerView) -> impl Iterator<Item = usize> + '_ {
    (0..view.kv_heads()).map(|kv_head| view.positions(kv_head).len())
}

/// Packs all but the newest `residual` slots, keys and values alike; `salient` of a kv head [n].
fn all_but(
    residual: usize,
    code: Quantization,
    view: &dyn LayerView,
    salient: impl Fn(usize) -> Vec<bool>,
) -> Vec<Packing> {
    let one = |(kv_head, n): (usize, usize)| {
        let both = Some(Pack { to: n.saturating_sub(residual), code: Code::Quantized(code) });
        Packing { keys: both.clone(), values: both, salient: salient(kv_head), again: false }
    };
    held(view).enumerate().map(one).collect()
}

const BITS: Choice<u8> = Choice(&[("2", 2), ("4", 4), ("8", 8)]);

const fn group(default: u64) -> Key<Count> {
    Key::new("group", "numbers that share a scale and a zero point", Count(1, 65_536), default)
}

const fn residual(default: u64) -> Key<Count> {
    Key::new("residual", "newest tokens that stay as they are", Count(0, 1_000_000), default)
}

/// One width per token, nothing done to the channels.
const fn plain(bits: u8, groups: Groups) -> Quantization {
    Quantization { bits, low: None, groups, smoothing: Smoothing::None }
}
