//! Keys or values of one kv head in fewer bits than the cache's number type has.

use half::f16;

use super::KvType;
use super::cells::{Columns, with_cells};
use super::code::near;
use super::hadamard::hadamard;
use super::stratum::{Groups, Stratum, grow, keep_rows};
use crate::simd::Cell;

/// How keys or values are packed.
#[derive(Debug, Clone, PartialEq)]
pub enum Code {
    Quantized(Quantization),
    /// Only these channels (ascending), in the cache's number type; the others read as 0.
    Thin(Vec<u32>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantization {
    /// 2, 4 or 8; of salient slots only where `low` is given.
    pub bits: u8,
    /// Of the other slots.
    pub low: Option<u8>,
    pub groups: Groups,
    pub smoothing: Smoothing,
}

/// What happens to a token's channels before they become codes, and is undone when they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Smoothing {
    None,
    /// Walsh–Hadamard transform over the channels.
    Hadamard,
    /// Every channel divided by √max|x| of the tokens packed first.
    RootMax,
    /// Every channel moved and scaled to −1..1 by the extremes of the tokens packed first.
    Range,
}

/// Rows of keys or values, one a slot.
#[derive(Clone)]
pub enum Packed {
    Quantized(Quantized),
    Thin(Thin),
}

#[derive(Clone)]
pub struct Quantized {
    dim: usize,
    /// The salient slots' first.
    strata: Vec<Stratum>,
    /// Of each slot its row · 2 + stratum; empty where there is one stratum.
    places: Vec<u32>,
    smoothing: Smoothing,
    /// Of each channel, where smoothing has some.
    factors: Vec<f16>,
    shifts: Vec<f16>,
}

#[derive(Clone)]
pub struct Thin {
    dim: usize,
    channels: Vec<u32>,
    /// [n][channels], where values lie.
    rows: Columns,
    len: usize,
}

impl Packed {
    pub fn new(code: &Code, dim: usize, kind: KvType) -> Self {
        match code {
            Code::Quantized(code) => {
                let widths = [Some(code.bits), code.low];
                let strata = widths.into_iter().flatten().map(|bits| Stratum::new(dim, bits, code.groups)).collect();
                let (factors, shifts) = (Vec::new(), Vec::new());
                Self::Quantized(Quantized {
                    dim,
                    strata,
                    places: Vec::new(),
                    smoothing: code.smoothing,
                    factors,
                    shifts,
                })
            }
            Code::Thin(channels) => {
                Self::Thin(Thin { dim, channels: channels.clone(), rows: Columns::new(kind), len: 0 })
            }
        }
    }

    /// Slots held.
    pub fn len(&self) -> usize {
        match self {
            Self::Quantized(q) if q.strata.len() == 1 => q.strata[0].rows(),
            Self::Quantized(q) => q.places.len(),
            Self::Thin(thin) => thin.len,
        }
    }

    /// Appends slots [m, D]; `salient` [m] says which get the wider codes, where there are two widths.
    pub fn push(&mut self, x: Vec<f32>, salient: &[bool]) {
        match self {
            Self::Quantized(q) => q.push(x, salient),
            Self::Thin(thin) => thin.push(&x),
        }
    }

    /// Whether each slot has the wider codes.
    pub fn salient(&self) -> Vec<bool> {
        match self {
            Self::Quantized(q) if q.strata.len() > 1 => q.places.iter().map(|place| place % 2 == 0).collect(),
            _ => vec![true; self.len()],
        }
    }

    /// Forgets all slots and what was learnt from the first.
    pub fn clear(&mut self) {
        self.retain(&[]);
        if let Self::Quantized(q) = self {
            q.factors.clear();
            q.shifts.clear();
        }
    }

    /// Channels of a slot from `first` on, a multiple of 32; `whole` is memory that it may use.
    #[inline(always)]
    pub fn read(&self, slot: usize, first: usize, out: &mut [f32], whole: &mut Vec<f32>) {
        match self {
            Self::Quantized(q) => q.read(slot, first, out, whole),
            Self::Thin(thin) => thin.read(slot, first, out),
        }
    }

    /// Keeps the slots listed (ascending) and gives the others' memory back.
    pub fn retain(&mut self, keep: &[u32]) {
        match self {
            Self::Quantized(q) => q.retain(keep),
            Self::Thin(thin) => {
                let width = thin.channels.len();
                with_cells!(&mut thin.rows, cells => keep_rows(&mut cells.values, width, keep));
                thin.len = keep.len();
            }
        }
    }

    /// Bytes of codes, scales, zero points and channel factors, or of the channels that are left. Which slot and
    /// which channel is what is not counted, as positions are not.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Quantized(q) => {
                q.strata.iter().map(Stratum::bytes).sum::<usize>() + 2 * (q.factors.len() + q.shifts.len())
            }
            Self::Thin(thin) => thin.len * thin.channels.len() * thin.rows.kind().bytes(),
        }
    }

    /// Bytes allocated for all of it.
    pub fn allocated(&self) -> usize {
        match self {
            Self::Quantized(q) => {
                let strata: usize = q.strata.iter().map(Stratum::allocated).sum();
                strata + 4 * q.places.capacity() + 2 * (q.factors.capacity() + q.shifts.capacity())
            }
            Self::Thin(thin) => {
                let cells = with_cells!(&thin.rows, cells => cells.values.capacity());
                cells * thin.rows.kind().bytes() + 4 * thin.channels.capacity()
            }
        }
    }
}

impl Quantized {
    fn push(&mut self, mut x: Vec<f32>, salient: &[bool]) {
        self.smooth(&mut x);
        if self.strata.len() == 1 {
            return self.strata[0].push(&x);
        }
        let rows = x.len() / self.dim;
        grow(&mut self.places, rows);
        let mut split = [Vec::new(), Vec::new()];
        let held = [self.strata[0].rows(), self.strata[1].rows()];
        for (slot, row) in x.chunks_exact(self.dim).enumerate() {
            let stratum = !salient.get(slot).copied().unwrap_or(false) as usize;
            let place = held[stratum] + split[stratum].len() / self.dim;
            self.places.push(2 * place as u32 + stratum as u32);
            split[stratum].extend_from_slice(row);
        }
        self.strata.iter_mut().zip(&split).for_each(|(stratum, rows)| stratum.push(rows));
    }

    fn smooth(&mut self, x: &mut [f32]) {
        let dim = self.dim;
        let channel = |c: usize| x.iter().skip(c).step_by(dim).copied();
        match self.smoothing {
            Smoothing::None => return,
            Smoothing::Hadamard => return x.chunks_exact_mut(dim).for_each(hadamard),
            Smoothing::RootMax if self.factors.is_empty() => {
                let root = |c: usize| channel(c).map(f32::abs).fold(0.0, f32::max).sqrt();
                self.factors = (0..dim).map(|c| or_one(root(c))).collect();
            }
            Smoothing::Range if self.factors.is_empty() => {
                let ends =
                    |c: usize| channel(c).fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
                self.factors = (0..dim).map(|c| or_one((ends(c).1 - ends(c).0) / 2.0)).collect();
                self.shifts = (0..dim).map(|c| near((ends(c).0 + ends(c).1) / 2.0)).collect();
            }
            Smoothing::RootMax | Smoothing::Range => {}
        }
        for row in x.chunks_exact_mut(dim) {
            row.iter_mut().zip(&self.shifts).for_each(|(x, shift)| *x -= shift.get());
            row.iter_mut().zip(&self.factors).for_each(|(x, factor)| *x /= factor.get());
        }
    }

    #[inline(always)]
    fn read(&self, slot: usize, first: usize, out: &mut [f32], whole: &mut Vec<f32>) {
        let (stratum, row) = match self.places.get(slot) {
            None => (0, slot),
            Some(&place) => (place as usize % 2, place as usize / 2),
        };
        if self.smoothing == Smoothing::Hadamard {
            whole.resize(self.dim, 0.0);
            self.strata[stratum].read(row, 0, whole);
            hadamard(whole);
            return out.copy_from_slice(&whole[first..first + out.len()]);
        }
        self.strata[stratum].read(row, first, out);
        out.iter_mut().zip(self.factors.iter().skip(first)).for_each(|(x, factor)| *x *= factor.get());
        out.iter_mut().zip(self.shifts.iter().skip(first)).for_each(|(x, shift)| *x += shift.get());
    }

    fn retain(&mut self, keep: &[u32]) {
        if self.strata.len() == 1 {
            return self.strata[0].retain(keep);
        }
        let mut rows = [Vec::new(), Vec::new()];
        for &slot in keep {
            let place = self.places[slot as usize];
            rows[place as usize % 2].push(place / 2);
        }
        self.strata.iter_mut().zip(&rows).for_each(|(stratum, rows)| stratum.retain(rows));
        let mut next = [0; 2];
        keep_rows(&mut self.places, 1, keep);
        for place in &mut self.places {
            let stratum = *place % 2;
            *place = 2 * next[stratum as usize] + stratum;
            next[stratum as usize] += 1;
        }
    }
}

/// A factor in half precision; 1 for what rounds to nothing.
fn or_one(x: f32) -> f16 {
    Some(near(x)).filter(|x| x.get() > 0.0).unwrap_or(f16::ONE)
}

impl Thin {
    fn push(&mut self, x: &[f32]) {
        let left: Vec<f32> =
            x.chunks_exact(self.dim).flat_map(|row| self.channels.iter().map(|&c| row[c as usize])).collect();
        self.len += x.len() / self.dim;
        with_cells!(&mut self.rows, cells => put(&left, &mut cells.values));
    }

    #[inline(always)]
    fn read(&self, slot: usize, first: usize, out: &mut [f32]) {
        out.fill(0.0);
        let at = slot * self.channels.len();
        with_cells!(&self.rows, cells => {
            let span = self.channels.partition_point(|&c| (c as usize) < first)
                ..self.channels.partition_point(|&c| (c as usize) < first + out.len());
            for (&c, cell) in self.channels[span.clone()].iter().zip(&cells.values[at + span.start..]) {
                out[c as usize - first] = cell.get();
            }
        });
    }
}

fn put<T: Cell>(from: &[f32], to: &mut Vec<T>) {
    let at = to.len();
    grow(to, from.len());
    to.resize(at + from.len(), T::default());
    T::put(from, &mut to[at..]);
}
