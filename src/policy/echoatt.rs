//! EchoAtt: inner layers with alike attention maps use one (Rajabzadeh et al. 2024, arXiv 2409.14595).
//!
//! Which ones is measured on the prompt itself: mean cosine of the maps of two layers, head by head, without position 0,
//! over at most 64 rows. Leaving the first and last `skip` layers alone, always the layer is added next that is most
//! alike the first of the span that ends before it, until `layers` use another one's map. Un-tuned: the paper distils
//! the model afterwards, so quality here says what the maps alone give. The mechanism is Shared Attention's.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family, Paper};
use super::key::{Count, Key};
use super::part::Part;
use super::registry::REGISTERED;
use super::sharing::{Lab, Shared, Sharing, Tried, What};
use crate::cache::Wiring;
use crate::probe::spans::grow_spans;

static LAYERS: Key<Count> = Key::new("layers", "layers that use another one's map", Count(0, 1000), 4);
static SKIP: Key<Count> = Key::new("skip", "first and last layers that are left alone", Count(0, 1000), 2);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "echoatt",
    family: Family::Sharing,
    idea: "inner layers use the attention map of a layer before them that is most alike, un-tuned",
    paper: Some(Paper {
        title: "EchoAtt: Attend, Copy, then Adjust for More Efficient Large Language Models",
        arxiv: "2409.14595",
    }),
    budget: None,
    keys: &[&LAYERS, &SKIP],
    build: |spec| Part::sharing(EchoAtt { layers: spec.get(&LAYERS) as usize, skip: spec.get(&SKIP) as usize }),
};

struct EchoAtt {
    layers: usize,
    skip: usize,
}

/// Rows of the prompt that are compared.
const ROWS: usize = 64;

impl Sharing for EchoAtt {
    fn wire(&self, lab: &mut dyn Lab) -> Result<Shared, String> {
        let similarity = lab.similarity(ROWS).ok_or("its maps could not be compared")?.heads_without_sink;
        let inner = self.skip..lab.layers().saturating_sub(self.skip);
        let from = grow_spans(&similarity, inner, self.layers, |a, b| lab.alike(a, b));
        let mut wiring = Wiring::own(lab.layers());
        let mut tried = Vec::new();
        for (layer, &from) in from.iter().enumerate().filter(|&(layer, &from)| from != layer) {
            wiring.use_map(layer, from).map_err(|why| why.to_string())?;
            tried.push(Tried { similarity: Some(similarity.at(from, layer)), ..Tried::new(layer, from, What::Map) });
        }
        Ok(Shared { wiring, tried, pieces: 0, note: "un-tuned: the paper distils the model afterwards" })
    }
}
