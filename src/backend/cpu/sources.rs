//! Where a layer of a lane takes its queries, keys and values from: itself, unless the lane's layers are wired.

use crate::backend::{Attention, Buf};
use crate::cache::{HeadCache, Wiring};

use super::program::{Exec, Run};
use super::shared::Grid;

/// Of one kv head.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The layer's own positions, newest rows and column sums.
    pub own: &'a HeadCache,
    /// Whose keys, and what is added to logits on them.
    pub keys: &'a HeadCache,
    /// Whose values.
    pub values: &'a HeadCache,
    /// Queries after rope in the first H·D columns.
    pub queries: &'a Grid,
}

/// # Safety
/// Nobody changes keys, values, positions or queries meanwhile.
pub unsafe fn sources<'a>(exec: &'a Exec<'_>, attention: &Attention, run: &Run, kv: usize, qkv: Buf) -> Sources<'a> {
    let layer = attention.layer;
    // SAFETY: by the caller's word.
    let cache = |layer: usize| unsafe { exec.caches[run.cache][layer * exec.kv_heads + kv].shared() };
    let own = cache(layer);
    match exec.wirings[run.cache] {
        None => Sources { own, keys: own, values: own, queries: &exec.buffers[qkv.0] },
        Some(wiring) => Sources {
            own,
            keys: cache(wiring.keys(layer)),
            values: cache(wiring.values(layer)),
            queries: if wiring.queries(layer) == layer { &exec.buffers[qkv.0] } else { exec.lent_queries },
        },
    }
}

/// Wherever a lane's layer has queries of its own.
pub fn has_queries(wiring: Option<&Wiring>, layer: usize) -> bool {
    wiring.is_none_or(|wiring| wiring.queries(layer) == layer)
}
