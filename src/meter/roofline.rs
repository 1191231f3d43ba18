//! How near an operation comes to what the device can do, and what holds it back: the roofline model (Williams,
//! Waterman and Patterson, 2009).

use serde::Serialize;

use super::peaks::Peaks;

/// An operation that reaches less of either peak waits for something else.
const BUSY: f64 = 0.5;
/// Bytes that come faster than memory gives them come from caches. The margin is for noise in both measurements.
const FROM_CACHE: f64 = 1.1;

/// What an operation's time goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    Memory,
    Arithmetic,
    /// Its bytes come faster than memory reads: they were in caches.
    Cache,
    /// Neither: starting, waiting for other threads, work that is not counted.
    Latency,
}

impl Bound {
    pub fn name(self) -> &'static str {
        match self {
            Bound::Memory => "memory",
            Bound::Arithmetic => "arithmetic",
            Bound::Cache => "cache",
            Bound::Latency => "latency",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reached {
    /// Of the peak that is nearer: the time that its bytes or its operations take at least, per time taken.
    pub share: f64,
    pub bound: Bound,
}

/// What an operation reached that touched `bytes` and computed `flops` in `ns`; `None` where nothing of it is counted.
pub fn reached(peaks: &Peaks, product: bool, bytes: u64, flops: u64, ns: u64) -> Option<Reached> {
    if ns == 0 || bytes == 0 && flops == 0 {
        return None;
    }
    let seconds = ns as f64 * 1e-9;
    let memory = bytes as f64 / peaks.read_bytes_per_s / seconds;
    let arithmetic = flops as f64 / peaks.flops(product) / seconds;
    let share = memory.max(arithmetic);
    let bound = match () {
        () if share < BUSY => Bound::Latency,
        () if arithmetic >= memory => Bound::Arithmetic,
        () if memory > FROM_CACHE => Bound::Cache,
        () => Bound::Memory,
    };
    Some(Reached { share, bound })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10 GB/s; 100 and 400 GFLOP/s.
    fn peaks() -> Peaks {
        Peaks { read_bytes_per_s: 1e10, flops_per_s: 1e11, product_flops_per_s: 4e11, how: "made up".into() }
    }

    fn at(product: bool, bytes: u64, flops: u64) -> (f64, Bound) {
        let reached = reached(&peaks(), product, bytes, flops, 1_000_000).unwrap();
        ((reached.share * 1000.0).round() / 1000.0, reached.bound)
    }

    #[test]
    fn the_nearer_peak_bounds() {
        // in 1 ms: 10 MB, 100 MFLOP, 400 MFLOP of products
        assert_eq!(at(false, 8_000_000, 1_000_000), (0.8, Bound::Memory));
        assert_eq!(at(false, 1_000_000, 90_000_000), (0.9, Bound::Arithmetic));
        assert_eq!(at(true, 1_000_000, 90_000_000), (0.225, Bound::Latency));
        assert_eq!(at(true, 6_000_000, 360_000_000), (0.9, Bound::Arithmetic));
        assert_eq!(at(false, 10_900_000, 0), (1.09, Bound::Memory));
        assert_eq!(at(false, 20_000_000, 0), (2.0, Bound::Cache));
        assert_eq!(at(false, 4_900_000, 0), (0.49, Bound::Latency));
    }

    #[test]
    fn what_is_not_counted_has_no_share() {
        assert_eq!(reached(&peaks(), false, 0, 0, 10), None);
        assert_eq!(reached(&peaks(), false, 10, 10, 0), None);
    }
}
