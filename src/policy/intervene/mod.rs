//! Interventions: what a lane does otherwise than the model, from the prompt's first token on. Such a lane reads the
//! prompt on its own; everything else about it is as with other lanes.

mod bos;
mod cast;
mod channel;
mod copymap;
mod head;
mod kvbias;
mod masksink;
mod massive;
mod scale;
mod sublayer;
mod zerosink;

use super::view::Sizes;
use crate::model::alteration::{Alterations, Tokens};
use crate::policy::key::{Choice, Key};
use crate::probe::massive::Element;

/// What is known of lane 0's prompt, read without interventions.
pub trait Survey {
    fn sizes(&self) -> Sizes;
    /// The prompt begins with the model's token for that.
    fn begins_with_bos(&self) -> bool;
    /// The largest elements of the residual stream at the first point that has massive ones, those alone, with the
    /// means of such elements: see [`MassiveFound`]. `None` where there are none.
    fn massive(&mut self) -> Result<Option<MassiveFound>, String>;
    /// Mean of a channel at a residual point over the prompt's tokens.
    fn channel_mean(&mut self, point: usize, channel: usize) -> Result<f32, String>;
}

/// The massive elements of a prompt where they first appear.
#[derive(Debug, Clone, PartialEq)]
pub struct MassiveFound {
    /// Residual point: 0 = embedding, then after each sublayer.
    pub point: usize,
    pub elements: Vec<Element>,
    /// Of each element, the mean over calibration texts of its channel at massive tokens of its kind (the first of a
    /// text, or later ones); its own value where no text has one.
    pub means: Vec<f32>,
}

/// What a lane with interventions is read and stepped with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub alterations: Alterations,
    /// Done to the first token's entries, once it has been read alone.
    pub sink: Vec<SinkEdit>,
    /// The prompt's first token is left out.
    pub drops_first: bool,
}

/// A change of the entries of the first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkEdit {
    /// `None`: every layer, every kv head.
    pub layer: Option<usize>,
    pub kv_head: Option<usize>,
    pub change: SinkChange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkChange {
    /// No later query attends to it.
    Mask,
    /// Its value is zero.
    ZeroValue,
    /// A key and value without a token stand there: those of lane 0's token at this position, the key turned back to
    /// position 0.
    Bias { from: u32 },
}

/// One part of a spec.
pub trait Intervention: Send + Sync {
    /// Adds what it does to `plan`; fails with the reason where it cannot be done to this prompt.
    fn plan(&self, survey: &mut dyn Survey, plan: &mut Plan) -> Result<(), String>;
    /// Fails with the reason where the model has no such place.
    fn fits(&self, _model: Sizes) -> Result<(), String> {
        Ok(())
    }
}

/// Which sublayer of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sublayer {
    Attention,
    Mlp,
    Both,
}

impl Sublayer {
    const WORDS: &[(&str, Self)] = &[("attention", Self::Attention), ("mlp", Self::Mlp), ("both", Self::Both)];

    /// Sublayer indices in layer `layer`.
    fn of(self, layer: usize) -> Vec<usize> {
        match self {
            Self::Attention => vec![2 * layer],
            Self::Mlp => vec![2 * layer + 1],
            Self::Both => vec![2 * layer, 2 * layer + 1],
        }
    }
}

/// Tokens that a change of channels acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    First,
}

static TOKENS: Key<Choice<Which>> = Key::new(
    "tokens",
    "at which tokens: every one, generated ones too, or the text's first",
    Choice(&[("all", Which::All), ("first", Which::First)]),
    Which::All,
);

impl Which {
    fn tokens(self) -> Tokens {
        match self {
            Self::All => Tokens::All,
            Self::First => Tokens::At(vec![0]),
        }
    }
}

/// There is no layer `layer`.
fn no_layer(layer: usize, model: Sizes) -> Result<(), String> {
    let last = model.layers.saturating_sub(1);
    if layer > last { Err(format!("there is no layer {layer}; layers are 0 to {last}")) } else { Ok(()) }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::policy::Policy;

    /// Four layers of three heads, width 8; channel means are 10 · point + channel.
    pub struct Toy {
        pub massive: Option<MassiveFound>,
        pub bos: bool,
    }

    impl Survey for Toy {
        fn sizes(&self) -> Sizes {
            Sizes { layers: 4, heads: 3, kv_heads: 1, head_dim: 4, hidden: 8, ff: 16 }
        }
        fn begins_with_bos(&self) -> bool {
            self.bos
        }
        fn massive(&mut self) -> Result<Option<MassiveFound>, String> {
            Ok(self.massive.clone())
        }
        fn channel_mean(&mut self, point: usize, channel: usize) -> Result<f32, String> {
            Ok((10 * point + channel) as f32)
        }
    }

    /// What a spec plans.
    pub fn plan(spec: &str, toy: &mut Toy) -> Result<Plan, String> {
        let policy = Policy::parse(spec).map_err(|error| error.to_string())?;
        policy.fits(toy.sizes())?;
        policy.plan(toy).map(Option::unwrap_or_default)
    }

    pub fn planned(spec: &str) -> Plan {
        plan(spec, &mut Toy { massive: None, bos: true }).unwrap()
    }

    #[test]
    fn several_add_up_and_evictors_may_stand_beside_them() {
        let plan = planned("zerohead:layer=1,head=2+scale:layer=3,sublayer=both,by=0.5+cast:to=bf16+masksink");
        assert_eq!(plan.alterations.heads, [(1, 2)]);
        assert_eq!(plan.alterations.sublayers, [(6, 0.5), (7, 0.5)]);
        assert!(plan.alterations.cast.is_some() && plan.sink.len() == 1);
        let policy = Policy::parse("zerohead+snapkv@50%").unwrap();
        assert!(policy.intervenes() && policy.stages() == 1);
        assert!(Policy::parse("zerohead+kivi").unwrap().storage().is_some());
        assert!(!Policy::parse("snapkv@50%").unwrap().intervenes());
        for spec in ["full+zerohead", "tie+zerohead", "zerohead+sharedattention"] {
            assert!(Policy::parse(spec).is_err(), "{spec}");
        }
    }

    #[test]
    fn places_that_the_model_does_not_have_are_refused() {
        let mut toy = Toy { massive: None, bos: true };
        for spec in [
            "zerohead:layer=4",
            "zerohead:head=3",
            "scale:layer=4",
            "setchannel:channel=8",
            "masksink:layer=9",
            "zerolayer:layer=7",
        ] {
            let why = plan(spec, &mut toy).unwrap_err();
            assert!(why.starts_with("there is no"), "{spec}: {why}");
        }
    }
}
