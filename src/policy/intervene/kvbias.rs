//! A KV bias in place of the sink: softmax(q·[Kᵀ, k′]/√D)[V; v′]. The first token leaves after it has been read, and a
//! key and value of no token take its slot: those of lane 0's token at position `from`, the key turned back to position
//! 0. With `from=0` they are the sink's own, and the lane is lane 0 as far as rounding goes: nothing else of the sink is
//! ever read. With another one: whether any token would do. The paper learns (k′, v′) and leaves them unturned.

use linkme::distributed_slice;

use super::SinkChange;
use super::masksink::{HEAD, LAYER, Sink};
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Count, Key};
use crate::policy::part::Part;
use crate::policy::registry::REGISTERED;

static FROM: Key<Count> =
    Key::new("from", "position of lane 0's token whose key and value it is", Count(0, 10_000_000), 0);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "kvbias",
    family: Family::Intervention,
    idea: "a key and value of no token stand in for the first token's",
    paper: Some(Paper { title: "When Attention Sink Emerges in Language Models", arxiv: "2410.10781" }),
    budget: None,
    keys: &[&FROM, &LAYER, &HEAD],
    build: |spec| {
        let from = spec.get(&FROM) as u32;
        Part::intervention(Sink::new(spec.get(&LAYER), spec.get(&HEAD), SinkChange::Bias { from }))
    },
};
