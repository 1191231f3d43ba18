//! kernels/compact.cu

use attnscope::backend::cuda::memory::Memory;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::caches::{Head, Shape, far, launch};
use super::emulator;

/// Rows of `width` that stay.
fn kept<T: Copy>(all: &[T], width: usize, keep: &[u32]) -> Vec<T> {
    keep.iter().flat_map(|&slot| all[slot as usize * width..][..width].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_stays_keeps_its_bits(
        heads in 1usize..4, group in 1usize..4, dim in prop::sample::select(vec![8usize, 80, 128]), kv in 0i32..3,
        offsets: bool, base in 0u32..700, seed: u64
    ) {
        let device = emulator::device(&["compact"]);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shape = Shape { kv_heads: heads, group, dim, kv, window: 0, softcap: 0.0, offsets };
        let caches: Vec<Head> = (0..heads).map(|_| Head::new(&device, shape, base, 1, &mut rng)).collect();
        let keep: Vec<Vec<u32>> = caches.iter().map(|cache| {
            let share = [0.0, 0.3, 0.9, 1.0][rng.random_range(0..4)];
            (0..cache.len() as u32).filter(|_| rng.random_bool(share)).collect()
        }).collect();
        let before: Vec<_> = caches.iter().map(|cache| {
            let sums: Vec<_> = (0..group).map(|m| [cache.received_now(m), cache.row_now(m)]).collect();
            (cache.cells_now(cache.len()), sums)
        }).collect();
        let records = Memory::of(&device, &caches.iter().flat_map(Head::record).collect::<Vec<u64>>()).unwrap();
        let lists: Vec<Memory<u32>> = keep.iter().map(|keep| Memory::of(&device, keep).unwrap()).collect();
        let addresses = Memory::of(&device, &lists.iter().map(|list| list.at(0)).collect::<Vec<u64>>()).unwrap();
        let counts = Memory::of(&device, &keep.iter().map(|keep| keep.len() as i32).collect::<Vec<i32>>()).unwrap();
        let args = [records.arg(), addresses.arg(), counts.arg(), (group as i32).into(), (dim as i32).into(), kv.into()];
        launch(&device, "compact", [3 + 2 * group, heads, 1], 256, 0, &args);
        let bytes = dim * if kv == 0 { 4 } else { 2 };
        let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        for ((cache, keep), ((keys, values, positions, added), sums)) in caches.iter().zip(&keep).zip(before) {
            let now = cache.cells_now(keep.len());
            prop_assert!(now.0 == kept(&keys, bytes, keep), "keys");
            prop_assert!(now.1 == kept(&values, bytes, keep), "values");
            prop_assert_eq!(now.2, kept(&positions, 1, keep));
            if offsets {
                prop_assert_eq!(bits(now.3), bits(kept(&added, 1, keep)));
            }
            for (m, [received, row]) in sums.into_iter().enumerate() {
                let [a, b] = [cache.received_now(m), cache.row_now(m)].map(|x| bits(x[..keep.len()].to_vec()));
                prop_assert_eq!(a, bits(kept(&received, 1, keep)));
                prop_assert_eq!(b, bits(kept(&row, 1, keep)));
            }
        }
    }

    #[test]
    fn means_are_per_position_of_the_text(records in 1usize..9, group in 1usize..4, base in 0u32..500, seed: u64) {
        let device = emulator::device(&["compact"]);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shape = Shape { kv_heads: records, group, dim: 8, kv: 1, window: 0, softcap: 0.0, offsets: false };
        let caches: Vec<Head> = (0..records).map(|_| Head::new(&device, shape, base, 1, &mut rng)).collect();
        // text that no cache holds any more, or none yet
        let n = base as usize + 1 + rng.random_range(0..40);
        let mut expected = [vec![0.0; n], vec![0.0; n]];
        for cache in &caches {
            for m in 0..group {
                for (sums, of) in expected.iter_mut().zip([cache.received_now(m), cache.row_now(m)]) {
                    let share = |x: f32| x as f64 / (records * group) as f64;
                    cache.positions.iter().zip(of).for_each(|(&p, x)| sums[p as usize] += share(x));
                }
            }
        }
        let held = Memory::of(&device, &caches.iter().flat_map(Head::record).collect::<Vec<u64>>()).unwrap();
        let [received, row] = [0; 2].map(|_| Memory::<f32>::new(&device, n).unwrap());
        let ints = [records, group, n].map(|x| (x as i32).into());
        let args = [&[held.arg()][..], &ints, &[received.arg(), row.arg()]].concat();
        launch(&device, "position_means", [n.div_ceil(128), 1, 1], 128, 0, &args);
        for (memory, expected) in [received, row].iter().zip(expected) {
            // means of up to 24 numbers below 1
            prop_assert!(far(&memory.read(0, n).unwrap(), &expected) < 1e-6);
        }
    }
}
