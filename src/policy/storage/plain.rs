//! Plain quantization of keys and values to 8 or 4 bit: what every other quantizer is measured against.
//!
//! Asymmetric, per token: g channels of one token share scale and zero point. Every entry is packed once the pass that
//! wrote it is over, except for the newest `residual`.

use linkme::distributed_slice;

use super::super::descriptor::{Descriptor, Family};
use super::super::key::{Count, Key};
use super::super::part::{LayerView, Moment, Part};
use super::super::spec::PartSpec;
use super::{Storage, all_but, plain};
use crate::cache::{Groups, Packing, Quantization};
use crate::policy::registry::REGISTERED;

static GROUP: Key<Count> = super::group(64);
static RESIDUAL: Key<Count> = super::residual(0);

#[distributed_slice(REGISTERED)]
pub static INT8: Descriptor = Descriptor {
    name: "int8",
    family: Family::Quantizer,
    idea: "keys and values in 8 bit, groups of channels within a token",
    paper: None,
    budget: None,
    keys: &[&GROUP, &RESIDUAL],
    build: |spec| build(8, spec),
};

#[distributed_slice(REGISTERED)]
pub static INT4: Descriptor = Descriptor {
    name: "int4",
    family: Family::Quantizer,
    idea: "keys and values in 4 bit, groups of channels within a token",
    paper: None,
    budget: None,
    keys: &[&GROUP, &RESIDUAL],
    build: |spec| build(4, spec),
};

fn build(bits: u8, spec: &PartSpec) -> Part {
    let code = plain(bits, Groups::PerToken(spec.get(&GROUP) as usize));
    Part::storage(Plain { code, residual: spec.get(&RESIDUAL) as usize })
}

struct Plain {
    code: Quantization,
    residual: usize,
}

impl Storage for Plain {
    fn pack(&self, _at: Moment, _packed: &[(usize, usize)], view: &dyn LayerView) -> Vec<Packing> {
        all_but(self.residual, self.code, view, |_| Vec::new())
    }
}
