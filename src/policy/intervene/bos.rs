//! Read the prompt without its first token. Positions stay those of the text: rope is relative, so the rest is as if it
//! had been written without.

use linkme::distributed_slice;

use super::{Intervention, Plan, Survey};
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Choice, Key};
use crate::policy::part::Part;
use crate::policy::registry::REGISTERED;

static IF: Key<Choice<bool>> = Key::new(
    "token",
    "only a token that marks the beginning, or whatever comes first",
    Choice(&[("bos", true), ("any", false)]),
    false,
);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "dropbos",
    family: Family::Intervention,
    idea: "read the prompt without its first token",
    paper: Some(Paper { title: "A Refined Analysis of Massive Activations in LLMs", arxiv: "2503.22329" }),
    budget: None,
    keys: &[&IF],
    build: |spec| Part::intervention(DropBos { bos_only: spec.get(&IF) }),
};

struct DropBos {
    bos_only: bool,
}

impl Intervention for DropBos {
    fn plan(&self, survey: &mut dyn Survey, plan: &mut Plan) -> Result<(), String> {
        if self.bos_only && !survey.begins_with_bos() {
            return Err("the prompt does not begin with the model's BOS token; `dropbos:token=any` drops any".into());
        }
        plan.drops_first = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Toy, plan};

    #[test]
    fn only_a_bos_is_one_where_that_is_asked_for() {
        let mut toy = Toy { massive: None, bos: false };
        assert!(plan("dropbos", &mut toy).unwrap().drops_first);
        assert!(plan("dropbos:token=bos", &mut toy).is_err());
    }
}
