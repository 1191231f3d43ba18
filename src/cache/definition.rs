//! Quantised and back, slowly, by the definition: what the packed store is tested against.

use half::f16;

use super::hadamard::hadamard;
use super::{Groups, Smoothing};

/// Rows [n, D] as codes of `bits` would read.
pub fn read_back(x: &[f32], dim: usize, bits: u8, groups: Groups) -> Vec<f32> {
    let mut out = x.to_vec();
    let rows = x.len() / dim;
    let steps = ((1 << bits) - 1) as f32;
    for (t, c) in (0..rows).flat_map(|t| (0..dim).map(move |c| (t, c))) {
        let members: Vec<(usize, usize)> = match groups {
            Groups::PerToken(g) => (c / g * g..dim.min((c / g + 1) * g)).map(|c| (t, c)).collect(),
            Groups::PerChannel(g) => (t / g * g..rows.min((t / g + 1) * g)).map(|t| (t, c)).collect(),
        };
        let numbers = || members.iter().map(|(t, c)| x[t * dim + c]);
        let min = numbers().fold(f32::INFINITY, f32::min);
        let max = numbers().fold(f32::NEG_INFINITY, f32::max);
        let zero = below(min);
        let scale = f16::from_f32((max - zero) / steps).to_f32();
        let code = if scale > 0.0 { ((x[t * dim + c] - zero) / scale).round_ties_even().min(steps) } else { 0.0 };
        out[t * dim + c] = code * scale + zero;
    }
    out
}

/// The largest half no larger than x, by search.
fn below(x: f32) -> f32 {
    let halves = [-2, -1, 0, 1, 2].map(|i| (f16::from_f32(x).to_bits() as i32 + i) as u16);
    let halves = halves.into_iter().chain([0x8001]).map(|bits| f16::from_bits(bits).to_f32());
    halves.filter(|half| *half <= x).fold(f32::NEG_INFINITY, f32::max)
}

/// Channels of rows smoothed; `learnt` [factors, shifts] comes from the first rows.
pub fn smoothed(rows: Vec<Vec<f32>>, how: Smoothing, learnt: &mut Option<[Vec<f32>; 2]>) -> Vec<Vec<f32>> {
    let half = |x: f32| f16::from_f32(x).to_f32();
    let positive = |x: f32| if x > 0.0 { x } else { 1.0 };
    let dim = rows.first().map_or(0, Vec::len);
    let channel = |c: usize| rows.iter().map(move |row| row[c]);
    let ends = |c: usize| (channel(c).fold(f32::INFINITY, f32::min), channel(c).fold(f32::NEG_INFINITY, f32::max));
    let [factors, shifts] = learnt.get_or_insert_with(|| match how {
        Smoothing::None | Smoothing::Hadamard => [vec![1.0; dim], vec![0.0; dim]],
        Smoothing::RootMax => {
            let root = |c: usize| positive(half(ends(c).0.abs().max(ends(c).1.abs()).sqrt()));
            [(0..dim).map(root).collect(), vec![0.0; dim]]
        }
        Smoothing::Range => [
            (0..dim).map(|c| positive(half((ends(c).1 - ends(c).0) / 2.0))).collect(),
            (0..dim).map(|c| half((ends(c).1 + ends(c).0) / 2.0)).collect(),
        ],
    });
    let smooth = |mut row: Vec<f32>| {
        row.iter_mut().zip(&*shifts).zip(&*factors).for_each(|((x, shift), factor)| *x = (*x - shift) / factor);
        if how == Smoothing::Hadamard {
            hadamard(&mut row);
        }
        row
    };
    rows.clone().into_iter().map(smooth).collect()
}

/// And back.
pub fn rough(rows: Vec<Vec<f32>>, how: Smoothing, learnt: &Option<[Vec<f32>; 2]>) -> Vec<Vec<f32>> {
    let [factors, shifts] = learnt.as_ref().unwrap();
    let rough = |mut row: Vec<f32>| {
        if how == Smoothing::Hadamard {
            hadamard(&mut row);
        }
        row.iter_mut().zip(shifts).zip(factors).for_each(|((x, shift), factor)| *x = *x * factor + shift);
        row
    };
    rows.into_iter().map(rough).collect()
}
