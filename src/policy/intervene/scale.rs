//! Scale what a sublayer adds to the residual stream, after its own norm where it has one.

use linkme::distributed_slice;

use super::{Intervention, Plan, Sublayer, Survey, no_layer};
use crate::policy::descriptor::{Descriptor, Family};
use crate::policy::key::{Choice, Count, Key, Real};
use crate::policy::part::Part;
use crate::policy::registry::REGISTERED;
use crate::policy::view::Sizes;

static LAYER: Key<Count> = Key::new("layer", "layer", Count(0, 9_999), 0);
static SUBLAYER: Key<Choice<Sublayer>> = Key::new("sublayer", "what of it", Choice(Sublayer::WORDS), Sublayer::Mlp);
static BY: Key<Real> = Key::new("by", "factor", Real(-100.0, 100.0), 0.5);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "scale",
    family: Family::Intervention,
    idea: "scale what an attention or MLP adds to the residual stream",
    paper: None,
    budget: None,
    keys: &[&LAYER, &SUBLAYER, &BY],
    build: |spec| {
        let (layer, sublayer, by) = (spec.get(&LAYER) as usize, spec.get(&SUBLAYER), spec.get(&BY) as f32);
        Part::intervention(Scale { layer, sublayer, by })
    },
};

struct Scale {
    layer: usize,
    sublayer: Sublayer,
    by: f32,
}

impl Intervention for Scale {
    fn plan(&self, _: &mut dyn Survey, plan: &mut Plan) -> Result<(), String> {
        plan.alterations.sublayers.extend(self.sublayer.of(self.layer).into_iter().map(|sublayer| (sublayer, self.by)));
        Ok(())
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        no_layer(self.layer, model)
    }
}
