//! Packing against a store that keeps plain numbers: quantised and back by the definition.

use proptest::prelude::*;

use super::definition::{read_back, smoothed};
use super::*;

const DIM: usize = 6;

/// Keys or values as they should read: packed ones first.
#[derive(Clone, Default)]
struct Side {
    packed: Vec<(Vec<f32>, bool)>,
    exact: Vec<Vec<f32>>,
    smoothing: Option<[Vec<f32>; 2]>,
}

impl Side {
    fn pack(&mut self, to: usize, code: &Code, salient: &[bool], again: bool) {
        let from = self.packed.len();
        let to = to.clamp(from, from + self.exact.len());
        let anew = again && from > 0;
        if to == from && !anew {
            return;
        }
        let mut new: Vec<(Vec<f32>, bool)> =
            self.exact.drain(..to - from).enumerate().map(|(i, x)| (x, salient.get(from + i) == Some(&true))).collect();
        if anew {
            new.splice(0..0, std::mem::take(&mut self.packed));
            self.smoothing = None;
        }
        match code {
            Code::Thin(channels) => {
                for (x, _) in &mut new {
                    x.iter_mut()
                        .enumerate()
                        .filter(|(c, _)| !channels.contains(&(*c as u32)))
                        .for_each(|(_, x)| *x = 0.0);
                }
            }
            Code::Quantized(code) => {
                let rows: Vec<Vec<f32>> = new.iter().map(|(x, _)| x.clone()).collect();
                let smooth = smoothed(rows, code.smoothing, &mut self.smoothing);
                for wide in [true, false] {
                    let bits = if wide { code.bits } else { code.low.unwrap_or(code.bits) };
                    let of = |salient: bool| code.low.is_none() && wide || code.low.is_some() && salient == wide;
                    let members: Vec<usize> = (0..new.len()).filter(|&i| of(new[i].1)).collect();
                    let x: Vec<f32> = members.iter().flat_map(|&i| smooth[i].clone()).collect();
                    let back = read_back(&x, DIM, bits, code.groups);
                    let back = back.chunks(DIM).map(<[f32]>::to_vec).collect();
                    for (i, x) in members.iter().zip(definition::rough(back, code.smoothing, &self.smoothing)) {
                        new[*i].0 = x;
                    }
                }
            }
        }
        self.packed.extend(new);
    }

    fn retain(&mut self, keep: &[u32]) {
        let held = self.packed.len();
        let keeps = |slot: usize| keep.contains(&(slot as u32));
        let mut slot = 0..;
        self.packed.retain(|_| keeps(slot.next().unwrap()));
        let mut slot = held..;
        self.exact.retain(|_| keeps(slot.next().unwrap()));
    }

    fn all(&self) -> Vec<f32> {
        self.packed.iter().map(|(x, _)| x).chain(&self.exact).flatten().copied().collect()
    }
}

#[derive(Debug, Clone)]
enum Act {
    Append(usize),
    Pack {
        keys: usize,
        values: usize,
        again: bool,
    },
    /// Keeps all slots that are not a multiple of so many.
    Retain(usize),
    Fork,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (1usize..40).prop_map(Act::Append),
        3 => (0usize..90, 0usize..90, prop::bool::weighted(0.2)).prop_map(|(keys, values, again)| Act::Pack { keys, values, again }),
        2 => (2usize..9).prop_map(Act::Retain),
        1 => Just(Act::Fork),
    ];
    prop::collection::vec(act, 1..14)
}

fn codes() -> impl Strategy<Value = Code> {
    let groups = prop_oneof![(1usize..8).prop_map(Groups::PerToken), (1usize..20).prop_map(Groups::PerChannel)];
    let bits = || prop::sample::select(vec![2u8, 4, 8]);
    let smoothing =
        prop::sample::select(vec![Smoothing::None, Smoothing::Hadamard, Smoothing::RootMax, Smoothing::Range]);
    let quantized = (bits(), prop::option::of(bits()), groups, smoothing)
        .prop_map(|(bits, low, groups, smoothing)| Code::Quantized(Quantization { bits, low, groups, smoothing }));
    prop_oneof![4 => quantized, 1 => Just(Code::Thin(vec![1, 4, 5])), 1 => Just(Code::Thin(vec![]))]
}

proptest! {
    #[test]
    fn whatever_happens_a_cache_reads_as_the_plain_store_does(
        acts in acts(), key_code in codes(), value_code in codes(), kind in prop::sample::select(vec![KvType::F32, KvType::F16])
    ) {
        let mut cache = HeadCache::new(kind, DIM, 2);
        let (mut keys, mut values) = (Side::default(), Side::default());
        let (mut positions, mut next) = (Vec::new(), 0u32);
        for act in acts {
            match act {
                Act::Append(count) => {
                    cache.reserve(count);
                    for _ in 0..count {
                        // quarters: exact in half precision
                        let number = |seed: u32, c: u32| ((next * 29 + c * 13 + seed + next * next * c) % 61) as f32 / 4.0 - 7.0;
                        let key: Vec<f32> = (0..DIM as u32).map(|c| number(3, c)).collect();
                        let value: Vec<f32> = (0..DIM as u32).map(|c| number(17, c)).collect();
                        cache.append(next, &key, &value);
                        keys.exact.push(key);
                        values.exact.push(value);
                        positions.push(next);
                        next += 1;
                    }
                }
                Act::Pack { keys: k, values: v, again } => {
                    let salient: Vec<bool> = (0..cache.len()).map(|slot| slot % 3 == 1).collect();
                    let pack = |to, code: &Code| Some(Pack { to, code: code.clone() });
                    cache.pack(&Packing { keys: pack(k, &key_code), values: pack(v, &value_code), salient: salient.clone(), again });
                    keys.pack(k, &key_code, &salient, again);
                    values.pack(v, &value_code, &salient, again);
                }
                Act::Retain(every) => {
                    let keep: Vec<u32> = (0..cache.len() as u32).filter(|slot| slot % every as u32 != 0).collect();
                    cache.retain(&keep);
                    keys.retain(&keep);
                    values.retain(&keep);
                    positions = keep.iter().map(|&slot| positions[slot as usize]).collect();
                }
                Act::Fork => cache = cache.gather(&(0..cache.len() as u32).collect::<Vec<_>>()),
            }
            prop_assert_eq!(&cache.positions, &positions);
            prop_assert_eq!(cache.packed(), (keys.packed.len(), values.packed.len()));
            for (ours, theirs) in [(cache.keys(), keys.all()), (cache.values(), values.all())] {
                prop_assert_eq!(ours.len(), theirs.len());
                // A transform sums in another order: a number half way between two codes may go either way there.
                prop_assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() <= 1e-5 * (1.0 + b.abs())), "{ours:?}\n{theirs:?}");
            }
            prop_assert!(cache.allocated_bytes() >= cache.live_bytes());
        }
    }

    #[test]
    fn bytes_are_those_of_the_formula(n in 1usize..300, to in 0usize..300, bits in prop::sample::select(vec![2u8, 4, 8])) {
        let (dim, to) = (64, to.min(n));
        let mut cache = HeadCache::new(KvType::F16, dim, 1);
        cache.reserve(n);
        (0..n as u32).for_each(|p| cache.append(p, &[p as f32; 64], &[1.0; 64]));
        let pack = |groups| Some(Pack { to, code: Code::Quantized(Quantization { bits, low: None, groups, smoothing: Smoothing::None }) });
        cache.pack(&Packing { keys: pack(Groups::PerChannel(32)), values: pack(Groups::PerToken(32)), salient: vec![], again: false });
        // bits and two halves for every group of 32, per element; the last tokens of the keys may be a smaller group
        let keys = to * dim * bits as usize / 8 + to.div_ceil(32) * dim * 4;
        let values = to * dim * bits as usize / 8 + to * dim / 32 * 4;
        prop_assert_eq!(cache.live_bytes() as usize, keys + values + 2 * (n - to) * dim * 2);
        // positions and sums are bookkeeping; room to grow is an eighth and some tiles
        let slots = n.next_multiple_of(TILE) + n / 8 + 3 * TILE;
        prop_assert!(cache.allocated_bytes() as usize <= cache.live_bytes() as usize * 9 / 8 + slots * 12 + 4 * 3 * TILE * dim * 2 + 4096);
    }
}

#[test]
fn packing_gives_memory_back() {
    let mut cache = HeadCache::new(KvType::F16, 64, 3);
    cache.reserve(1000);
    (0..1000).for_each(|p| cache.append(p, &[1.5; 64], &[-1.0; 64]));
    let before = cache.allocated_bytes();
    let code =
        Code::Quantized(Quantization { bits: 2, low: None, groups: Groups::PerToken(32), smoothing: Smoothing::None });
    let pack = || Some(Pack { to: usize::MAX, code: code.clone() });
    cache.pack(&Packing { keys: pack(), values: pack(), salient: vec![], again: false });
    // 3 bits of 16 are left of keys and values
    assert_eq!(cache.live_bytes(), 1000 * 2 * 64 * 3 / 8);
    assert!(before - cache.allocated_bytes() > 1000 * 2 * 64 * 2 * 3 / 4, "{before} {}", cache.allocated_bytes());
}
