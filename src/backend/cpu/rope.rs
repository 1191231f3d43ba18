//! Rotary positions of one layer's queries and keys, and the append to its caches.

use crate::backend::{Attention, Buf};

use crate::cache::Holds;

use super::elementwise::normed;
use super::program::{Exec, Items, Run};
use super::simd::{sum_by, sum_of_squares, vectorized};
use super::sources::has_queries;

/// Norms (where the model has them) and rotates queries and keys in place, appends keys and values to each row's
/// cache and keeps the queries. What a wired layer takes from another one is left alone. qkv [rows, (H + 2G)·D] = queries, keys, values. One item per head.
pub fn rope(exec: &Exec<'_>, items: Items<'_>, attention: &Attention, qkv: Buf) {
    let (h, g, d) = (exec.heads, exec.kv_heads, exec.dim);
    let half = d / 2;
    let grid = &exec.buffers[qkv.0];
    let angles = &exec.angles[attention.rope];
    items.each(h + g, 1, |head| {
        let is_key = head >= h;
        for run in exec.runs {
            let wiring = exec.wirings[run.cache];
            let holds = wiring.map_or(Holds::KeysAndValues, |wiring| wiring.holds(attention.layer));
            if is_key && holds != Holds::KeysAndValues {
                (run.first..run.first + run.len)
                    .for_each(|r| append_part(exec, attention.layer, run, r, head - h, qkv, holds));
                continue;
            }
            if !has_queries(wiring, attention.layer) {
                continue;
            }
            let lends = wiring.is_some_and(|wiring| wiring.lends_map(attention.layer));
            for r in run.first..run.first + run.len {
                // SAFETY: one thread per head's columns.
                let x = unsafe { grid.part_mut(r, head * d, (head + 1) * d) };
                if let Some((q, k, eps)) = attention.qk_norm {
                    let weight = &exec.vectors[if is_key { k.0 } else { q.0 }];
                    let copy = x.to_vec();
                    vectorized(
                        #[inline(always)]
                        || normed(&copy, weight, eps, |i, v| x[i] = v),
                    );
                }
                let before = if is_key && exec.probe_norms {
                    vectorized(
                        #[inline(always)]
                        || sum_of_squares(x),
                    )
                    .sqrt()
                } else {
                    0.0
                };
                let turns = &angles[r * half..(r + 1) * half];
                vectorized(
                    #[inline(always)]
                    || rotate(x, turns),
                );
                let position = exec.rows[r].position;
                if is_key {
                    append(exec, attention.layer, run, r, head - h, x, qkv, before);
                    continue;
                }
                if lends {
                    // SAFETY: one thread per head's columns.
                    unsafe { exec.lent_queries.part_mut(r, head * d, (head + 1) * d) }.copy_from_slice(x);
                }
                if let Some((cache, queries)) = &exec.queries
                    && *cache == run.cache
                {
                    // SAFETY: one thread per head.
                    unsafe { queries.put(attention.layer, head, position, x) };
                }
            }
        }
    });
}

/// Turns channel pairs (i, i + D/2) by their angles.
#[inline(always)]
fn rotate(x: &mut [f32], turns: &[(f32, f32)]) {
    let (a, b) = x.split_at_mut(turns.len());
    for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(turns) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

#[allow(clippy::too_many_arguments)]
fn append(exec: &Exec<'_>, layer: usize, run: &Run, r: usize, kv: usize, key: &[f32], qkv: Buf, before: f32) {
    let (h, g, d) = (exec.heads, exec.kv_heads, exec.dim);
    // SAFETY: values are not written by this operation; one thread per kv head has this cache.
    let (row, cache) = unsafe { (exec.buffers[qkv.0].row(r), exec.caches[run.cache][layer * g + kv].get()) };
    let value = &row[(h + g + kv) * d..(h + g + kv + 1) * d];
    cache.append(exec.rows[r].position, key, value);
    if exec.probe_norms {
        // SAFETY: one thread per kv head.
        let to = unsafe { exec.probes.norms.row_mut((layer * g + kv) * exec.rows.len() + r) };
        vectorized(
            #[inline(always)]
            || {
                to.copy_from_slice(&[
                    before,
                    sum_of_squares(key).sqrt(),
                    sum_by(value, f32::abs),
                    sum_of_squares(value).sqrt(),
                ])
            },
        );
    }
}

/// A slot of a layer that has another layer's keys, or keys and values; norms of what is not there are NaN.
fn append_part(exec: &Exec<'_>, layer: usize, run: &Run, r: usize, kv: usize, qkv: Buf, holds: Holds) {
    let (h, g, d) = (exec.heads, exec.kv_heads, exec.dim);
    // SAFETY: values are not written by this operation; one thread per kv head has this cache.
    let (row, cache) = unsafe { (exec.buffers[qkv.0].row(r), exec.caches[run.cache][layer * g + kv].get()) };
    let value = &row[(h + g + kv) * d..(h + g + kv + 1) * d];
    cache.append(exec.rows[r].position, &[], value);
    if exec.probe_norms {
        // SAFETY: one thread per kv head.
        let to = unsafe { exec.probes.norms.row_mut((layer * g + kv) * exec.rows.len() + r) };
        to.fill(f32::NAN);
        if holds == Holds::Values {
            (to[2], to[3]) = (sum_by(value, f32::abs), sum_of_squares(value).sqrt());
        }
    }
}
