//! Tie layers: a layer reads another one's keys and values, as models trained for it do (CLA, Brandon et al. 2024,
//! arXiv 2405.12981; Gemma 3n). On a model that was not, this is a what-if, and says so.
//!
//! `map=12>3/14>5`: layer 12 reads layer 3's cache and keeps nothing, 14 reads 5's; later layers read earlier ones.
//! While the prompt is read, too, so the lane reads it on its own and its first token differs. Keys are used as they
//! are: the layer's queries meet keys of another layer. Key and value products are still taken, with the other lanes'
//! rows; what is saved here is memory.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Domain, Key};
use super::part::Part;
use super::registry::REGISTERED;
use super::sharing::{Lab, Shared, Sharing, Tried, What};
use crate::cache::Wiring;

/// `12>3/14>5`, or the same with `=`, which no shell takes for its own: (reader, read).
struct Pairs;

impl Domain for Pairs {
    type Value = Vec<(usize, usize)>;
    fn read(&self, text: &str) -> Option<Self::Value> {
        let pair = |pair: &str| {
            let (layer, from) = pair.split_once(['>', '='])?;
            Some((layer.parse().ok()?, from.parse().ok()?))
        };
        if text == "none" { Some(Vec::new()) } else { text.split('/').map(pair).collect() }
    }
    fn show(&self, value: Self::Value) -> String {
        let pairs: Vec<String> = value.iter().map(|(layer, from)| format!("{layer}>{from}")).collect();
        if pairs.is_empty() { "none".into() } else { pairs.join("/") }
    }
    fn allowed(&self) -> String {
        "none, or pairs such as 12>3/14>5 (12=3/14=5 needs no quotes in a shell)".into()
    }
}

static MAP: Key<Pairs> = Key::new("map", "which layer reads which earlier one's cache", Pairs, Vec::new());

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "tie",
    family: Family::Sharing,
    idea: "a what-if: layers read an earlier layer's keys and values (the model was not trained for it)",
    paper: Some(Paper {
        title: "Reducing Transformer Key-Value Cache Size with Cross-Layer Attention",
        arxiv: "2405.12981",
    }),
    budget: None,
    keys: &[&MAP],
    build: |spec| Part::sharing(Tie { pairs: spec.get(&MAP) }),
};

struct Tie {
    pairs: Vec<(usize, usize)>,
}

impl Sharing for Tie {
    fn wire(&self, lab: &mut dyn Lab) -> Result<Shared, String> {
        let mut wiring = Wiring::own(lab.layers());
        let mut tried = Vec::new();
        // Whoever is read has been wired before.
        let mut pairs = self.pairs.clone();
        pairs.sort_unstable();
        for &(layer, from) in &pairs {
            wiring.read(layer, from).map_err(|why| why.to_string())?;
            if !lab.alike(layer, from) {
                return Err(format!("layers {layer} and {from} differ in window or rotation"));
            }
            tried.push(Tried::new(layer, from, What::Kv));
        }
        if let Some(pair) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("layer {} is tied twice", pair[0].0));
        }
        Ok(Shared { wiring, tried, pieces: 0, note: "a what-if: the model was not trained to share" })
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::Policy;
    use crate::policy::testing::NoLab;

    #[test]
    fn pairs_are_wired_and_wrong_ones_refused() {
        let wire = |spec: &str| Policy::parse(spec).unwrap().sharing().unwrap().wire(&mut NoLab { layers: 16 });
        let shared = wire("tie:map=14>5/12>3/15>3").unwrap();
        assert_eq!(format!("{:?}", shared.wiring), "12>3/14>5/15>3");
        assert_eq!(shared.tried.len(), 3);
        assert_eq!(Policy::parse("tie:map=12=3").unwrap().spec().to_string(), "tie:map=12>3");
        assert!(wire("tie").unwrap().wiring.readers().next().is_none());
        assert!(wire("tie:map=3>12").unwrap_err().contains("later"));
        assert!(wire("tie:map=16>0").unwrap_err().contains("0 to 15"));
        assert!(wire("tie:map=5>3/7>5").unwrap_err().contains("no keys and values of its own"));
        assert!(wire("tie:map=7>5/7>3").unwrap_err().contains("twice"));
        assert!(Policy::parse("tie:map=a>b").is_err());
    }

    #[test]
    fn evictors_may_stand_beside_it_and_what_stores_or_reads_otherwise_may_not() {
        let policy = Policy::parse("tie:map=3=1+adakv+snapkv@50%").unwrap();
        assert!(policy.sharing().is_some() && policy.stages() == 1);
        for spec in ["tie+kivi", "quest@64+tie", "tie+kvsharer"] {
            assert!(Policy::parse(spec).is_err(), "{spec}");
        }
    }
}
