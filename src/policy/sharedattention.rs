//! Shared Attention: the layers of a span use the attention map of its first layer with their own values (Liao and
//! Vargas 2024, arXiv 2407.12866).
//!
//! `span=23-26`, several with a slash: `23-26/27-30`. Layers after the first of a span have no queries and keys; their
//! cache holds values only. Un-tuned: the paper trains the model on; alike maps (`attnscope analyze`) say where it may
//! go without. Holds while the prompt is read, so the lane reads it on its own. Maps are shared head by head. What is
//! saved here is memory: products for queries and keys are still taken with the other lanes' rows, and the map is
//! computed again from the first layer's queries, bit for bit.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Domain, Key};
use super::part::Part;
use super::registry::REGISTERED;
use super::sharing::{Lab, Shared, Sharing, Tried, What};
use crate::cache::Wiring;

/// `23-26/27-30`: (first, last).
struct Spans;

impl Domain for Spans {
    type Value = Vec<(usize, usize)>;
    fn read(&self, text: &str) -> Option<Self::Value> {
        let span = |span: &str| {
            let (first, last) = span.split_once('-')?;
            let span: (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
            (span.0 <= span.1 && span.1 < 10_000).then_some(span)
        };
        if text == "none" { Some(Vec::new()) } else { text.split('/').map(span).collect() }
    }
    fn show(&self, value: Self::Value) -> String {
        let spans: Vec<String> = value.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        if spans.is_empty() { "none".into() } else { spans.join("/") }
    }
    fn allowed(&self) -> String {
        "none, or layers such as 23-26 or 23-26/27-30".into()
    }
}

static SPAN: Key<Spans> = Key::new("span", "layers that use the map of the first of them", Spans, Vec::new());

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "sharedattention",
    family: Family::Sharing,
    idea: "a span of layers uses the attention map of its first layer, un-tuned; their caches hold values only",
    paper: Some(Paper { title: "Beyond KV Caching: Shared Attention for Efficient LLMs", arxiv: "2407.12866" }),
    budget: None,
    keys: &[&SPAN],
    build: |spec| Part::sharing(SharedAttention { spans: spec.get(&SPAN) }),
};

struct SharedAttention {
    spans: Vec<(usize, usize)>,
}

impl Sharing for SharedAttention {
    fn wire(&self, lab: &mut dyn Lab) -> Result<Shared, String> {
        let mut wiring = Wiring::own(lab.layers());
        let mut tried = Vec::new();
        for &(first, last) in &self.spans {
            for layer in first + 1..=last {
                if !wiring.layers().checked_sub(layer + 1).is_some_and(|_| lab.alike(first, layer)) {
                    let last = wiring.layers().saturating_sub(1);
                    return Err(format!(
                        "layer {layer} cannot use layer {first}'s map: they differ in window or rotation, or there are layers 0 to {last} only"
                    ));
                }
                if !wiring.is_own(layer) {
                    return Err(format!("layer {layer} is in two spans"));
                }
                wiring.use_map(layer, first).map_err(|why| why.to_string())?;
                tried.push(Tried::new(layer, first, What::Map));
            }
        }
        Ok(Shared { wiring, tried, pieces: 0, note: "un-tuned: the paper trains the model with shared maps" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::policy::testing::NoLab;

    #[test]
    fn spans_are_wired_and_wrong_ones_refused() {
        let wire = |spec: &str| Policy::parse(spec).unwrap().sharing().unwrap().wire(&mut NoLab { layers: 8 });
        let shared = wire("sharedattention:span=1-3/5-6").unwrap();
        assert_eq!(format!("{:?}", shared.wiring), "2~1/3~1/6~5");
        assert!(shared.tried.iter().all(|t| t.what == What::Map && t.kept));
        assert!(wire("sharedattention:span=6-8").unwrap_err().contains("0 to 7"));
        assert!(wire("sharedattention:span=1-3/3-5").is_err() && wire("sharedattention:span=1-3/2-4").is_err());
        assert!(Policy::parse("sharedattention:span=3-1").is_err());
    }
}
