//! Knock out a head: what it gives to its layer's output projection is zero.

use linkme::distributed_slice;

use super::{Intervention, Plan, Survey, no_layer};
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Count, Key};
use crate::policy::part::Part;
use crate::policy::registry::REGISTERED;
use crate::policy::view::Sizes;

static LAYER: Key<Count> = Key::new("layer", "layer of the head", Count(0, 9_999), 0);
static HEAD: Key<Count> = Key::new("head", "query head", Count(0, 9_999), 0);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "zerohead",
    family: Family::Intervention,
    idea: "knock out an attention head: its output is zero",
    paper: Some(Paper { title: "Are Sixteen Heads Really Better than One?", arxiv: "1905.10650" }),
    budget: None,
    keys: &[&LAYER, &HEAD],
    build: |spec| Part::intervention(ZeroHead { layer: spec.get(&LAYER) as usize, head: spec.get(&HEAD) as usize }),
};

struct ZeroHead {
    layer: usize,
    head: usize,
}

impl Intervention for ZeroHead {
    fn plan(&self, _: &mut dyn Survey, plan: &mut Plan) -> Result<(), String> {
        plan.alterations.heads.push((self.layer, self.head));
        Ok(())
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        no_layer(self.layer, model)?;
        match self.head < model.heads {
            true => Ok(()),
            false => Err(format!("there is no head {}; heads are 0 to {}", self.head, model.heads.saturating_sub(1))),
        }
    }
}
