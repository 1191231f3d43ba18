//! From scores to kept slots.

/// The slots of one kv head that stay: at most `budget`, ascending, unique.
///
/// Forced slots come first and count inside the budget; if they alone exceed it, the newest of them stay.
/// Then the highest scores; equal scores go to the newer slot. NaN ranks below every number.
/// `scores` and `forced` are [n], in slot order (ascending positions).
pub fn select(scores: &[f32], forced: &[bool], budget: usize) -> Vec<u32> {
    let n = scores.len();
    if budget >= n {
        return (0..n as u32).collect();
    }
    let rank = |&slot: &u32| {
        let forced = forced[slot as usize];
        (forced, if forced { Score(0.0) } else { Score::of(scores[slot as usize]) }, slot)
    };
    let mut slots: Vec<u32> = (0..n as u32).collect();
    if budget > 0 {
        slots.select_nth_unstable_by(budget - 1, |a, b| rank(b).cmp(&rank(a)));
    }
    slots.truncate(budget);
    slots.sort_unstable();
    slots
}

/// How many dropped slots have exactly the score of the lowest kept free one: which of them stayed was decided
/// by age alone.
pub fn ties(scores: &[f32], forced: &[bool], kept: &[u32]) -> usize {
    let free = |slot: &usize| !forced[*slot];
    let lowest = kept.iter().map(|&s| s as usize).filter(free).map(|s| Score::of(scores[s])).min();
    let mut kept = kept.iter().map(|&s| s as usize).peekable();
    let dropped = (0..scores.len()).filter(|slot| kept.next_if_eq(slot).is_none());
    dropped.filter(free).filter(|&s| Some(Score::of(scores[s])) == lowest).count()
}

/// A score with a total order: −0 equals 0 and NaN lies below everything.
#[derive(Clone, Copy)]
struct Score(f32);

impl Score {
    fn of(x: f32) -> Self {
        Self(if x.is_nan() { f32::NEG_INFINITY } else { x + 0.0 })
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Score {}

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
