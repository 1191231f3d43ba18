//! Allocators: how a budget is divided among layers and heads.

pub mod adakv;
pub mod dynamickv;
pub mod headkv;
pub mod lukv;
pub mod perlayer;
pub mod pyramid;
pub mod squeeze;
pub mod zigzag;

use super::part::Scores;

/// Divides `total` in proportion to `weights`, no share above its `caps` [k] → [k].
///
/// What a cap cuts off goes to the others, again in proportion; fractions are settled by the largest remainder, the
/// first of equals. The sum is `total`, or that of the caps if it is less.
pub fn apportion(total: usize, weights: &[f64], caps: &[usize]) -> Vec<usize> {
    let mut shares: Vec<usize> = vec![0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).filter(|&i| weights[i] > 0.0).collect();
    let mut left = total;
    loop {
        let sum: f64 = open.iter().map(|&i| weights[i]).sum();
        let ideal = |i: usize| left as f64 * weights[i] / sum;
        let (full, rest): (Vec<usize>, Vec<usize>) = open.iter().partition(|&&i| ideal(i) >= caps[i] as f64);
        if full.is_empty() {
            let mut order: Vec<(f64, usize)> = rest.iter().map(|&i| (ideal(i).fract(), i)).collect();
            rest.iter().for_each(|&i| shares[i] = ideal(i) as usize);
            let given: usize = rest.iter().map(|&i| shares[i]).sum();
            order.sort_by(|a, b| b.0.total_cmp(&a.0));
            order.iter().take(left.saturating_sub(given)).for_each(|&(_, i)| shares[i] += 1);
            return shares;
        }
        full.iter().for_each(|&i| shares[i] = caps[i]);
        left -= full.iter().map(|&i| caps[i]).sum::<usize>();
        open = rest;
    }
}

/// Layers that evict, by number.
pub fn acting(budgets: &[Vec<usize>]) -> impl Iterator<Item = usize> {
    (0..budgets.len()).filter(|&layer| !budgets[layer].is_empty())
}

/// Divides the budgets among the acting layers in proportion to `weights` [acting], the same for all heads of a layer.
pub fn divide(weights: &[f64], scores: &[Option<Scores>], budgets: &mut [Vec<usize>]) {
    let acting: Vec<usize> = acting(budgets).collect();
    let held = |&layer: &usize| scores[layer].iter().flat_map(|s| &s.values).map(Vec::len).max().unwrap_or(0);
    let caps: Vec<usize> = acting.iter().map(held).collect();
    let total = acting.iter().map(|&layer| budgets[layer][0]).sum();
    let mut shares = apportion(total, weights, &caps);
    no_empty(&mut shares);
    acting.iter().zip(shares).for_each(|(&layer, share)| budgets[layer].fill(share));
}

/// The same for each kv head of the acting layers [acting · kv heads], `reserve` entries of every head aside.
pub fn divide_heads(weights: &[f64], reserve: usize, scores: &[Option<Scores>], budgets: &mut [Vec<usize>]) {
    let all: Vec<usize> = budgets.iter().flatten().copied().collect();
    let held = scores.iter().flatten().flat_map(|scores| &scores.values).map(Vec::len);
    let caps: Vec<usize> = held.map(|held| held.saturating_sub(reserve)).collect();
    let total = all.iter().map(|budget| budget.saturating_sub(reserve)).sum();
    if caps.len() != weights.len() || total == 0 {
        return;
    }
    let mut shares = apportion(total, weights, &caps);
    if reserve == 0 {
        no_empty(&mut shares);
    }
    budgets.iter_mut().flatten().zip(shares).for_each(|(budget, share)| *budget = share + reserve);
}

/// Nobody is left with nothing: the first of the largest gives.
pub fn no_empty(shares: &mut [usize]) {
    while let Some(none) = shares.iter().position(|&share| share == 0) {
        let most = (0..shares.len()).rev().max_by_key(|&i| shares[i]).filter(|&i| shares[i] > 1);
        let Some(most) = most else { break };
        shares[most] -= 1;
        shares[none] = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn largest_remainders_and_caps() {
        assert_eq!(apportion(10, &[1.0, 1.0, 1.0], &[9; 3]), [4, 3, 3]);
        assert_eq!(apportion(10, &[3.0, 2.0, 1.0], &[9; 3]), [5, 3, 2]);
        assert_eq!(apportion(10, &[8.0, 1.0, 1.0], &[4, 9, 9]), [4, 3, 3]);
        assert_eq!(apportion(10, &[8.0, 1.0, 1.0], &[4, 2, 1]), [4, 2, 1]);
        assert_eq!(apportion(3, &[0.0, 1.0], &[9; 2]), [0, 3]);
        assert!(apportion(3, &[], &[]).is_empty());
    }

    proptest! {
        #[test]
        fn nothing_is_lost(parts in prop::collection::vec((0.01f64..100.0, 0usize..50), 1..20), total in 0usize..500) {
            let (weights, caps): (Vec<f64>, Vec<usize>) = parts.into_iter().unzip();
            let shares = apportion(total, &weights, &caps);
            prop_assert_eq!(shares.iter().sum::<usize>(), total.min(caps.iter().sum()));
            prop_assert!(shares.iter().zip(&caps).all(|(share, cap)| share <= cap));
        }
    }
}
