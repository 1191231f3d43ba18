//! Set one channel of the residual stream where it passes a point: to zero, a number, or its mean over the prompt.

use linkme::distributed_slice;

use super::{Intervention, Plan, Survey, TOKENS, Which, no_layer};
use crate::model::alteration::SetChannel;
use crate::policy::descriptor::{Descriptor, Family, Paper};
use crate::policy::key::{Choice, Count, Domain, Key, Real};
use crate::policy::part::Part;
use crate::policy::registry::REGISTERED;
use crate::policy::view::Sizes;

/// A point of the residual stream in a layer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before layer 0, whatever the layer.
    Embedding,
    Attention,
    Mlp,
}

/// `zero`, `mean` or a number.
struct To;

/// `None`: the mean over lane 0's prompt.
impl Domain for To {
    type Value = Option<f64>;
    fn read(&self, text: &str) -> Option<Self::Value> {
        match text {
            "zero" => Some(Some(0.0)),
            "mean" => Some(None),
            text => Real(-1e6, 1e6).read(text).map(Some),
        }
    }
    fn show(&self, value: Self::Value) -> String {
        match value {
            None => "mean".into(),
            Some(0.0) => "zero".into(),
            Some(value) => Real(-1e6, 1e6).show(value),
        }
    }
    fn allowed(&self) -> String {
        "zero, mean (of the channel over lane 0's prompt), or a number".into()
    }
}

static LAYER: Key<Count> = Key::new("layer", "layer of the point", Count(0, 9_999), 0);
static SUBLAYER: Key<Choice<Place>> = Key::new(
    "sublayer",
    "behind which sublayer, or behind the embedding",
    Choice(&[("mlp", Place::Mlp), ("attention", Place::Attention), ("embedding", Place::Embedding)]),
    Place::Mlp,
);
static CHANNEL: Key<Count> = Key::new("channel", "channel of the stream", Count(0, 1_000_000), 0);
static TO: Key<To> = Key::new("to", "its new value", To, Some(0.0));

#[distributed_slice(REGISTERED)]
pub static POLICY: Descriptor = Descriptor {
    name: "setchannel",
    family: Family::Intervention,
    idea: "set a channel of the residual stream at one point to zero, to its mean, or to a number",
    paper: Some(Paper { title: "Massive Activations in Large Language Models", arxiv: "2402.17762" }),
    budget: None,
    keys: &[&LAYER, &SUBLAYER, &CHANNEL, &TO, &TOKENS],
    build: |spec| {
        let layer = spec.get(&LAYER) as usize;
        let point = match spec.get(&SUBLAYER) {
            Place::Embedding => 0,
            Place::Attention => 2 * layer + 1,
            Place::Mlp => 2 * layer + 2,
        };
        let (channel, to, which) = (spec.get(&CHANNEL) as usize, spec.get(&TO), spec.get(&TOKENS));
        Part::intervention(Channel { layer, point, channel, to, which })
    },
};

struct Channel {
    layer: usize,
    point: usize,
    channel: usize,
    to: Option<f64>,
    which: Which,
}

impl Intervention for Channel {
    fn plan(&self, survey: &mut dyn Survey, plan: &mut Plan) -> Result<(), String> {
        let value = match self.to {
            Some(value) => value as f32,
            None => survey.channel_mean(self.point, self.channel)?,
        };
        let tokens = self.which.tokens();
        plan.alterations.channels.push(SetChannel { point: self.point, channel: self.channel, value, tokens });
        Ok(())
    }

    fn fits(&self, model: Sizes) -> Result<(), String> {
        no_layer(self.layer, model)?;
        let last = model.hidden.saturating_sub(1);
        match self.channel <= last {
            true => Ok(()),
            false => Err(format!("there is no channel {}; channels are 0 to {last}", self.channel)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::planned;
    use super::*;
    use crate::model::alteration::Tokens;
    use crate::policy::Policy;

    #[test]
    fn a_point_follows_its_sublayer() {
        let set = |spec: &str| planned(spec).alterations.channels.remove(0);
        let zero = SetChannel { point: 2, channel: 0, value: 0.0, tokens: Tokens::All };
        assert_eq!(set("setchannel"), zero);
        assert_eq!(set("setchannel:layer=3,sublayer=attention,channel=5,to=mean").value, 75.0);
        assert_eq!(set("setchannel:sublayer=embedding,to=-2.5,tokens=first").tokens, Tokens::At(vec![0]));
        let normal = Policy::parse("setchannel:to=0,channel=3").unwrap().spec().to_string();
        assert_eq!(normal, "setchannel:channel=3,to=zero");
    }
}
