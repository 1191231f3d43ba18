//! kernels/score.cu

use attnscope::backend::cuda::memory::Memory;
use attnscope::policy::select::select;
use proptest::prelude::*;

use super::caches::launch;
use super::emulator;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_same_slots_stay_as_on_the_cpu(
        records in prop::collection::vec(
            (prop::collection::vec((prop_oneof![Just(0.5f32), Just(-0.0), Just(0.0), Just(f32::NAN), any::<f32>()], prop::bool::weighted(0.2)), 1..700),
             prop_oneof![0usize..20, 0usize..800]),
            1..4
        )
    ) {
        let device = emulator::device(&["score"]);
        let (mut scores, mut forced, mut keep, mut expected) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (slots, budget) in &records {
            let (score, force): (Vec<f32>, Vec<bool>) = slots.iter().copied().unzip();
            scores.push(Memory::of(&device, &score).unwrap());
            forced.push(Memory::of(&device, &force.iter().map(|&force| force as u8).collect::<Vec<u8>>()).unwrap());
            // no more room than is promised: what is written beside it is found
            keep.push(Memory::<u32>::new(&device, slots.len().min(*budget)).unwrap());
            expected.push(select(&score, &force, *budget));
        }
        let addresses = |all: Vec<u64>| Memory::of(&device, &all).unwrap();
        let score_at = addresses(scores.iter().map(|memory| memory.at(0)).collect());
        let force_at = addresses(forced.iter().map(|memory| memory.at(0)).collect());
        let keep_at = addresses(keep.iter().map(|memory| memory.at(0)).collect());
        let ints = |all: Vec<i32>| Memory::of(&device, &all).unwrap();
        let lens = ints(records.iter().map(|(slots, _)| slots.len() as i32).collect());
        let budgets = ints(records.iter().map(|(_, budget)| *budget as i32).collect());
        let counts = Memory::<i32>::new(&device, records.len()).unwrap();
        let args = [score_at.arg(), force_at.arg(), lens.arg(), budgets.arg(), keep_at.arg(), counts.arg()];
        launch(&device, "select_slots", [records.len(), 1, 1], 256, 0, &args);
        let counts = counts.read(0, records.len()).unwrap();
        for ((keep, count), expected) in keep.iter().zip(counts).zip(expected) {
            prop_assert_eq!(count as usize, expected.len());
            prop_assert_eq!(keep.read(0, keep.len()).unwrap(), expected);
        }
    }
}
