//! What stands between a sublayer and the next one where that is more than a sum.

use super::mixer::Mixer;
use super::streams::Streams;
use super::{Plan, Residual};
use crate::backend::{Backend, Buf, Result};

pub enum Carrier {
    Mixer(Box<Mixer>),
    Streams(Streams),
}

impl Carrier {
    /// `None`: sublayers add to one stream.
    pub fn load(residual: &Residual, hidden: usize, backend: &mut dyn Backend) -> Result<Option<Self>> {
        Ok(match residual {
            Residual::Plain => None,
            Residual::AttnRes(mixing) => Some(Self::Mixer(Box::new(Mixer::load(mixing, hidden, backend)?))),
            Residual::Hyper(hyper) => Some(Self::Streams(Streams::load(hyper, hidden, backend)?)),
        })
    }

    /// How depth is mixed, where it is.
    pub fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Mixer(mixer) => Some(mixer.plan()),
            Self::Streams(_) => None,
        }
    }

    /// Gets the embedding.
    pub fn embedding(&self) -> Buf {
        match self {
            Self::Mixer(mixer) => mixer.embedding(),
            Self::Streams(streams) => streams.out(),
        }
    }

    /// Where a sublayer's output goes, and whether it replaces what is there.
    pub fn out(&self, sublayer: usize) -> (Buf, bool) {
        match self {
            Self::Mixer(mixer) => mixer.out(sublayer),
            Self::Streams(streams) => (streams.out(), true),
        }
    }

    /// What target `target` reads, once the sublayer before it has run, becomes h.
    pub fn enter(&self, b: &mut dyn Backend, target: usize, h: Buf) {
        match self {
            Self::Mixer(mixer) => mixer.enter(b, target, h),
            Self::Streams(streams) => streams.enter(b, target, h),
        }
    }
}
