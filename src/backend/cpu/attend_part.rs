//! Attention of single rows that read a part of their cache: between the scores and the weighted values, in place of
//! the softmax over all.

use crate::backend::{Attention, Buf};
use crate::cache::TILE;
use crate::policy::reader::{Choice, Follower, HeadReads, Picked, Sight};

use super::attend_single::{cache, runs};
use super::attention::put;
use super::program::{Exec, Items, Run};
use super::simd::vectorized;
use super::softmax::{RowReductions, softmax, softmax_part};

/// Lets each cache's readers choose and turns the scores of what they read into probabilities; the others are 0.
/// Layers with a window of their own are read whole. One item per kv head.
pub fn attend(exec: &Exec<'_>, items: Items<'_>, attention: &Attention, qkv: Buf) {
    let work: Vec<_> =
        runs(exec).into_iter().filter_map(|run| Some((run, exec.readers[run.cache].as_ref()?))).collect();
    items.each(work.len() * exec.kv_heads, 1, |item| {
        let ((run, readers), kv) = (work[item / exec.kv_heads], item % exec.kv_heads);
        // SAFETY: one thread per kv head of a cache.
        one(exec, attention, qkv, run, kv, unsafe { readers[kv].get() });
    });
}

fn one(exec: &Exec<'_>, attention: &Attention, qkv: Buf, run: &Run, kv: usize, follower: &mut Follower) {
    let (d, group) = (exec.dim, exec.heads / exec.kv_heads);
    // SAFETY: keys, values and positions are not changed, nobody writes qkv; one thread per kv head's rows and sums.
    let (cache, seen) = unsafe { cache(exec, attention, run, kv) };
    let queries = unsafe { &exec.buffers[qkv.0].row(run.first)[kv * group * d..(kv + 1) * group * d] };
    let row = |m: usize| unsafe { cache.row[m].part_mut(0..cache.cells().next_multiple_of(TILE)) };
    (0..group).for_each(|m| cache.close(row(m)));
    let (positions, offsets) = (&cache.positions[seen.clone()], cache.offsets.get(seen.clone()).unwrap_or_default());
    let part = Part { exec, attention, position: exec.rows[run.first].position, positions, offsets };

    let mut dense: Vec<Vec<f32>> = Vec::with_capacity(group);
    let mut reductions = Vec::with_capacity(group);
    for m in 0..group {
        let mut all = row(m)[seen.clone()].to_vec();
        reductions.push(part.softmax(&mut all, positions, offsets));
        dense.push(all);
    }
    let keys = |slots: std::ops::Range<usize>| cache.keys_of(seen.start + slots.start..seen.start + slots.end);
    let sight = Sight {
        layer: attention.layer,
        position: part.position,
        queries,
        positions,
        dense: &dense,
        entry: cache.live_bytes() / cache.len().max(1) as u64,
        keys: &keys,
    };
    let choice = if attention.window.is_some() { Choice::all() } else { follower.reader.read(&sight) };

    let mut read = vec![choice.heads.is_none(); seen.len()];
    let mut covered = vec![1.0; group];
    for m in 0..group {
        let row = row(m);
        row[..seen.start].fill(0.0);
        row[seen.end..].fill(0.0);
        let row = &mut row[seen.clone()];
        match &choice.heads {
            None => row.copy_from_slice(&dense[m]),
            Some(heads) => {
                let own = Picked { slots: vec![seen.len() as u32 - 1], offsets: Vec::new() };
                let picked = if heads[m].slots.is_empty() { &own } else { &heads[m] };
                reductions[m] = part.spread(picked, row);
                picked.slots.iter().for_each(|&slot| read[slot as usize] = true);
                if picked.slots.len() < seen.len() {
                    let mass: f64 = picked.slots.iter().map(|&slot| dense[m][slot as usize] as f64).sum();
                    covered[m] = (mass as f32).min(1.0);
                }
            }
        }
        // SAFETY: as above.
        let received = unsafe { cache.received[m].part_mut(seen.clone()) };
        received.iter_mut().zip(&*row).for_each(|(sum, p)| *sum += p);
        put(exec, attention.layer, kv * group + m, run, run.first, reductions[m]);
    }
    if attention.window.is_none() {
        let rows: Vec<&[f32]> = (0..group).map(|m| &row(m)[seen.clone()]).collect();
        follower.reader.learn(&sight, &rows);
    }
    follower.log[attention.layer] = HeadReads {
        entries: read.iter().map(|&read| read as u32).sum(),
        held: seen.len() as u32,
        entry: sight.entry,
        metadata: choice.metadata,
        covered,
    };
}

/// What a query sees.
struct Part<'a> {
    exec: &'a Exec<'a>,
    attention: &'a Attention,
    /// Of the query.
    position: u32,
    /// [n]
    positions: &'a [u32],
    /// What the cache adds to logits, nats [n or none].
    offsets: &'a [f32],
}

impl Part<'_> {
    fn softmax(&self, scores: &mut [f32], positions: &[u32], offsets: &[f32]) -> RowReductions {
        let (scale, cap, recent) = (self.attention.scale, self.attention.softcap, self.exec.recent_window);
        vectorized(
            #[inline(always)]
            || softmax(scores, positions, self.position, scale, cap, offsets, recent),
        )
    }

    /// Raw scores of all slots [n] to probabilities of those picked.
    fn spread(&self, picked: &Picked, row: &mut [f32]) -> RowReductions {
        let (scale, cap, recent) = (self.attention.scale, self.attention.softcap, self.exec.recent_window);
        let Picked { slots, offsets } = picked;
        softmax_part(row, slots, offsets, self.positions, self.position, scale, cap, self.offsets, recent)
    }
}
