//! KIVI: keys per channel, values per token (Liu et al. 2024, arXiv 2402.02750).
//!
//! Keys are quantised after rope, g tokens of one channel sharing scale and zero point, in blocks of R once R newest
//! have gathered: after a prompt of T tokens the last T mod R are exact. Values are quantised one by one as they leave
//! the newest R, g channels of one token sharing. Defaults are the paper's: 2 bit, g = 32, R = 128.
//!
//! bits + 32/g per element beyond the residual. Behind an evictor, T is what the evictor left, and a group of keys keeps
//! its scales as long as one of its tokens stays.

use linkme::distributed_slice;

use super::super::descriptor::{Descriptor, Family, Paper};
use super::super::key::{Choice, Count, Key};
use super::super::part::{LayerView, Moment, Part};
use super::{BITS, Storage, held, plain};
use crate::cache::{Code, Groups, Pack, Packing};
use crate::policy::registry::REGISTERED;

static WIDTH: Key<Choice<u8>> = Key::new("bits", "of a code", BITS, 2);
static GROUP: Key<Count> = super::group(32);
static RESIDUAL: Key<Count> = Key::new(
    "residual",
    "newest values that stay exact, and keys that gather; a multiple of group",
    Count(1, 65_536),
    128,
);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "kivi",
    family: Family::Quantizer,
    idea: "few-bit keys per channel and values per token, the newest tokens exact",
    paper: Some(Paper { title: "KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache", arxiv: "2402.02750" }),
    budget: None,
    keys: &[&WIDTH, &GROUP, &RESIDUAL],
    build: |spec| {
        let (group, residual) = (spec.get(&GROUP) as usize, spec.get(&RESIDUAL) as usize);
        match residual.is_multiple_of(group) {
            true => Part::storage(Kivi { bits: spec.get(&WIDTH), group, residual }),
            false => Part::Missing(format!(
                "packs keys in whole groups: residual {residual} is no multiple of group {group}"
            )),
        }
    },
};

struct Kivi {
    bits: u8,
    group: usize,
    residual: usize,
}

impl Storage for Kivi {
    fn pack(&self, _at: Moment, packed: &[(usize, usize)], view: &dyn LayerView) -> Vec<Packing> {
        let pack = |to, groups| Some(Pack { to, code: Code::Quantized(plain(self.bits, groups)) });
        let one = |(n, &(keys, _)): (usize, &(usize, usize))| Packing {
            keys: pack(keys + (n - keys) / self.residual * self.residual, Groups::PerChannel(self.group)),
            values: pack(n.saturating_sub(self.residual), Groups::PerToken(self.group)),
            salient: Vec::new(),
            again: false,
        };
        held(view).zip(packed).map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{moment, random_layer};

    /// Packed keys and values along a text, as the authors' code counts them.
    #[test]
    fn keys_gather_in_blocks_and_values_leave_one_by_one() {
        let kivi = Kivi { bits: 2, group: 4, residual: 8 };
        for prompt in [1, 7, 8, 9, 15, 16, 21] {
            let (mut held, mut packed) = (prompt, (0, 0));
            for step in 0..20 {
                let layer = random_layer(1, (1, 1), 4, held);
                let packing = kivi.pack(moment(prompt, step), &[packed], &layer).remove(0);
                let to = |pack: Option<Pack>| pack.unwrap().to;
                packed = (packed.0.max(to(packing.keys)), packed.1.max(to(packing.values)));
                assert_eq!(held - packed.0, held % 8, "keys of {held}");
                assert_eq!(held - packed.1, held.min(8), "values of {held}");
                held += 1;
            }
        }
    }
}
