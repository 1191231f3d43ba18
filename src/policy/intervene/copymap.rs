//! Copy the attention map of a layer to a later one, head by head, which weighs its own values with it. The other way
//! round cannot be done in one pass: a layer cannot use a map that does not exist yet. Spans: `sharedattention`.

use linkme::distributed_slice;

use crate::cache::Wiring;
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Count, Key};
use crate::policy::part::Part;
use crate::policy::registry::REGISTERED;
use crate::policy::sharing::{Lab, Shared, Sharing, Tried, What};

static FROM: Key<Count> = Key::new("from", "layer whose map is copied", Count(0, 9_999), 0);
static TO: Key<Count> = Key::new("to", "later layer that uses it", Count(1, 9_999), 1);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "copymap",
    family: Family::Intervention,
    idea: "a layer uses the attention map of an earlier one with its own values",
    paper: Some(Paper { title: "Beyond KV Caching: Shared Attention for Efficient LLMs", arxiv: "2407.12866" }),
    budget: None,
    keys: &[&FROM, &TO],
    build: |spec| Part::sharing(CopyMap { from: spec.get(&FROM) as usize, to: spec.get(&TO) as usize }),
};

struct CopyMap {
    from: usize,
    to: usize,
}

impl Sharing for CopyMap {
    fn wire(&self, lab: &mut dyn Lab) -> Result<Shared, String> {
        let Self { from, to } = *self;
        if from >= to {
            return Err(format!("layer {to} cannot use layer {from}'s map: it has to come from an earlier layer"));
        }
        let mut wiring = Wiring::own(lab.layers());
        wiring.use_map(to, from).map_err(|why| why.to_string())?;
        if !lab.alike(from, to) {
            return Err(format!("layers {from} and {to} differ in window or rotation"));
        }
        Ok(Shared { wiring, tried: vec![Tried::new(to, from, What::Map)], pieces: 0, note: "an intervention" })
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use crate::policy::testing::NoLab;

    #[test]
    fn a_map_goes_to_a_later_layer() {
        let wire = |spec: &str| Policy::parse(spec).unwrap().sharing().unwrap().wire(&mut NoLab { layers: 8 });
        assert_eq!(format!("{:?}", wire("copymap:from=2,to=5").unwrap().wiring), "5~2");
        assert!(wire("copymap:from=5,to=2").is_err() && wire("copymap:from=2,to=8").is_err());
    }
}
