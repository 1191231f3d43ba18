//! Zero the value of the first token, its key stays: attention on it then adds nothing. Nearly free where the value is
//! drained.

use linkme::distributed_slice;

use super::SinkChange;
use super::masksink::{HEAD, LAYER, Sink};
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::part::Part;
use crate::policy::registry::REGISTERED;

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "zerosink",
    family: Family::Intervention,
    idea: "zero the value of the first token; attention on it adds nothing",
    paper: Some(Paper { title: "Active-Dormant Attention Heads", arxiv: "2410.13835" }),
    budget: None,
    keys: &[&LAYER, &HEAD],
    build: |spec| Part::intervention(Sink::new(spec.get(&LAYER), spec.get(&HEAD), SinkChange::ZeroValue)),
};
