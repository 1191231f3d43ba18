//! Keep everything: the yardstick that every other lane is measured against.

use linkme::distributed_slice;

use super::descriptor::{Descriptor, Family};
use super::part::Part;
use super::registry::REGISTERED;

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "full",
    family: Family::Reference,
    idea: "keep everything: the yardstick",
    paper: None,
    budget: None,
    keys: &[],
    build: |_| Part::Full,
};
