//! From scores to kept slots.

use crate::simd::vectorized;

/// The slots of one kv head that stay: at most `budget`, ascending, unique.
///
/// Forced slots come first and count inside the budget; if they alone exceed it, the newest of them stay.
/// Then the highest scores; equal scores go to the newer slot. NaN ranks below every number.
/// `scores` and `forced` are [n], in slot order (ascending positions), n < 2³¹.
pub fn select(scores: &[f32], forced: &[bool], budget: usize) -> Vec<u32> {
    let n = scores.len();
    let slots = 0..n as u32;
    match n.saturating_sub(budget) {
        0 => slots.collect(),
        // a decoding step: one pass, nothing to order
        1 => {
            let lowest = vectorized(
                #[inline(always)]
                || lowest(scores, forced),
            );
            (0..lowest).chain(lowest + 1..n as u32).collect()
        }
        dropped => {
            let ranks = scores.iter().zip(forced).zip(slots.clone());
            let ranks: Vec<u64> = ranks.map(|((&score, &forced), slot)| rank(score, forced, slot)).collect();
            let (_, &mut last_dropped, _) = ranks.clone().select_nth_unstable(dropped - 1);
            slots.zip(ranks).filter(|&(_, rank)| rank > last_dropped).map(|(slot, _)| slot).collect()
        }
    }
}

/// The slot of the lowest rank.
#[inline(always)]
fn lowest(scores: &[f32], forced: &[bool]) -> u32 {
    let ranks = scores.iter().zip(forced).zip(0..).map(
        #[inline(always)]
        |((&score, &forced), slot)| rank(score, forced, slot),
    );
    let lowest = ranks.fold(
        u64::MAX,
        #[inline(always)]
        |lowest, rank| lowest.min(rank),
    );
    lowest as u32 & SLOT
}

/// How many dropped slots have exactly the score of the lowest kept free one: which of them stayed was decided
/// by age alone.
pub fn ties(scores: &[f32], forced: &[bool], kept: &[u32]) -> usize {
    let free = |slot: &usize| !forced[*slot];
    let lowest = kept.iter().map(|&s| s as usize).filter(free).map(|s| order(scores[s])).min();
    let mut kept = kept.iter().map(|&s| s as usize).peekable();
    let dropped = (0..scores.len()).filter(|slot| kept.next_if_eq(slot).is_none());
    dropped.filter(free).filter(|&s| Some(order(scores[s])) == lowest).count()
}

/// Bits of a rank that hold the slot.
const SLOT: u32 = u32::MAX >> 1;

/// Forced before free, then by score, then newer before older, as one number that is unique per slot.
#[inline(always)]
pub fn rank(score: f32, forced: bool, slot: u32) -> u64 {
    let score = if forced { 0 } else { order(score) };
    (forced as u64) << 63 | (score as u64) << 31 | (slot & SLOT) as u64
}

/// A score as a number of the same order: −0 equals 0 and NaN lies below everything.
#[inline(always)]
fn order(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    // all bits of a negative number are turned round, of a positive one the sign: no branch, so that it vectorizes
    let ordered = bits ^ ((bits as i32 >> 31) as u32 | 1 << 31);
    if score.is_nan() { 0 } else { ordered }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FREE: [bool; 6] = [false; 6];

    #[test]
    fn highest_scores_stay_in_slot_order() {
        assert_eq!(select(&[5.0, 1.0, 3.0, 4.0, 0.0, 2.0], &FREE, 3), [0, 2, 3]);
    }

    #[test]
    fn ties_go_to_the_newer_slot() {
        assert_eq!(select(&[1.0, 0.0, 0.0, -0.0, 0.0, -1.0], &FREE, 3), [0, 3, 4]);
        assert_eq!(ties(&[1.0, 0.0, 0.0, -0.0, 0.0, -1.0], &FREE, &[0, 3, 4]), 2);
    }

    #[test]
    fn forced_slots_count_inside_the_budget_and_the_newest_win() {
        let forced = [true, false, true, true, false, false];
        let scores = [-9.0, 9.0, -9.0, -9.0, 8.0, 7.0];
        assert_eq!(select(&scores, &forced, 4), [0, 1, 2, 3]);
        assert_eq!(select(&scores, &forced, 2), [2, 3]);
        assert_eq!(ties(&scores, &forced, &[2, 3]), 0);
    }

    #[test]
    fn nan_is_the_first_to_go() {
        assert_eq!(select(&[f32::NAN, -1e30, -f32::NAN, f32::MIN, 0.0, f32::NAN], &FREE, 3), [1, 3, 4]);
    }

    #[test]
    fn nothing_and_everything() {
        assert!(select(&[1.0; 6], &FREE, 0).is_empty());
        assert_eq!(select(&[1.0; 6], &FREE, 9), [0, 1, 2, 3, 4, 5]);
        assert!(select(&[], &[], 3).is_empty());
    }

    proptest! {
        #[test]
        fn equals_a_full_sort(
            slots in prop::collection::vec((prop_oneof![Just(0.5f32), any::<f32>()], any::<bool>()), 0..40),
            budget in 0usize..45,
        ) {
            let (scores, forced): (Vec<f32>, Vec<bool>) = slots.into_iter().unzip();
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|&a, &b| match (forced[a], forced[b]) {
                (true, true) => b.cmp(&a),
                (false, false) if scores[a].is_nan() && scores[b].is_nan() => b.cmp(&a),
                (false, false) if scores[a] == scores[b] => b.cmp(&a),
                (false, false) => (scores[a].is_nan(), scores[b])
                    .partial_cmp(&(scores[b].is_nan(), scores[a]))
                    .unwrap_or(std::cmp::Ordering::Equal),
                (a, b) => b.cmp(&a),
            });
            order.truncate(budget);
            order.sort();
            let kept: Vec<usize> = select(&scores, &forced, budget).into_iter().map(|s| s as usize).collect();
            prop_assert_eq!(kept, order);
        }
    }
}
