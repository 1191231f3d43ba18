//! MagicPIG: samples entries by locality-sensitive hashing and weighs them by how likely each was (Chen et al. 2024,
//! arXiv 2410.16179).
//!
//! Keys of the prompt (after rope) minus their mean are hashed: in each of l tables the signs of k random hyperplanes
//! are a code. An entry is sampled by a query head if its code is the query's in at least two tables. With θ the angle
//! of query and centred key, u = (1 − θ/π)^k is the chance of one collision and p = 1 − (1−u)^l − l·u·(1−u)^(l−1) that of
//! two; a sampled entry's logit gets −ln p, so that the row estimates the dense one. The first `sinks` and the last
//! `local` tokens of the prompt and all generated ones are read always, unweighted. Every `dense`-th layer, from the
//! first on, reads everything.
//!
//! Defaults: k = 10, l = 150, 4 sinks, 64 local, every 16th layer. How much is read follows from k and l, there is no
//! budget. One set of planes for all layers and heads, as in the authors' code; drawn from `seed`. Tables are codes in
//! order and the entries they belong to, 6 bytes per table and entry: more than the cache itself.

use std::f64::consts::{PI, TAU};
use std::sync::Arc;

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Count, Key};
use super::part::{LaneView, Part};
use super::random::{INCREMENT, mix};
use super::reader::{Choice, HeadReader, Picked, Reader, Setting, Sight};
use super::registry::REGISTERED;
use crate::simd::vectorized;

static K: Key<Count> = Key::new("k", "hyperplanes of a table", Count(1, 16), 10);
static L: Key<Count> = Key::new("l", "tables", Count(2, 1024), 150);
static SINKS: Key<Count> = Key::new("sinks", "first positions that are read always", Count(0, 1_000_000), 4);
static LOCAL: Key<Count> = Key::new("local", "last tokens of the prompt that are read always", Count(0, 1_000_000), 64);
static DENSE: Key<Count> =
    Key::new("dense", "every so many layers one reads everything; 0 for none", Count(0, 1024), 16);
static SEED: Key<Count> = Key::new("seed", "which of the random planes", Count(0, u64::MAX), 0).spelled_out();

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "magicpig",
    family: Family::Reader,
    idea: "sample entries whose hashed keys collide with the query",
    paper: Some(Paper { title: "MagicPIG: LSH Sampling for Efficient LLM Generation", arxiv: "2410.16179" }),
    budget: None,
    keys: &[&K, &L, &SINKS, &LOCAL, &DENSE, &SEED],
    build: |spec| {
        Part::reader(MagicPig {
            k: spec.get(&K) as u32,
            l: spec.get(&L) as usize,
            sinks: spec.get(&SINKS) as u32,
            local: spec.get(&LOCAL) as usize,
            dense: spec.get(&DENSE) as usize,
            seed: spec.get(&SEED),
        })
    },
};

#[derive(Clone, Copy)]
struct MagicPig {
    k: u32,
    l: usize,
    sinks: u32,
    local: usize,
    dense: usize,
    seed: u64,
}

impl Reader for MagicPig {
    fn start(&self, setting: Setting, _lane: &dyn LaneView) -> Vec<Box<dyn HeadReader>> {
        let planes = Arc::new(Planes::draw(self, setting.head_dim));
        let head = || HeadPig {
            planes: planes.clone(),
            own: *self,
            prompt: setting.prompt,
            layers: vec![None; setting.layers],
        };
        (0..setting.kv_heads).map(|_| Box::new(head()) as Box<dyn HeadReader>).collect()
    }
}

/// Chance that a key at the angle with this cosine collides with the query in two tables at least.
fn chance(cosine: f64, k: u32, l: usize) -> f64 {
    let u = (1.0 - cosine.clamp(-1.0, 1.0).acos() / PI).powi(k as i32);
    1.0 - (1.0 - u).powi(l as i32) - l as f64 * u * (1.0 - u).powi(l as i32 - 1)
}

/// Normals of the hyperplanes of all tables, side by side [D][l · k].
struct Planes {
    k: usize,
    normals: Vec<f32>,
    width: usize,
}

impl Planes {
    fn draw(of: &MagicPig, dim: usize) -> Self {
        let width = of.l * of.k as usize;
        let uniform = |i: u64| (mix(mix(of.seed) ^ i.wrapping_mul(INCREMENT)) >> 11) as f64 / (1u64 << 53) as f64;
        // Box and Muller; 1 − u is never 0
        let normal = |i: u64| (-2.0 * (1.0 - uniform(2 * i)).ln()).sqrt() * (TAU * uniform(2 * i + 1)).cos();
        Self { k: of.k as usize, normals: (0..(dim * width) as u64).map(|i| normal(i) as f32).collect(), width }
    }

    /// Code of `x` [D] in each table [l].
    fn codes(&self, x: &[f32]) -> Vec<u16> {
        let mut along = vec![0.0f32; self.width];
        vectorized(
            #[inline(always)]
            || {
                for (x, normals) in x.iter().zip(self.normals.chunks_exact(self.width)) {
                    along.iter_mut().zip(normals).for_each(|(sum, n)| *sum = x.mul_add(*n, *sum));
                }
            },
        );
        let code = |along: &[f32]| along.iter().rev().fold(0, |code, &a| code << 1 | (a > 0.0) as u16);
        along.chunks_exact(self.k).map(code).collect()
    }
}

/// The hashed keys of one layer.
struct Tables {
    /// Of the hashed entries, ascending [n].
    positions: Vec<u32>,
    mean: Vec<f32>,
    /// Codes in ascending order, and whose they are [l][n].
    codes: Vec<u16>,
    owners: Vec<u32>,
}

impl Tables {
    fn of(planes: &Planes, positions: &[u32], keys: &[f32], dim: usize) -> Self {
        let n = positions.len();
        let mut sums = vec![0.0f64; dim];
        for key in keys.chunks_exact(dim) {
            sums.iter_mut().zip(key).for_each(|(sum, &k)| *sum += k as f64);
        }
        let mean: Vec<f32> = sums.iter().map(|sum| (sum / n.max(1) as f64) as f32).collect();
        // [n][l], then table by table
        let all: Vec<Vec<u16>> = keys.chunks_exact(dim).map(|key| planes.codes(&centred(key, &mean))).collect();
        let (mut codes, mut owners) = (Vec::new(), Vec::new());
        for table in 0..planes.width / planes.k {
            let mut order: Vec<(u16, u32)> = all.iter().map(|codes| codes[table]).zip(0..).collect();
            order.sort_unstable();
            codes.extend(order.iter().map(|(code, _)| code));
            owners.extend(order.iter().map(|(_, owner)| owner));
        }
        Self { positions: positions.to_vec(), mean, codes, owners }
    }

    /// How many tables have each entry under the query's code [n], and how many bytes of them were read for that.
    fn collisions(&self, query: &[u16]) -> (Vec<u16>, u64) {
        let n = self.positions.len();
        let (mut counts, mut bytes) = (vec![0u16; n], 0);
        if n == 0 {
            return (counts, bytes);
        }
        for ((codes, owners), wanted) in self.codes.chunks_exact(n).zip(self.owners.chunks_exact(n)).zip(query) {
            let first = codes.partition_point(|code| code < wanted);
            let found = codes[first..].partition_point(|code| code <= wanted);
            owners[first..first + found].iter().for_each(|&owner| counts[owner as usize] += 1);
            // two searches by halves through codes of two bytes, then owners of four
            bytes += 2 * 2 * (usize::BITS - n.leading_zeros()) as u64 + 4 * found as u64;
        }
        (counts, bytes)
    }

    fn bytes(&self) -> u64 {
        (2 * self.codes.len() + 4 * self.owners.len() + 4 * self.positions.len() + 4 * self.mean.len()) as u64
    }
}

fn centred(key: &[f32], mean: &[f32]) -> Vec<f32> {
    key.iter().zip(mean).map(|(k, m)| k - m).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
}

#[derive(Clone)]
struct HeadPig {
    planes: Arc<Planes>,
    own: MagicPig,
    /// Tokens of the prompt.
    prompt: usize,
    /// Hashed at the first step, from what is held of the prompt then.
    layers: Vec<Option<Arc<Tables>>>,
}

impl HeadPig {
    /// Slots of the hashed among those in sight.
    fn hashed(&self, sight: &Sight<'_>) -> std::ops::Range<usize> {
        let below = |position: u32| sight.positions.partition_point(|&p| p < position);
        let end = below(self.prompt.saturating_sub(self.own.local) as u32);
        below(self.own.sinks).min(end)..end
    }

    fn pick(&self, tables: &Tables, sight: &Sight<'_>, query: &[f32]) -> (Picked, u64) {
        let (counts, bytes) = tables.collisions(&self.planes.codes(query));
        let hashed = self.hashed(sight);
        let mut picked = Picked::default();
        for slot in 0..sight.positions.len() {
            let offset = if hashed.contains(&slot) {
                // a position that was not held when the others were hashed is none of theirs
                let Ok(own) = tables.positions.binary_search(&sight.positions[slot]) else { continue };
                if counts[own] < 2 {
                    continue;
                }
                let key = centred(&(sight.keys)(slot..slot + 1), &tables.mean);
                -chance(cosine(query, &key), self.own.k, self.own.l).max(f64::MIN_POSITIVE).ln()
            } else {
                0.0
            };
            picked.slots.push(slot as u32);
            picked.offsets.push(offset as f32);
        }
        (picked, bytes)
    }
}

impl HeadReader for HeadPig {
    fn read(&mut self, sight: &Sight<'_>) -> Choice {
        if self.own.dense > 0 && sight.layer.is_multiple_of(self.own.dense) {
            return Choice::all();
        }
        let dim = sight.queries.len() / sight.dense.len();
        let tables = match &self.layers[sight.layer] {
            Some(tables) => tables.clone(),
            None => {
                let slots = self.hashed(sight);
                let positions = &sight.positions[slots.clone()];
                Arc::new(Tables::of(&self.planes, positions, &(sight.keys)(slots), dim))
            }
        };
        let picked: Vec<_> = sight.queries.chunks_exact(dim).map(|query| self.pick(&tables, sight, query)).collect();
        self.layers[sight.layer] = Some(tables);
        let metadata = picked.iter().map(|(_, bytes)| bytes).sum();
        Choice { heads: Some(picked.into_iter().map(|(picked, _)| picked).collect()), metadata }
    }

    fn metadata(&self) -> u64 {
        self.layers.iter().flatten().map(|tables| tables.bytes()).sum()
    }

    fn copy(&self) -> Box<dyn HeadReader> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::reading::{dense, look, reader};
    use crate::policy::testing::{Layer, random_layer};

    fn picked(spec: &str, layer: &Layer) -> Vec<Picked> {
        look(layer, 1, |sight| reader(spec, layer).read(sight)).heads.expect("a part")
    }

    #[test]
    fn the_chance_of_two_collisions_is_the_papers() {
        assert!((chance((PI / 4.0).cos(), 10, 150) - 0.998333).abs() < 5e-7);
        assert!((chance((PI / 2.0).cos(), 10, 150) - 0.009684).abs() < 5e-7);
        assert!(chance(1.0, 10, 150) == 1.0 && chance(-1.0, 10, 150) == 0.0);
    }

    /// Signs one by one, tables one by one.
    #[test]
    fn what_collides_twice_is_read_with_its_weight() {
        let layer = random_layer(5, (1, 2), 4, 60);
        let own = MagicPig { k: 3, l: 6, sinks: 2, local: 10, dense: 0, seed: 7 };
        let planes = Planes::draw(&own, 4);
        let side = |x: &[f32], plane: usize| (0..4).map(|c| x[c] * planes.normals[c * 18 + plane]).sum::<f32>() > 0.0;
        let key = |slot: usize| &layer.keys[0][slot * 4..slot * 4 + 4];
        let mean: Vec<f32> = (0..4).map(|c| (2..50).map(|s| key(s)[c]).sum::<f32>() / 48.0).collect();
        let heads = picked("magicpig:k=3,l=6,sinks=2,local=10,dense=0,seed=7", &layer);
        let mut sampled = 0;
        for (head, picked) in heads.iter().enumerate() {
            let query = &layer.queries[head][59 * 4..];
            let mut slots = picked.slots.iter().zip(&picked.offsets);
            for slot in 0..60 {
                let centred: Vec<f32> = key(slot).iter().zip(&mean).map(|(k, m)| k - m).collect();
                let same =
                    |table: &usize| (0..3).all(|bit| side(query, table * 3 + bit) == side(&centred, table * 3 + bit));
                let collisions = (0..6).filter(same).count();
                if (2..50).contains(&slot) && collisions < 2 {
                    continue;
                }
                let (&read, &offset) = slots.next().unwrap();
                assert_eq!(read, slot as u32);
                let weight = if (2..50).contains(&slot) { -chance(cosine(query, &centred), 3, 6).ln() } else { 0.0 };
                assert!((offset as f64 - weight).abs() < 1e-5 * (1.0 + weight));
                sampled += (2..50).contains(&slot) as usize;
            }
            assert!(slots.next().is_none());
        }
        assert!((1..96).contains(&sampled), "{sampled}");
    }

    /// Over many draws of the planes the weighted sums are the dense ones.
    #[test]
    fn the_estimate_is_right_on_average_and_a_seed_decides_it() {
        let layer = random_layer(6, (1, 1), 4, 60);
        let row = &dense(&layer)[0];
        let wanted: f64 = row[4..50].iter().map(|&p| p as f64).sum();
        let draws = 400;
        let mass = |seed: usize| -> f64 {
            let heads = picked(&format!("magicpig:k=2,l=6,sinks=4,local=10,dense=0,seed={seed}"), &layer);
            let sampled = heads[0].slots.iter().zip(&heads[0].offsets).filter(|(slot, _)| (4..50).contains(*slot));
            sampled.map(|(&slot, &offset)| row[slot as usize] as f64 * (offset as f64).exp()).sum()
        };
        let masses: Vec<f64> = (0..draws).map(mass).collect();
        let mean = masses.iter().sum::<f64>() / draws as f64;
        let spread = masses.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (draws - 1) as f64;
        let error = (spread / draws as f64).sqrt();
        assert!((mean - wanted).abs() < 4.0 * error && error < 0.05 * wanted, "{mean} ± {error}, not {wanted}");
        assert_eq!(mass(3), masses[3]);
        assert_ne!(masses[3], masses[4]);
    }

    #[test]
    fn what_is_always_read_and_whole_layers_cost_no_tables() {
        let layer = random_layer(8, (1, 2), 4, 30);
        let mut pig = reader("magicpig:k=2,l=8,sinks=0,local=100", &layer);
        let everything = Picked { slots: (0..30).collect(), offsets: vec![0.0; 30] };
        assert_eq!(look(&layer, 1, |sight| pig.read(sight)).heads, Some(vec![everything; 2]));
        assert_eq!(look(&layer, 16, |sight| reader("magicpig", &layer).read(sight)), Choice::all());
    }

    #[test]
    fn tables_stay_those_of_the_prompt_when_entries_leave() {
        let mut layer = random_layer(9, (1, 1), 4, 70);
        let spec = "magicpig:k=2,l=8,sinks=2,local=10,dense=0";
        (layer.newest, layer.held) = (59, vec![(0..60).collect()]);
        let mut pig = reader(spec, &layer);
        let first = look(&layer, 1, |sight| pig.read(sight)).heads.unwrap();
        let held = pig.metadata();
        layer.held[0].retain(|p| p % 4 != 1);
        let mut copy = pig.copy();
        let second = look(&layer, 1, |sight| pig.read(sight));
        assert_eq!(look(&layer, 1, |sight| copy.read(sight)), second);
        let positions = |picked: &Picked| picked.slots.iter().map(|&s| layer.held[0][s as usize]).collect::<Vec<_>>();
        let left: Vec<u32> = first[0].slots.iter().copied().filter(|p| p % 4 != 1).collect();
        assert_eq!(positions(&second.heads.unwrap()[0]), left);
        assert_eq!(pig.metadata(), held);
    }
}
