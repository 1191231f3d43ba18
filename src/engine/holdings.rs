//! What lanes hold and read, in bytes and entries.

use std::sync::Arc;

use super::core::Core;
use super::frame::{KvBytes, Memory, Reads};
use super::lane::Lane;
use crate::policy::reader::{HeadReads, Readers};

/// Of `lane`, beside lane 0's.
pub fn kv_bytes(core: &Core, lane: &Lane) -> KvBytes {
    let layers = core.config().layers.len();
    let kv_heads = core.config().kv_heads;
    let bytes = |lane: &Lane| -> Vec<u64> { (0..layers).map(|l| core.backend.cache_bytes(lane.cache, l)).collect() };
    let slots = |l| (0..kv_heads).map(|g| core.backend.positions(lane.cache, l, g).len() as u32).sum();
    let per_layer = bytes(lane);
    KvBytes {
        held: per_layer.iter().sum(),
        full: bytes(&core.lanes[0]).iter().sum(),
        per_layer,
        slots_per_layer: (0..layers).map(slots).collect(),
    }
}

/// What the newest step read of `lane`'s cache, as far as it has come.
pub fn reads(core: &Core, lane: &Lane) -> Option<Arc<Reads>> {
    let readers = core.backend.readers(lane.cache)?;
    let (layers, kv_heads, heads) = (core.config().layers.len(), core.config().kv_heads, core.config().heads);
    let mut reads = Reads { layers, kv_heads, heads, metadata_held: readers.metadata(), ..Reads::default() };
    for layer in 0..layers {
        let log = || readers.0.iter().map(|head| &head.log[layer]);
        let bytes = |of: fn(&HeadReads) -> u32| log().map(|read| of(read) as u64 * read.entry).sum::<u64>();
        reads.entries.extend(log().map(|read| read.entries));
        reads.seen.extend(log().map(|read| read.held));
        reads.bytes.push(bytes(|read| read.entries));
        reads.bytes_seen.push(bytes(|read| read.held));
        reads.metadata.push(log().map(|read| read.metadata).sum());
        let group = heads / kv_heads;
        reads
            .covered
            .extend(log().flat_map(|read| (0..group).map(|m| read.covered.get(m).copied().unwrap_or(f32::NAN))));
    }
    Some(Arc::new(reads))
}

/// Of everything that the engine holds.
pub fn memory(core: &Core) -> Memory {
    let layers = core.config().layers.len();
    let kv: u64 = core.lanes.iter().flat_map(|lane| (0..layers).map(|l| core.backend.cache_bytes(lane.cache, l))).sum();
    let chosen_by: u64 =
        core.lanes.iter().filter_map(|lane| core.backend.readers(lane.cache)).map(Readers::metadata).sum();
    Memory {
        weights: core.backend.weight_bytes(),
        kv: kv + chosen_by,
        queries: core.backend.query_bytes(),
        queries_budget: core.queries_budget,
        activations: core.backend.activation_bytes(),
        history: core.keyframes.iter().map(|k| k.bytes()).sum(),
    }
}
