//! The operations of one step in the order in which they ran.

use serde::{Deserialize, Serialize};

use crate::engine::frame::OpTime;

/// One operation of a pass, as a backend reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpSpan {
    /// As in [`OpTime`].
    pub name: &'static str,
    /// `None`: embedding, final norm, head and whatever serves all layers.
    pub layer: Option<u32>,
    /// From the begin of the pass, nanoseconds; what lies between two runs of the backend is left out.
    pub start_ns: u64,
    pub ns: u32,
    /// As in [`OpTime`], of this call.
    pub bytes: u64,
}

/// The same in a frame, without what its [`OpTime`]s say already: a call takes as long as it says there. One entry for
/// each call, in order [calls].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeline {
    /// Index into the frame's operations: the next call of that one.
    pub op: Vec<u16>,
    /// Layer + 1; 0 = of no layer.
    pub layer: Vec<u16>,
    /// From the end of the call before to this one's start, nanoseconds; negative where the two overlap.
    pub gap_ns: Vec<i32>,
    pub bytes: Vec<u64>,
}

/// One call of an operation, put together again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Index into the frame's operations.
    pub op: usize,
    pub layer: Option<u32>,
    /// From the begin of the pass, nanoseconds.
    pub start_ns: u64,
    pub ns: u32,
    pub bytes: u64,
}

impl Call {
    pub fn end_ns(&self) -> u64 {
        self.start_ns.saturating_add(u64::from(self.ns))
    }
}

impl Timeline {
    /// `ops` are those of the same pass. Nothing where the two do not tell the same calls.
    pub fn of(spans: &[OpSpan], ops: &[OpTime]) -> Self {
        let mut timeline = Self::default();
        let mut end = 0;
        for span in spans {
            let Some(op) = ops.iter().position(|op| *op.name == *span.name) else { return Self::default() };
            let gap = span.start_ns as i64 - end as i64;
            timeline.op.push(op.min(u16::MAX as usize) as u16);
            timeline.layer.push(span.layer.map_or(0, |layer| layer.saturating_add(1).min(u16::MAX as u32) as u16));
            timeline.gap_ns.push(gap.clamp(i32::MIN as i64, i32::MAX as i64) as i32);
            timeline.bytes.push(span.bytes);
            end = span.start_ns + u64::from(span.ns);
        }
        if timeline.fits(ops, usize::MAX) { timeline } else { Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.op.is_empty()
    }

    /// Whether there is nothing, or one entry for each call of `ops`, in at most `layers` layers.
    pub fn fits(&self, ops: &[OpTime], layers: usize) -> bool {
        let n = self.op.len();
        let mut calls = vec![0; ops.len()];
        let known = self.op.iter().all(|&op| calls.get_mut(op as usize).map(|n| *n += 1).is_some());
        [self.layer.len(), self.gap_ns.len(), self.bytes.len()] == [n; 3]
            && known
            && (n == 0 || ops.iter().zip(calls).all(|(op, calls)| op.ns.len() == calls))
            && self.layer.iter().all(|&layer| layer as usize <= layers)
    }

    /// All calls, in order. `ops` are those of the same frame.
    pub fn calls(&self, ops: &[OpTime]) -> Vec<Call> {
        let mut next = vec![0; ops.len()];
        let mut end = 0u64;
        let entries = self.op.iter().zip(&self.layer).zip(self.gap_ns.iter().zip(&self.bytes));
        let call = |((&op, &layer), (&gap, &bytes)): ((&u16, &u16), (&i32, &u64))| {
            let op = op as usize;
            let ns = *ops.get(op)?.ns.get(next[op])?;
            next[op] += 1;
            let start_ns = end.saturating_add_signed(i64::from(gap));
            end = start_ns.saturating_add(u64::from(ns));
            Some(Call { op, layer: u32::from(layer).checked_sub(1), start_ns, ns, bytes })
        };
        entries.map_while(call).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(name: &str, ns: &[u32]) -> OpTime {
        let total_ns = ns.iter().map(|&n| u64::from(n)).sum();
        let calls = ns.len() as u32;
        OpTime { name: name.into(), calls, total_ns, ns: ns.to_vec(), bytes: 8, flops: 8, product: false }
    }

    fn span(name: &'static str, layer: Option<u32>, start_ns: u64, ns: u32) -> OpSpan {
        OpSpan { name, layer, start_ns, ns, bytes: start_ns + 1 }
    }

    /// An operation that stands alone, one that comes twice, a gap, and two that overlap by 2 ns.
    fn pass() -> (Vec<OpSpan>, Vec<OpTime>) {
        let spans =
            [("embed", None, 0, 5), ("norm", Some(0), 5, 10), ("down", Some(0), 18, 40), ("norm", Some(1), 56, 7)];
        let ops = vec![op("down", &[40]), op("norm", &[10, 7]), op("embed", &[5])];
        (spans.map(|(name, layer, start, ns)| span(name, layer, start, ns)).to_vec(), ops)
    }

    #[test]
    fn calls_come_back_as_they_were() {
        let (spans, ops) = pass();
        let timeline = Timeline::of(&spans, &ops);
        assert_eq!(timeline.gap_ns, [0, 0, 3, -2]);
        let calls = timeline.calls(&ops);
        assert_eq!(calls.len(), spans.len());
        for (call, span) in calls.iter().zip(&spans) {
            assert_eq!(*ops[call.op].name, *span.name);
            assert_eq!(
                (call.layer, call.start_ns, call.ns, call.bytes),
                (span.layer, span.start_ns, span.ns, span.bytes)
            );
        }
        assert_eq!(calls[3].end_ns(), 63);
    }

    #[test]
    fn what_does_not_belong_together_is_no_timeline() {
        let (spans, ops) = pass();
        assert!(Timeline::of(&spans[1..], &ops).is_empty(), "a call is missing");
        assert!(Timeline::of(&spans, &ops[1..]).is_empty(), "an operation is missing");
        let timeline = Timeline::of(&spans, &ops);
        assert!(timeline.fits(&ops, 2) && !timeline.fits(&ops, 1), "layer 1 is the second one");
        let short = Timeline { bytes: Vec::new(), ..timeline.clone() };
        assert!(!short.fits(&ops, 2));
        assert!(short.calls(&ops).is_empty());
        let strange = Timeline { op: vec![9; 4], ..timeline };
        assert!(!strange.fits(&ops, 2));
        assert!(strange.calls(&ops).is_empty());
    }
}
