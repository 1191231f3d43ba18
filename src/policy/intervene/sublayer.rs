//! Knock out a layer, or its attention or MLP alone: it adds nothing to the residual stream.

use linkme::distributed_slice;

use super::{Intervention, Plan, Sublayer, Survey, no_layer};
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Choice, Count, Key};
use crate::policy::part::Part;
use crate::policy::registry::REGISTERED;
use crate::policy::view::Sizes;

static LAYER: Key<Count> = Key::new("layer", "layer", Count(0, 9_999), 0);
static SUBLAYER: Key<Choice<Sublayer>> = Key::new("sublayer", "what of it", Choice(Sublayer::WORDS), Sublayer::Both);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "zerolayer",
    family: Family::Intervention,
    idea: "knock out a layer, its attention or its MLP: it adds nothing to the residual stream",
    paper: Some(Paper { title: "The Unreasonable Ineffectiveness of the Deeper Layers", arxiv: "2403.17887" }),
    budget: None,
    keys: &[&LAYER, &SUBLAYER],
    build: |spec| Part::intervention(ZeroLayer { layer: spec.get(&LAYER) as usize, sublayer: spec.get(&SUBLAYER) }),
};

struct ZeroLayer {
    layer: usize,
    sublayer: Sublayer,
}

impl Intervention for ZeroLayer {
    fn plan(&self, _: &mut dyn Survey, plan: &mut Plan) -> Result<(), String> {
        plan.alterations.sublayers.extend(self.sublayer.of(self.layer).into_iter().map(|sublayer| (sublayer, 0.0)));
        Ok(())
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        no_layer(self.layer, model)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::planned;

    #[test]
    fn a_layer_is_two_sublayers() {
        assert_eq!(planned("zerolayer:layer=2").alterations.sublayers, [(4, 0.0), (5, 0.0)]);
        assert_eq!(planned("zerolayer:layer=2,sublayer=mlp").alterations.sublayers, [(5, 0.0)]);
        assert_eq!(planned("zerolayer:sublayer=attention").alterations.sublayers, [(0, 0.0)]);
    }
}
