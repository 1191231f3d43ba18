//! Where the time of a pass goes, operation by operation.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use serde::Serialize;

use crate::engine::frame::{OpTime, Peaks};
use crate::meter::roofline::{Bound, reached};

/// One operation, over all passes measured.
#[derive(Debug, Serialize)]
pub struct Op {
    pub name: Arc<str>,
    /// Calls and time per pass.
    pub calls: f64,
    pub us: f64,
    /// Of the time of all operations.
    pub share: f64,
    /// Bytes that it has to touch, per second.
    pub gb_s: f64,
    /// Multiply-adds (2 operations each), per second.
    pub gflop_s: f64,
    /// Of the measured peak that is nearer, and which one; nothing where neither bytes nor operations are counted.
    pub peak_share: Option<f64>,
    pub bound_by: Option<Bound>,
}

#[derive(Default)]
pub struct Totals {
    passes: u32,
    /// calls, ns, bytes, flops; whether it is a product
    ops: BTreeMap<Arc<str>, ([u64; 4], bool)>,
}

impl Totals {
    pub fn add(&mut self, ops: &[OpTime]) {
        self.passes += 1;
        for op in ops {
            let (sums, product) = self.ops.entry(op.name.clone()).or_default();
            *product |= op.product;
            for (sum, x) in sums.iter_mut().zip([u64::from(op.calls), op.total_ns, op.bytes, op.flops]) {
                *sum += x;
            }
        }
    }

    /// Slowest first.
    pub fn ops(&self, peaks: &Peaks) -> Vec<Op> {
        let all: u64 = self.ops.values().map(|([_, ns, ..], _)| ns).sum();
        let passes = f64::from(self.passes.max(1));
        let one = |(name, ([calls, ns, bytes, flops], product)): (&Arc<str>, &([u64; 4], bool))| {
            let reached = reached(peaks, *product, *bytes, *flops, *ns);
            let per_ns = |x: u64| x as f64 / (*ns).max(1) as f64;
            Op {
                name: name.clone(),
                calls: *calls as f64 / passes,
                us: *ns as f64 / passes / 1e3,
                share: *ns as f64 / all.max(1) as f64,
                gb_s: per_ns(*bytes),
                gflop_s: per_ns(*flops),
                peak_share: reached.map(|reached| reached.share),
                bound_by: reached.map(|reached| reached.bound),
            }
        };
        let mut ops: Vec<Op> = self.ops.iter().map(one).collect();
        ops.sort_by(|a, b| b.us.total_cmp(&a.us));
        ops
    }
}

pub fn text(title: &str, ops: &[Op]) -> String {
    let total: f64 = ops.iter().map(|op| op.us).sum();
    let [calls, us, share, gb_s, gflop_s, peak] = ["calls", "µs", "share", "GB/s", "GFLOP/s", "peak"];
    let mut out = format!("{title:22} {calls:>8} {us:>10} {share:>8} {gb_s:>8} {gflop_s:>9} {peak:>6} bound by\n");
    for op in ops {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "  {:20} {:8.0} {:10.0} {:6.1} % {:8.2} {:9.1} {:>6} {}",
            op.name,
            op.calls,
            op.us,
            100.0 * op.share,
            op.gb_s,
            op.gflop_s,
            op.peak_share.map_or_else(|| "–".into(), |share| format!("{:.0} %", 100.0 * share)),
            op.bound_by.map_or("–", Bound::name),
        );
    }
    let _ = writeln!(out, "  {:20} {:8} {total:10.0}", "all", "");
    out
}
