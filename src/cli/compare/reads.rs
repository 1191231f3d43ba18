//! What the steps of a lane read, gathered.

use super::report::Reads;
use crate::engine::frame;

impl Reads {
    /// Of one step.
    pub fn of(step: &frame::Reads) -> Self {
        let mut reads = Self::default();
        reads.add(step);
        reads
    }

    /// The next step.
    pub fn add(&mut self, step: &frame::Reads) {
        let sum = |bytes: &[u64]| bytes.iter().sum::<u64>();
        let entries = |entries: &[u32]| entries.iter().map(|&n| n as u64).sum();
        self.entries.push(entries(&step.entries));
        self.entries_seen.push(entries(&step.seen));
        self.bytes.push(sum(&step.bytes));
        self.bytes_seen.push(step.bytes_of_all());
        self.metadata_bytes.push(sum(&step.metadata));
        self.share.push(step.share() as f32);
        self.metadata_held = step.metadata_held;
        let (mean, least) = step.covers().unwrap_or((f32::NAN, f32::NAN));
        self.covered_mean.push(mean);
        self.covered_min.push(least);
        let steps = self.share.len() as f32;
        self.covered.resize(step.layers, vec![0.0; step.heads]);
        for (mean, layer) in self.covered.iter_mut().zip(step.covered.chunks_exact(step.heads.max(1))) {
            mean.iter_mut().zip(layer).for_each(|(mean, mass)| *mean += (mass - *mean) / steps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_listed_and_heads_averaged() {
        let step = |covered: [f32; 2]| frame::Reads {
            layers: 1,
            kv_heads: 1,
            heads: 2,
            entries: vec![3],
            seen: vec![6],
            bytes: vec![30],
            bytes_seen: vec![60],
            metadata: vec![6],
            metadata_held: 12,
            covered: covered.into(),
        };
        let mut reads = Reads::default();
        reads.add(&step([1.0, 0.5]));
        reads.add(&step([0.5, 0.25]));
        assert_eq!((reads.entries, reads.entries_seen, reads.share), (vec![3; 2], vec![6; 2], vec![0.6; 2]));
        assert_eq!((reads.covered_mean, reads.covered_min), (vec![0.75, 0.375], vec![0.5, 0.25]));
        assert_eq!(reads.covered, [[0.75, 0.375]]);
    }
}
