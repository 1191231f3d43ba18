//! WKVQuant's KV cache, uncalibrated (Yue et al. 2024, arXiv 2402.12065).
//!
//! Past only: an entry is packed once its step is over. Static: every channel is moved and scaled to −1..1, by a shift
//! and a factor that the paper finds by cross-block reconstruction on calibration data; here they are the middle and
//! half the range of the channel over the prompt, which is why the name says "uncalibrated". Dynamic: 128 channels of
//! one token share scale and zero point (all channels of a narrower head). 4 bit. Weights are left alone.

use linkme::distributed_slice;

use super::super::descriptor::{Descriptor, Family, Paper};
use super::super::key::{Choice, Count, Key};
use super::super::part::{LayerView, Moment, Part};
use super::{BITS, Storage, all_but};
use crate::cache::{Groups, Packing, Quantization, Smoothing};
use crate::policy::registry::REGISTERED;

static WIDTH: Key<Choice<u8>> = Key::new("bits", "of a code", BITS, 4);
static GROUP: Key<Count> = super::group(128);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "wkvquant",
    family: Family::Quantizer,
    idea: "4 bit per token over channels evened out by the prompt's extremes (uncalibrated)",
    paper: Some(Paper {
        title: "WKVQuant: Quantizing Weight and Key/Value Cache for Large Language Models Gains More",
        arxiv: "2402.12065",
    }),
    budget: None,
    keys: &[&WIDTH, &GROUP],
    build: |spec| {
        let groups = Groups::PerToken(spec.get(&GROUP) as usize);
        Part::storage(WkvQuant(Quantization { bits: spec.get(&WIDTH), low: None, groups, smoothing: Smoothing::Range }))
    },
};

struct WkvQuant(Quantization);

impl Storage for WkvQuant {
    fn pack(&self, _at: Moment, _packed: &[(usize, usize)], view: &dyn LayerView) -> Vec<Packing> {
        all_but(0, self.0, view, |_| Vec::new())
    }
}
