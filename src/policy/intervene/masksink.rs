//! Forbid attention to the first token: a logit offset that leaves it no probability; the others are renormalised. The
//! first token itself still sees itself. In all layers this is as if the token had not been read.

use linkme::distributed_slice;

use super::{Intervention, Plan, SinkChange, SinkEdit, Survey, no_layer};
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Count, Domain, Key};
use crate::policy::part::Part;
use crate::policy::registry::REGISTERED;
use crate::policy::view::Sizes;

/// `all` or one.
pub(super) struct AllOr;

impl Domain for AllOr {
    type Value = Option<u64>;
    fn read(&self, text: &str) -> Option<Self::Value> {
        if text == "all" { Some(None) } else { Count(0, 9_999).read(text).map(Some) }
    }
    fn show(&self, value: Self::Value) -> String {
        value.map_or_else(|| "all".into(), |one| one.to_string())
    }
    fn allowed(&self) -> String {
        "all, or one of them from 0".into()
    }
}

pub(super) static LAYER: Key<AllOr> = Key::new("layer", "layers in which it acts", AllOr, None);
pub(super) static HEAD: Key<AllOr> = Key::new("kvhead", "kv heads in which it acts", AllOr, None);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "masksink",
    family: Family::Intervention,
    idea: "forbid attention to the first token; the rest is renormalised",
    paper: Some(Paper { title: "When Attention Sink Emerges in Language Models", arxiv: "2410.10781" }),
    budget: None,
    keys: &[&LAYER, &HEAD],
    build: |spec| Part::intervention(Sink::new(spec.get(&LAYER), spec.get(&HEAD), SinkChange::Mask)),
};

/// A change of the first token's entries.
pub(super) struct Sink(SinkEdit);

impl Sink {
    pub fn new(layer: Option<u64>, kv_head: Option<u64>, change: SinkChange) -> Self {
        let (layer, kv_head) = (layer.map(|layer| layer as usize), kv_head.map(|head| head as usize));
        Self(SinkEdit { layer, kv_head, change })
    }
}

impl Intervention for Sink {
    fn plan(&self, _: &mut dyn Survey, plan: &mut Plan) -> Result<(), String> {
        plan.sink.push(self.0);
        Ok(())
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        self.0.layer.map_or(Ok(()), |layer| no_layer(layer, model))?;
        match self.0.kv_head {
            Some(head) if head >= model.kv_heads => {
                Err(format!("there is no kv head {head}; kv heads are 0 to {}", model.kv_heads.saturating_sub(1)))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::planned;
    use super::*;

    #[test]
    fn one_layer_or_all() {
        let edit = |layer, kv_head, change| SinkEdit { layer, kv_head, change };
        assert_eq!(planned("masksink").sink, [edit(None, None, SinkChange::Mask)]);
        assert_eq!(planned("zerosink:layer=2,kvhead=0").sink, [edit(Some(2), Some(0), SinkChange::ZeroValue)]);
        assert_eq!(planned("kvbias:from=3").sink, [edit(None, None, SinkChange::Bias { from: 3 })]);
    }
}
