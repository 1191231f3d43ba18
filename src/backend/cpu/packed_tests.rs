//! A packed cache gives what a cache of plain numbers gives that holds what the packed one reads as.

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::CpuBackend;
use crate::backend::{Attention, Backend, Buf, CacheId, Inspect, Row, Shape, Tile};
use crate::cache::{Code, Groups, KvType, Pack, Packing, Quantization, Smoothing};
use crate::engine::message::{Fold, Probes};
use crate::policy::part::Rewritten;

/// Query heads and kv heads of the one layer.
pub(super) const HEADS: (usize, usize) = (4, 2);

pub(super) fn attention(window: Option<usize>) -> Attention {
    Attention { layer: 0, rope: 0, scale: 0.3, softcap: None, window, qk_norm: None }
}

pub(super) struct Rig {
    pub backend: CpuBackend,
    qkv: Buf,
    out: Buf,
    random: ChaCha8Rng,
    dim: usize,
    window: Option<usize>,
}

impl Rig {
    pub fn new(dim: usize, window: Option<usize>, seed: u64) -> Self {
        let shape = Shape {
            layers: 1,
            heads: HEADS.0,
            kv_heads: HEADS.1,
            head_dim: dim,
            hidden: 8,
            vocab: 8,
            max_rows: 256,
            ropes: vec![(0..dim / 2).map(|i| 0.5f32.powi(i as i32)).collect()],
            kv: KvType::F32,
            queries_budget: 1 << 24,
            recent_window: 8,
            stream_points: false,
            depth_sources: 0,
            streams: 0,
        };
        let mut backend = CpuBackend::new(shape, true, 2).unwrap();
        let (qkv, out) = (backend.buffer((HEADS.0 + 2 * HEADS.1) * dim), backend.buffer(HEADS.0 * dim));
        Self { backend, qkv, out, random: ChaCha8Rng::seed_from_u64(seed), dim, window }
    }

    /// The same `count` tokens from position `first` on behind each of `caches`; what each gives [count, H·D].
    pub fn read(&mut self, caches: &[CacheId], first: u32, count: usize, keep: Option<CacheId>) -> Vec<Vec<f32>> {
        let row = |cache: CacheId| {
            (first..first + count as u32).map(move |position| Row { token: 0, position, turned: position, cache })
        };
        let rows: Vec<Row> = caches.iter().flat_map(|&cache| row(cache)).collect();
        self.backend.begin(&rows, Probes::default(), keep).unwrap();
        let width = (HEADS.0 + 2 * HEADS.1) * self.dim;
        let one: Vec<f32> = (0..count * width).map(|_| self.random.random_range(-2.0..2.0)).collect();
        let all = one.repeat(caches.len());
        self.backend.buffers[self.qkv.0].as_mut_slice()[..all.len()].copy_from_slice(&all);
        self.backend.attend(&attention(self.window), self.qkv, self.out);
        self.backend.run().unwrap();
        let out = self.backend.read(self.out);
        out.chunks(count * HEADS.0 * self.dim).map(<[f32]>::to_vec).collect()
    }
}

fn codes(dim: usize) -> impl Strategy<Value = Code> {
    let groups = prop_oneof![(1usize..40).prop_map(Groups::PerToken), (1usize..40).prop_map(Groups::PerChannel)];
    let bits = || prop::sample::select(vec![2u8, 4, 8]);
    let smoothing =
        prop::sample::select(vec![Smoothing::None, Smoothing::Hadamard, Smoothing::RootMax, Smoothing::Range]);
    let quantized = (bits(), prop::option::of(bits()), groups, smoothing)
        .prop_map(|(bits, low, groups, smoothing)| Code::Quantized(Quantization { bits, low, groups, smoothing }));
    let thin = prop::collection::vec(any::<bool>(), dim)
        .prop_map(|keep| Code::Thin((0..).zip(keep).filter(|(_, keep)| *keep).map(|(c, _)| c).collect()));
    prop_oneof![3 => quantized, 1 => thin]
}

/// Head width, tokens, packed keys and values, and how.
fn cases() -> impl Strategy<Value = (usize, usize, [usize; 2], [Code; 2])> {
    (prop::sample::select(vec![2usize, 24, 64, 80, 130]), 2usize..200)
        .prop_flat_map(|(dim, n)| (Just(dim), Just(n), [0..=n, 0..=n], [codes(dim).boxed(), codes(dim).boxed()]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn attention_over_packed_slots_is_attention_over_what_they_read_as(
        (dim, n, to, [key_code, value_code]) in cases(), window in prop::option::of(1usize..100), seed: u64, every in 1u32..5
    ) {
        let mut rig = Rig::new(dim, window, seed);
        let packed = rig.backend.cache();
        rig.read(&[packed], 0, n, Some(packed));
        let salient = (0..n).map(|slot| slot % 3 == 0).collect();
        let packing = Packing {
            keys: Some(Pack { to: to[0], code: key_code }),
            values: Some(Pack { to: to[1], code: value_code }),
            salient,
            again: false,
        };
        rig.backend.pack(packed, &vec![Some(packing); HEADS.1]).unwrap();
        // some slots leave, others in each head
        let keep: Vec<Vec<u32>> =
            (0..HEADS.1 as u32).map(|g| (0..n as u32).filter(|s| every == 1 || s % every != g % every).collect()).collect();
        let all: Vec<_> = keep.iter().map(|keep| Some(keep.as_slice())).collect();
        rig.backend.retain(packed, &all).unwrap();
        let plain = rig.backend.cache();
        for g in 0..HEADS.1 {
            let from = &rig.backend.caches[packed.0][g];
            let (positions, keys, values) = (from.positions.clone(), from.keys(), from.values());
            let to = &mut rig.backend.caches[plain.0][g];
            to.reserve(positions.len());
            for ((position, key), value) in positions.iter().zip(keys.chunks(dim)).zip(values.chunks(dim)) {
                to.append(*position, key, value);
            }
        }
        let tile = Tile { layer: 0, head: 3, rows: 0..n as u32, cols: 0..n as u32, height: 9, width: 7, fold: Fold::Sum };
        let attention = attention(window);
        prop_assert_eq!(
            rig.backend.rows(packed, &attention, 1, 0..n as u32).unwrap(),
            rig.backend.rows(plain, &attention, 1, 0..n as u32).unwrap()
        );
        let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        prop_assert_eq!(
            bits(rig.backend.tile(packed, &attention, &tile).unwrap()),
            bits(rig.backend.tile(plain, &attention, &tile).unwrap())
        );
        let mut position = n as u32;
        for count in [1, 7, 30, 1] {
            let out = rig.read(&[packed, plain], position, count, None);
            prop_assert_eq!(&out[0], &out[1]);
            prop_assert_eq!(rig.backend.newest_row(packed, 0, 2), rig.backend.newest_row(plain, 0, 2));
            position += count as u32;
        }
        prop_assert_eq!(rig.backend.keys(packed, 0, 1), rig.backend.keys(plain, 0, 1));
        prop_assert_eq!(rig.backend.values(packed, 0, 0), rig.backend.values(plain, 0, 0));
        // going back undoes what was read, and nothing of a packed cache can be written over
        let saved = rig.backend.save(packed, false);
        let before = rig.backend.values(packed, 0, 1).into_owned();
        rig.backend.pack(packed, &vec![Some(Packing {
            keys: None, values: Some(Pack { to: usize::MAX, code: Code::Thin(vec![]) }), salient: vec![], again: true
        }); HEADS.1]).unwrap();
        rig.backend.restore(packed, &saved).unwrap();
        prop_assert_eq!(&rig.backend.values(packed, 0, 1)[..], &before[..]);
        if to[1] == n {
            let new = Rewritten { values: Some(before), ..Rewritten::default() };
            prop_assert!(rig.backend.overwrite(packed, 0, 1, &new).is_err() || rig.backend.packed(packed, 0, 1) == (0, 0));
        }
    }
}
