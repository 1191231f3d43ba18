//! What taking times costs, from steps with and without them side by side.

use serde::Serialize;

use crate::engine::frame::Frame;

/// Fewer say nothing.
const LEAST_PAIRS: usize = 8;

/// Over pairs of neighbouring steps of which one took times: both did nearly the same work.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Overhead {
    pub pairs: usize,
    /// Median over the pairs of the time that was added, per time without it; below 0 where noise is larger.
    pub share: f64,
    /// The middle half of the pairs lies between these two.
    pub quartiles: [f64; 2],
    /// Medians of the steps, nanoseconds.
    pub with_ns: u64,
    pub without_ns: u64,
}

/// Value at a share of what is sorted (nearest rank).
fn at<T: Copy>(sorted: &[T], share: f64) -> Option<T> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// `None` where there are too few such steps among `frames`, which are in their order.
pub fn overhead<'a>(frames: impl Iterator<Item = &'a Frame>) -> Option<Overhead> {
    let steps = frames.filter(|frame| frame.step > 0 && frame.partial.is_none());
    of_steps(steps.map(|frame| (frame.step, !frame.ops.is_empty(), frame.wall_ns)))
}

/// (number, with times, nanoseconds) of each step.
fn of_steps(steps: impl Iterator<Item = (u32, bool, u64)>) -> Option<Overhead> {
    let (mut shares, mut with, mut without) = (Vec::new(), Vec::new(), Vec::new());
    let mut before: Option<(u32, bool, u64)> = None;
    for (step, timed, ns) in steps {
        let pair = before.take().filter(|&(s, t, _)| s.checked_add(1) == Some(step) && t != timed);
        before = Some((step, timed, ns)).filter(|_| pair.is_none());
        let Some((.., other)) = pair else { continue };
        let (on, off) = if timed { (ns, other) } else { (other, ns) };
        shares.push(on as f64 / off.max(1) as f64 - 1.0);
        with.push(on);
        without.push(off);
    }
    shares.sort_by(f64::total_cmp);
    with.sort_unstable();
    without.sort_unstable();
    Some(Overhead {
        pairs: Some(shares.len()).filter(|&pairs| pairs >= LEAST_PAIRS)?,
        share: at(&shares, 0.5)?,
        quartiles: [at(&shares, 0.25)?, at(&shares, 0.75)?],
        with_ns: at(&with, 0.5)?,
        without_ns: at(&without, 0.5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps that grow slower and slower; those with times take 2 % longer, one is disturbed.
    fn alternating(n: u32) -> impl Iterator<Item = (u32, bool, u64)> {
        (1..=n).map(|step| {
            let plain = 1_000_000 + 1000 * u64::from(step / 2);
            let timed = !step.is_multiple_of(2);
            (step, timed, if step == 5 { 9_000_000 } else { plain * if timed { 102 } else { 100 } / 100 })
        })
    }

    #[test]
    fn neighbours_are_compared_whatever_the_trend() {
        let found = of_steps(alternating(40)).unwrap();
        assert_eq!(found.pairs, 20);
        assert!((found.share - 0.02).abs() < 0.002, "{found:?}");
        assert!(found.quartiles[0] <= found.share && found.share <= found.quartiles[1]);
        assert!(found.with_ns > found.without_ns);
    }

    #[test]
    fn too_few_pairs_say_nothing() {
        assert_eq!(of_steps(alternating(14)), None);
        assert_eq!(of_steps((1..=100).map(|step| (step, true, 1000))), None);
        // every other step is missing
        assert_eq!(of_steps((1..=100).map(|step| (2 * step, step % 2 == 0, 1000))), None);
    }
}
