//! Rows of codes of one width, with their scales and zero points.

use half::f16;

use super::code::{Affine, pack, row_bytes, unpack};
use crate::simd::{Cell, vectorized};

/// Which numbers share a scale and a zero point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// So many channels of one token; a token's last group may be shorter.
    PerToken(usize),
    /// One channel of so many tokens that follow each other; the last tokens of a push may be fewer.
    PerChannel(usize),
}

/// A row is one token's key or value [D].
#[derive(Clone)]
pub struct Stratum {
    dim: usize,
    bits: u8,
    groups: Groups,
    /// [rows][bytes of a row]
    codes: Vec<u8>,
    /// Per token [rows][⌈D/g⌉], per channel [groups][D]; so have zero points.
    scales: Vec<f16>,
    zeros: Vec<f16>,
    /// One past the last row of each group of tokens.
    ends: Vec<u32>,
}

/// What a stratum holds, as it lies in memory; see [`Stratum`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parts<'a> {
    pub codes: &'a [u8],
    pub scales: &'a [f16],
    pub zeros: &'a [f16],
    /// Empty for groups of channels.
    pub ends: &'a [u32],
}

impl Stratum {
    pub fn new(dim: usize, bits: u8, groups: Groups) -> Self {
        let groups = match groups {
            Groups::PerToken(g) => Groups::PerToken(g.clamp(1, dim.max(1))),
            Groups::PerChannel(g) => Groups::PerChannel(g.max(1)),
        };
        Self { dim, bits, groups, codes: Vec::new(), scales: Vec::new(), zeros: Vec::new(), ends: Vec::new() }
    }

    pub fn parts(&self) -> Parts<'_> {
        Parts { codes: &self.codes, scales: &self.scales, zeros: &self.zeros, ends: &self.ends }
    }

    pub fn rows(&self) -> usize {
        self.codes.len() / row_bytes(self.dim, self.bits).max(1)
    }

    /// Appends rows [m, D].
    pub fn push(&mut self, x: &[f32]) {
        vectorized(
            #[inline(always)]
            || self.encode(x),
        );
    }

    #[inline(always)]
    fn encode(&mut self, x: &[f32]) {
        let (dim, bits) = (self.dim, self.bits);
        let rows = x.len() / dim;
        grow(&mut self.codes, rows * row_bytes(dim, bits));
        let mut codes = vec![0u8; dim];
        match self.groups {
            Groups::PerToken(g) => {
                let groups = rows * dim.div_ceil(g);
                grow(&mut self.scales, groups);
                grow(&mut self.zeros, groups);
                for row in x.chunks_exact(dim) {
                    for (x, codes) in row.chunks(g).zip(codes.chunks_mut(g)) {
                        let affine = Affine::around(x.iter().copied(), bits);
                        x.iter().zip(codes).for_each(|(&x, code)| *code = affine.code(x, bits));
                        self.scales.push(affine.scale);
                        self.zeros.push(affine.zero);
                    }
                    pack(&codes, bits, &mut self.codes);
                }
            }
            Groups::PerChannel(g) => {
                for block in x.chunks(g.saturating_mul(dim)) {
                    let (mut min, mut max) = (vec![f32::INFINITY; dim], vec![f32::NEG_INFINITY; dim]);
                    for row in block.chunks_exact(dim) {
                        min.iter_mut().zip(row).for_each(|(min, x)| *min = min.min(*x));
                        max.iter_mut().zip(row).for_each(|(max, x)| *max = max.max(*x));
                    }
                    let affines: Vec<Affine> =
                        min.iter().zip(&max).map(|(&min, &max)| Affine::of(min, max, bits)).collect();
                    grow(&mut self.scales, dim);
                    grow(&mut self.zeros, dim);
                    self.scales.extend(affines.iter().map(|a| a.scale));
                    self.zeros.extend(affines.iter().map(|a| a.zero));
                    for row in block.chunks_exact(dim) {
                        for ((&x, affine), code) in row.iter().zip(&affines).zip(&mut codes) {
                            *code = affine.code(x, bits);
                        }
                        pack(&codes, bits, &mut self.codes);
                    }
                    self.ends.push(self.rows() as u32);
                }
            }
        }
    }

    /// Channels of a row from `first` on, a multiple of [`super::code::BLOCK`].
    #[inline(always)]
    pub fn read(&self, row: usize, first: usize, out: &mut [f32]) {
        let bytes = row_bytes(self.dim, self.bits);
        unpack(&self.codes[row * bytes..(row + 1) * bytes], self.bits, first, out);
        match self.groups {
            Groups::PerToken(g) => {
                let groups = row * self.dim.div_ceil(g);
                let mut at = 0;
                while at < out.len() {
                    let group = (first + at) / g;
                    let end = ((group + 1) * g - first).min(out.len());
                    let (scale, zero) = (self.scales[groups + group].get(), self.zeros[groups + group].get());
                    out[at..end].iter_mut().for_each(|x| *x = *x * scale + zero);
                    at = end;
                }
            }
            Groups::PerChannel(_) => {
                let at = self.ends.partition_point(|&end| end <= row as u32) * self.dim + first;
                let n = out.len();
                for ((x, scale), zero) in out.iter_mut().zip(&self.scales[at..at + n]).zip(&self.zeros[at..at + n]) {
                    *x = *x * scale.get() + zero.get();
                }
            }
        }
    }

    /// Keeps the rows listed (ascending). A group of tokens keeps its scales as long as one of them stays.
    pub fn retain(&mut self, keep: &[u32]) {
        keep_rows(&mut self.codes, row_bytes(self.dim, self.bits), keep);
        match self.groups {
            Groups::PerToken(g) => {
                let groups = self.dim.div_ceil(g);
                keep_rows(&mut self.scales, groups, keep);
                keep_rows(&mut self.zeros, groups, keep);
            }
            Groups::PerChannel(_) => {
                let (mut groups, mut ends, mut from) = (Vec::new(), Vec::new(), 0);
                for (group, &end) in (0..).zip(&self.ends) {
                    let to = keep.partition_point(|&row| row < end);
                    if to > from {
                        groups.push(group);
                        ends.push(to as u32);
                    }
                    from = to;
                }
                keep_rows(&mut self.scales, self.dim, &groups);
                keep_rows(&mut self.zeros, self.dim, &groups);
                self.ends = ends;
            }
        }
    }

    /// Bytes of codes, scales and zero points.
    pub fn bytes(&self) -> usize {
        self.codes.len() + 2 * (self.scales.len() + self.zeros.len())
    }

    /// The same with room to grow and the groups' ends.
    pub fn allocated(&self) -> usize {
        self.codes.capacity() + 2 * (self.scales.capacity() + self.zeros.capacity()) + 4 * self.ends.capacity()
    }
}

/// Room for `more`, and for an eighth of what is held: doubling would cost what packing saves.
pub fn grow<T>(to: &mut Vec<T>, more: usize) {
    if to.len() + more > to.capacity() {
        to.reserve_exact(more + to.len() / 8);
    }
}

/// Keeps the listed rows (ascending) of `width` items each and gives the others' memory back.
pub fn keep_rows<T: Copy>(items: &mut Vec<T>, width: usize, keep: &[u32]) {
    let mut to = 0;
    for run in keep.chunk_by(|a, b| a + 1 == *b) {
        let (from, len) = (run[0] as usize * width, run.len() * width);
        items.copy_within(from..from + len, to);
        to += len;
    }
    items.truncate(to);
    // A spare sixteenth: where a row leaves per step, memory would otherwise move every step.
    if items.capacity() > to + (to / 4).max(64 * width) {
        items.shrink_to(to + to / 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::definition::read_back;
    use proptest::prelude::*;

    fn groups() -> impl Strategy<Value = Groups> {
        prop_oneof![(1usize..70).prop_map(Groups::PerToken), (1usize..20).prop_map(Groups::PerChannel)]
    }

    fn all(stratum: &Stratum) -> Vec<f32> {
        let mut out = vec![0.0; stratum.rows() * stratum.dim];
        out.chunks_exact_mut(stratum.dim).enumerate().for_each(|(row, out)| stratum.read(row, 0, out));
        out
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_the_definition_gives(
            dim in 1usize..70, rows in 1usize..40, bits in prop::sample::select(vec![2u8, 4, 8]), groups in groups(),
            numbers in prop::collection::vec(-800i32..800, 2800)
        ) {
            // Eighths: half precision has them all, as a cache in half precision has.
            let x: Vec<f32> = numbers[..rows * dim].iter().map(|&n| n as f32 / 8.0).collect();
            let mut stratum = Stratum::new(dim, bits, groups);
            stratum.push(&x);
            prop_assert_eq!(stratum.rows(), rows);
            prop_assert_eq!(all(&stratum), read_back(&x, dim, bits, groups));
            let metadata = match groups {
                Groups::PerToken(g) => rows * dim.div_ceil(g.min(dim)),
                Groups::PerChannel(g) => rows.div_ceil(g) * dim,
            };
            prop_assert_eq!(stratum.bytes(), rows * row_bytes(dim, bits) + 4 * metadata);
        }

        #[test]
        fn rows_that_stay_do_not_change(
            dim in 1usize..40, rows in 1usize..60, groups in groups(), keep in prop::collection::vec(any::<bool>(), 60), twice: bool
        ) {
            let x: Vec<f32> = (0..rows * dim).map(|i| ((i * 37 + i * i * 13) % 64) as f32 / 8.0 - 4.0).collect();
            let mut stratum = Stratum::new(dim, 4, groups);
            let half = if twice { rows / 2 } else { 0 };
            stratum.push(&x[..half * dim]);
            stratum.push(&x[half * dim..]);
            let before = all(&stratum);
            let keep: Vec<u32> = (0..rows as u32).filter(|&row| keep[row as usize]).collect();
            let (bytes, metadata) = (stratum.bytes(), stratum.scales.len());
            stratum.retain(&keep);
            let expected: Vec<f32> = keep.iter().flat_map(|&row| &before[row as usize * dim..][..dim]).copied().collect();
            prop_assert_eq!(all(&stratum), expected);
            prop_assert!(stratum.bytes() <= bytes && stratum.scales.len() <= metadata);
            // what is appended afterwards does not touch it
            stratum.push(&x[..dim]);
            prop_assert_eq!(stratum.rows(), keep.len() + 1);
        }
    }

    #[test]
    fn a_group_goes_with_its_last_token() {
        let mut stratum = Stratum::new(4, 2, Groups::PerChannel(8));
        stratum.push(&[1.0; 4 * 24]);
        assert_eq!(stratum.bytes(), 24 + 3 * 4 * 4);
        stratum.retain(&[0, 7, 23]);
        assert_eq!(stratum.bytes(), 3 + 2 * 4 * 4);
        stratum.retain(&[]);
        assert_eq!(stratum.bytes(), 0);
    }
}
