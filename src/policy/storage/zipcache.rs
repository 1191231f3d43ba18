//! ZipCache: salient tokens in more bits than the rest (He et al. 2024, arXiv 2405.14256).
//!
//! After the prompt of T tokens, probe queries rate each held token t of a kv head: Σ A[h, q, t] over the group's heads h
//! and the probes q (the last 5 % and, drawn with replacement, 5 % of the others), divided by T − t. The ⌊40 %⌋ lowest
//! are stored in 2 bit, the others in 4. Keys per channel, all tokens of one width sharing scale and zero point; values
//! per token, every channel first divided by √max|x| over the tokens. After every 100 steps, the newest query's own row
//! rates the tokens that came since, and everything is read back and packed anew with them; until then those are exact.
//!
//! The paper divides by the number of probes that see t, the authors' code (default here) by T − t: `divide=probes`.
//! Their code draws other probes in every run, and its tokens share a scale over all kv heads; here a seed is given and
//! every kv head has its own.

use linkme::distributed_slice;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::descriptor::{Descriptor, Family, Paper};
use super::super::key::{Choice, Count, Key, Real};
use super::super::part::{LayerView, Moment, Part};
use super::{BITS, Storage};
use crate::cache::{Code, Groups, Pack, Packing, Quantization, Smoothing};
use crate::policy::registry::REGISTERED;

static HIGH: Key<Choice<u8>> = Key::new("high", "bits of salient tokens", BITS, 4);
static LOW: Key<Choice<u8>> = Key::new("low", "bits of the others", BITS, 2);
static RATIO: Key<Real> = Key::new("ratio", "share of tokens stored in few bits", Real(0.0, 1.0), 0.4);
static PROBES: Key<Real> =
    Key::new("probes", "share of the queries that rate, newest ones and once more drawn ones", Real(0.0, 0.5), 0.05);
static EVERY: Key<Count> = Key::new("every", "steps between two packings", Count(1, 1_000_000), 100);
static DIVIDE: Key<Choice<Divide>> = Key::new(
    "divide",
    "what a token's sum is divided by",
    Choice(&[("seen", Divide::Seen), ("probes", Divide::Probes)]),
    Divide::Seen,
);
static SEED: Key<Count> = Key::new("seed", "of the drawn queries", Count(0, u64::MAX), 0).spelled_out();

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "zipcache",
    family: Family::Quantizer,
    idea: "tokens that probe queries look at in 4 bit, the others in 2",
    paper: Some(Paper {
        title: "ZipCache: Accurate and Efficient KV Cache Quantization with Salient Token Identification",
        arxiv: "2405.14256",
    }),
    budget: None,
    keys: &[&HIGH, &LOW, &RATIO, &PROBES, &EVERY, &DIVIDE, &SEED],
    build: |spec| {
        Part::storage(ZipCache {
            high: spec.get(&HIGH),
            low: spec.get(&LOW),
            ratio: spec.get(&RATIO),
            probes: spec.get(&PROBES),
            every: spec.get(&EVERY),
            divide: spec.get(&DIVIDE),
            seed: spec.get(&SEED),
        })
    },
};

#[derive(Clone, Copy, PartialEq)]
enum Divide {
    Seen,
    Probes,
}

struct ZipCache {
    high: u8,
    low: u8,
    ratio: f64,
    probes: f64,
    every: u64,
    divide: Divide,
    seed: u64,
}

impl Storage for ZipCache {
    fn pack(&self, at: Moment, packed: &[(usize, usize)], view: &dyn LayerView) -> Vec<Packing> {
        if !(at.step as u64).is_multiple_of(self.every) {
            return Vec::new();
        }
        let probes = self.probes(at);
        let one = |(kv_head, &(from, _)): (usize, &(usize, usize))| {
            let rating = match at.step {
                0 => self.rate(kv_head, &probes, view),
                _ => newest_row(kv_head, view),
            };
            let code = |groups, smoothing| {
                Code::Quantized(Quantization { bits: self.high, low: Some(self.low), groups, smoothing })
            };
            let to = rating.len();
            Packing {
                keys: Some(Pack { to, code: code(Groups::PerChannel(usize::MAX), Smoothing::None) }),
                values: Some(Pack { to, code: code(Groups::PerToken(usize::MAX), Smoothing::RootMax) }),
                salient: salient(&rating, from, self.ratio),
                again: true,
            }
        };
        packed.iter().enumerate().map(one).collect()
    }

    fn window(&self, prompt: usize) -> usize {
        prompt
    }
}

impl ZipCache {
    /// Positions of the probe queries, the newest last.
    fn probes(&self, at: Moment) -> Vec<u32> {
        let newest = (at.prompt as f64 * (1.0 - self.probes)) as u32;
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(at.layer as u64);
        let drawn = if newest == 0 { 0 } else { (at.prompt as f64 * self.probes) as usize };
        let mut probes: Vec<u32> = (0..drawn).map(|_| random.random_range(0..newest)).collect();
        probes.extend(newest..at.prompt as u32);
        probes
    }

    /// [n]
    fn rate(&self, kv_head: usize, probes: &[u32], view: &dyn LayerView) -> Vec<f32> {
        let positions = view.positions(kv_head);
        let mut sums = vec![0.0f32; positions.len()];
        for head in kv_head * view.group()..(kv_head + 1) * view.group() {
            for run in probes.chunk_by(|a, b| a + 1 == *b) {
                for row in view.rows(head, run[0]..run[0] + run.len() as u32).chunks_exact(positions.len().max(1)) {
                    sums.iter_mut().zip(row).for_each(|(sum, a)| *sum += a);
                }
            }
        }
        for (sum, &position) in sums.iter_mut().zip(positions) {
            *sum /= match self.divide {
                Divide::Seen => (view.seen() - position) as f32,
                Divide::Probes => probes.iter().filter(|&&probe| probe >= position).count().max(1) as f32,
            };
        }
        sums
    }
}

/// Sum over the group [n].
fn newest_row(kv_head: usize, view: &dyn LayerView) -> Vec<f32> {
    let mut sums = vec![0.0f32; view.positions(kv_head).len()];
    for head in kv_head * view.group()..(kv_head + 1) * view.group() {
        let row = view.rows(head, view.newest()..view.newest() + 1);
        sums.iter_mut().zip(row).for_each(|(sum, a)| *sum += a);
    }
    sums
}

/// All but the ⌊ratio⌋ lowest of those from slot `from` on; ties: the older is stored in few bits [n].
fn salient(rating: &[f32], from: usize, ratio: f64) -> Vec<bool> {
    let mut slots: Vec<usize> = (from..rating.len()).collect();
    slots.sort_by(|&a, &b| rating[a].total_cmp(&rating[b]));
    let low = (slots.len() as f64 * ratio) as usize;
    let mut salient = vec![true; rating.len()];
    slots[..low].iter().for_each(|&slot| salient[slot] = false);
    salient
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{close, moment, random_layer, toy};

    fn zipcache(divide: Divide) -> ZipCache {
        ZipCache { high: 4, low: 2, ratio: 0.4, probes: 0.2, every: 100, divide, seed: 7 }
    }

    /// Of six tokens, the newest two are probes, and one of the others.
    #[test]
    fn probes_rate_the_toy() {
        let (layer, zip) = (toy(), zipcache(Divide::Seen));
        let probes = zip.probes(moment(6, 0));
        assert_eq!((probes.len(), &probes[1..]), (3, &[4, 5][..]));
        assert!(probes[0] < 4);
        let row = |head: usize, q: u32| layer.rows(head, q..q + 1);
        let sum = |t: usize| {
            (0..2).flat_map(|head| probes.iter().map(move |&q| (head, q))).map(|(h, q)| row(h, q)[t]).sum::<f32>()
        };
        let seen: Vec<f32> = (0..6).map(|t| sum(t) / (6 - t) as f32).collect();
        close(&zip.rate(0, &probes, &layer), &seen);
        let by_probes: Vec<f32> =
            (0..6).map(|t| sum(t) / probes.iter().filter(|&&q| q as usize >= t).count() as f32).collect();
        close(&zipcache(Divide::Probes).rate(0, &probes, &layer), &by_probes);
    }

    #[test]
    fn the_lowest_two_fifths_get_few_bits_and_later_only_new_tokens_are_rated() {
        let zip = zipcache(Divide::Seen);
        let mut layer = random_layer(3, (2, 2), 4, 40);
        layer.newest = 29;
        layer.held = vec![(0..30).collect(); 2];
        let first = zip.pack(moment(30, 0), &[(0, 0); 2], &layer);
        for packing in &first {
            assert_eq!(packing.salient.iter().filter(|s| !**s).count(), 12);
        }
        assert_eq!(first, zip.pack(moment(30, 0), &[(0, 0); 2], &layer), "drawn probes are the same");
        assert!(zip.pack(moment(30, 99), &[(30, 30); 2], &layer).is_empty());
        (0..10).for_each(|_| layer.step());
        for (kv_head, packing) in zip.pack(moment(30, 100), &[(30, 30); 2], &layer).iter().enumerate() {
            let row = newest_row(kv_head, &layer);
            let low: Vec<usize> = (30..40).filter(|&slot| !packing.salient[slot]).collect();
            assert_eq!((low.len(), packing.again), (4, true));
            assert!(
                (30..40).filter(|slot| !low.contains(slot)).all(|high| low.iter().all(|&low| row[low] <= row[high]))
            );
        }
    }
}
