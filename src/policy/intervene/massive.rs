//! Set massive activations where they first appear to zero or to their mean: up to three elements (token, channel) of
//! lane 0's prompt by the published definition (see `probe::massive`).
//!
//! Zero breaks models that use them as biases, the mean mostly leaves them as they were. The mean of an element is taken
//! over texts that come along (and the prompt, where it is long): over first tokens for one at the first token, else
//! over massive later tokens, in the element's channel. Public code takes means over 100 sequences of the same data.
//! `tokens=massive` is the elements alone; `first` the channels at the text's first token; `all` at every token,
//! generated ones too.

use linkme::distributed_slice;

use super::{Intervention, Plan, Survey, Which};
use crate::model::alteration::{SetChannel, Tokens};
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Choice, Key};
use crate::policy::part::Part;
use crate::policy::registry::REGISTERED;

static TO: Key<Choice<bool>> = Key::new("to", "their new value", Choice(&[("zero", false), ("mean", true)]), false);
static TOKENS: Key<Choice<Option<Which>>> = Key::new(
    "tokens",
    "the elements alone, or their channels at the first token or at all",
    Choice(&[("massive", None), ("first", Some(Which::First)), ("all", Some(Which::All))]),
    None,
);

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "massive",
    family: Family::Intervention,
    idea: "set the prompt's massive activations to zero or to their mean where they first appear",
    paper: Some(Paper { title: "Massive Activations in Large Language Models", arxiv: "2402.17762" }),
    budget: None,
    keys: &[&TO, &TOKENS],
    build: |spec| Part::intervention(Massive { mean: spec.get(&TO), which: spec.get(&TOKENS) }),
};

struct Massive {
    mean: bool,
    which: Option<Which>,
}

impl Intervention for Massive {
    fn plan(&self, survey: &mut dyn Survey, plan: &mut Plan) -> Result<(), String> {
        let found = survey
            .massive()?
            .ok_or("this prompt has no massive activations (|x| ≥ 1000 × the median) in this model")?;
        for (element, &mean) in found.elements.iter().zip(&found.means) {
            let tokens = match self.which {
                None => Tokens::At(vec![element.position]),
                Some(which) => which.tokens(),
            };
            let value = if self.mean { mean } else { 0.0 };
            let (point, channel) = (found.point, element.channel as usize);
            plan.alterations.channels.push(SetChannel { point, channel, value, tokens });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::MassiveFound;
    use super::super::testing::{Toy, plan};
    use super::*;
    use crate::probe::massive::{Element, Massive as How};

    #[test]
    fn the_elements_found_are_set_at_their_tokens() {
        let element =
            |position, channel, value| Element { position, channel, value, ratio: 5000.0, massive: Some(How::Yes) };
        let elements = vec![element(0, 3, 900.0), element(4, 3, -700.0)];
        let mut toy =
            Toy { massive: Some(MassiveFound { point: 6, elements, means: vec![880.0, -650.0] }), bos: false };
        let set = |channel, value, tokens| SetChannel { point: 6, channel, value, tokens };
        let zero = plan("massive", &mut toy).unwrap().alterations.channels;
        assert_eq!(zero, [set(3, 0.0, Tokens::At(vec![0])), set(3, 0.0, Tokens::At(vec![4]))]);
        let mean = plan("massive:to=mean,tokens=all", &mut toy).unwrap().alterations.channels;
        assert_eq!(mean, [set(3, 880.0, Tokens::All), set(3, -650.0, Tokens::All)]);
        assert!(plan("massive", &mut Toy { massive: None, bos: false }).unwrap_err().contains("no massive"));
    }
}
