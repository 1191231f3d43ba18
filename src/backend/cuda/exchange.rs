//! Caches between a device and this machine, bit for bit.

use std::sync::Arc;

use rayon::prelude::*;

use super::cache::{DeviceCache, Kind};
use super::device::Device;
use crate::backend::Result;
use crate::cache::HeadCache;

/// What kv head `head` holds, here.
pub fn to_host(cache: &DeviceCache, kind: Kind, head: usize) -> Result<HeadCache> {
    let (keys, values) = (cache.numbers(head, false)?, cache.numbers(head, true)?);
    let mut copy = HeadCache::new(kind.cells, kind.dim, kind.group);
    let positions = cache.positions(head);
    copy.reserve(positions.len() + 1);
    for ((&position, key), value) in
        positions.iter().zip(keys.chunks_exact(kind.dim)).zip(values.chunks_exact(kind.dim))
    {
        copy.append(position, key, value);
    }
    for member in 0..kind.group {
        copy.received[member][..positions.len()].copy_from_slice(cache.sums(head, member, false)?);
        copy.row[member][..positions.len()].copy_from_slice(cache.sums(head, member, true)?);
    }
    copy.offsets = cache.offsets(head).to_vec();
    Ok(copy)
}

/// All heads of a cache.
pub fn all_to_host(cache: &DeviceCache, kind: Kind, heads: usize) -> Result<Vec<HeadCache>> {
    (0..heads).into_par_iter().map(|head| to_host(cache, kind, head)).collect()
}

/// A cache on the device with what the heads hold, nothing of which is packed.
pub fn to_device(device: &Arc<dyn Device>, kind: Kind, heads: &[&HeadCache]) -> Result<DeviceCache> {
    let lens: Vec<usize> = heads.iter().map(|head| head.len()).collect();
    let mut cache = DeviceCache::empty_with(device, kind, &lens)?;
    for (i, head) in heads.iter().enumerate() {
        cache.fill(i, &head.positions, [&head.keys(), &head.values()], &head.offsets)?;
        let sums = |of: &[crate::cache::Strand]| of.iter().map(|sums| sums[..head.len()].to_vec()).collect::<Vec<_>>();
        cache.put_sums(i, &sums(&head.received), &sums(&head.row))?;
    }
    Ok(cache)
}
