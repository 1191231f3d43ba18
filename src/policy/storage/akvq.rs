//! AKVQ-VL for text: pivot tokens in more bits, channels spread by a Walsh–Hadamard transform
//! (Su et al. 2025, arXiv 2501.15021).
//!
//! The paper stores salient tokens in more bits than the rest: in early layers those of the text, in deep layers pivot
//! tokens, on which massive activations make the attention gather. Where all tokens are text only the second rule says
//! anything, so it holds in every layer: a token is a pivot for a kv head where the group's heads gave it at least
//! `pivot` of all their attention so far, column sum / tokens read. Keys and values are multiplied by the orthonormal
//! Hadamard matrix of the head's channels before they are rounded and once more when they are read, which is the same as
//! turning the queries and the output; where D is no power of two, blocks are transformed (80 = 64 + 16). `wht=off`
//! leaves it away. The paper's code is not public: the threshold, groups of 32 channels and the newest 32 tokens, which
//! stay exact, are our choice.

use linkme::distributed_slice;

use super::super::descriptor::{Descriptor, Family, Paper};
use super::super::key::{Choice, Count, Key, Real, SWITCH};
use super::super::part::{LayerView, Moment, Part};
use super::{BITS, Storage, all_but};
use crate::cache::{Groups, Packing, Quantization, Smoothing};
use crate::policy::registry::REGISTERED;

static HIGH: Key<Choice<u8>> = Key::new("high", "bits of pivot tokens", BITS, 4);
static LOW: Key<Choice<u8>> = Key::new("low", "bits of the others", BITS, 2);
static PIVOT: Key<Real> = Key::new("pivot", "share of all attention that makes a token a pivot", Real(0.0, 1.0), 0.05);
static WHT: Key<Choice<bool>> = Key::new("wht", "spread channels by a Walsh-Hadamard transform", SWITCH, true);
static GROUP: Key<Count> = super::group(32);
static RESIDUAL: Key<Count> = super::residual(32);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "akvq",
    family: Family::Quantizer,
    idea: "2 bit behind a Walsh-Hadamard transform, pivot tokens in 4",
    paper: Some(Paper {
        title: "AKVQ-VL: Attention-Aware KV Cache Adaptive 2-Bit Quantization for Vision-Language Models",
        arxiv: "2501.15021",
    }),
    budget: None,
    keys: &[&HIGH, &LOW, &PIVOT, &WHT, &GROUP, &RESIDUAL],
    build: |spec| {
        let code = Quantization {
            bits: spec.get(&HIGH),
            low: Some(spec.get(&LOW)),
            groups: Groups::PerToken(spec.get(&GROUP) as usize),
            smoothing: if spec.get(&WHT) { Smoothing::Hadamard } else { Smoothing::None },
        };
        Part::storage(Akvq { code, pivot: spec.get(&PIVOT) as f32, residual: spec.get(&RESIDUAL) as usize })
    },
};

struct Akvq {
    code: Quantization,
    pivot: f32,
    residual: usize,
}

impl Storage for Akvq {
    fn pack(&self, _at: Moment, _packed: &[(usize, usize)], view: &dyn LayerView) -> Vec<Packing> {
        all_but(self.residual, self.code, view, |kv_head| self.pivots(kv_head, view))
    }

    fn needs_received(&self) -> bool {
        true
    }
}

impl Akvq {
    /// [n]
    fn pivots(&self, kv_head: usize, view: &dyn LayerView) -> Vec<bool> {
        let heads = kv_head * view.group()..(kv_head + 1) * view.group();
        let all = (view.seen() as usize * heads.len()) as f32;
        let mut sums = vec![0.0f32; view.positions(kv_head).len()];
        heads.for_each(|head| sums.iter_mut().zip(view.received(head)).for_each(|(sum, a)| *sum += a));
        sums.iter().map(|sum| sum / all >= self.pivot).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{moment, toy};

    /// Column sums of the toy over both heads and six rows: .392, .229, .162, .126, …
    #[test]
    fn pivots_of_the_toy() {
        let pack = |pivot, residual| {
            let code = Quantization { bits: 4, low: Some(2), groups: Groups::PerToken(4), smoothing: Smoothing::None };
            Akvq { code, pivot, residual }.pack(moment(6, 0), &[(0, 0)], &toy()).remove(0)
        };
        assert_eq!(pack(0.3, 0).salient, [true, false, false, false, false, false]);
        assert_eq!(pack(0.15, 0).salient, [true, true, true, false, false, false]);
        assert_eq!(pack(0.15, 4).keys.map(|keys| keys.to), Some(2));
    }
}
