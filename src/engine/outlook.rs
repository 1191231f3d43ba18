//! What a lane knows of the token that comes next: all logits, or what a draw has left of them.

use std::borrow::Cow;
use std::str::FromStr;

use rayon::prelude::*;

use super::core::Core;
use super::error::{EngineError, Result};
use super::sampler::Sampler;
use crate::backend::draw::{CANDIDATES, Draw, Drawn};
use crate::probe::distribution::Distribution;

/// Whether steps leave rows of logits. Needed they are of several lanes, whose distance from lane 0 they give, and at a
/// temperature that is neither 0 nor 1: entropy and −ln p are those of temperature 1, and one draw sums up its own alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogitRows {
    /// Dropped where they are not needed and the device draws without them.
    Auto,
    #[default]
    Keep,
    /// Dropped where they are not needed.
    Drop,
}

impl LogitRows {
    pub const ALL: [Self; 3] = [Self::Auto, Self::Keep, Self::Drop];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Keep => "keep",
            Self::Drop => "drop",
        }
    }
}

impl FromStr for LogitRows {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Self::ALL.into_iter().find(|rows| rows.name() == text).ok_or_else(|| "auto, keep or drop".into())
    }
}

/// The next-token distribution of a lane.
#[derive(Debug)]
pub struct Outlook {
    /// At temperature 1.
    pub all: Distribution,
    row: Row,
}

#[derive(Debug)]
enum Row {
    /// Logits [V].
    Whole(Vec<f32>),
    /// What was drawn at temperature 0 or 1, and what logits are made from: the final norm's output [d].
    Drawn { drawn: Drawn, normed: Vec<f32> },
}

impl Outlook {
    pub fn whole(logits: &[f32]) -> Self {
        Self { all: Distribution::of(logits), row: Row::Whole(logits.to_vec()) }
    }

    pub fn drawn(drawn: Drawn, normed: Vec<f32>) -> Self {
        let argmax = drawn.candidates.first().map_or(0, |best| best.id);
        let all = Distribution { max: drawn.max, lse: drawn.lse, entropy: drawn.entropy, argmax };
        Self { all, row: Row::Drawn { drawn, normed } }
    }

    /// [V]; `None` where they were dropped.
    pub fn logits(&self) -> Option<&[f32]> {
        match &self.row {
            Row::Whole(logits) => Some(logits),
            Row::Drawn { .. } => None,
        }
    }

    /// −ln p(token), nats; `None` where the logits were dropped and the token is no candidate.
    fn nll(&self, token: u32) -> Option<f32> {
        let logit = match &self.row {
            Row::Whole(logits) => logits.get(token as usize).copied(),
            Row::Drawn { drawn, .. } => drawn.candidates.iter().find(|c| c.id == token).map(|c| c.z),
        };
        logit.map(|logit| self.all.lse - logit)
    }

    /// What `sampler` draws after step `step`, with the bytes of logits that the step did not keep.
    pub fn draw(&self, sampler: &Sampler, step: u32, vocab: usize) -> (Cow<'_, Drawn>, u64) {
        match &self.row {
            Row::Whole(row) => (Cow::Owned(Drawn::exactly(row, &self.all, &sampler.at(step), CANDIDATES)), 0),
            Row::Drawn { drawn, .. } => (Cow::Borrowed(drawn), 4 * vocab as u64),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        4 * match &self.row {
            Row::Whole(logits) => logits.len(),
            Row::Drawn { drawn, normed } => normed.len() + 3 * drawn.candidates.len(),
        } as u64
    }
}

impl Core {
    /// How the next step is drawn without keeping logits; `None` where they are kept.
    pub(super) fn draws(&self) -> Option<[Draw; 1]> {
        let wanted = match self.logit_rows {
            LogitRows::Keep => false,
            LogitRows::Auto => self.backend.fuses_draw(),
            LogitRows::Drop => true,
        };
        match &self.lanes[..] {
            [lane] if wanted && [0.0, 1.0].contains(&lane.sampler.temperature) => {
                Some([lane.sampler.at(self.step + 1)])
            }
            _ => None,
        }
    }

    /// Of the lanes after the pass that has just run.
    pub(super) fn outlooks(&self, drawn: bool) -> Vec<Outlook> {
        if drawn {
            let (hidden, all) = (self.config().hidden, self.decoder.normed(&*self.backend));
            let normed = all.chunks_exact(hidden).map(<[f32]>::to_vec);
            return self.backend.drawn().iter().cloned().zip(normed).map(|(d, n)| Outlook::drawn(d, n)).collect();
        }
        let rows: Vec<&[f32]> = self.backend.logits().chunks_exact(self.config().vocab).collect();
        rows.into_par_iter().map(Outlook::whole).collect()
    }

    /// Makes the rows of those whose draw asks for more than its candidates. The pass's own numbers are gone after it.
    pub(super) fn complete(&mut self) -> Result<()> {
        for i in 0..self.lanes.len() {
            if let Row::Drawn { drawn: Drawn { exact: false, .. }, .. } = self.lanes[i].outlook.row {
                let whole = Outlook::whole(self.logits(i)?);
                self.lanes[i].outlook = whole.into();
            }
        }
        Ok(())
    }

    /// Logits of lane `lane` after its newest token [V], made again where they were dropped: then what the last pass left
    /// in the backend is gone.
    pub fn logits(&mut self, lane: usize) -> Result<&[f32]> {
        let lanes = self.lanes.len();
        let outlook = match self.lanes.get(lane) {
            Some(lane) => lane.outlook.clone(),
            None => return Err(EngineError::NoLane { lane: lane as u32, lanes }),
        };
        match &outlook.row {
            Row::Whole(_) => Ok(self.lanes[lane].outlook.logits().unwrap_or_default()),
            Row::Drawn { normed, .. } => {
                self.decoder.logits_of_normed(&mut *self.backend, normed)?;
                Ok(self.backend.logits())
            }
        }
    }

    /// −ln p(token) after lane `lane`'s newest token, nats. Of a token that no candidate is, a dropped row is made again.
    pub fn nll(&mut self, lane: usize, token: u32) -> Result<f32> {
        let (lanes, vocab) = (self.lanes.len(), self.config().vocab);
        let outlook = match self.lanes.get(lane) {
            Some(lane) => lane.outlook.clone(),
            None => return Err(EngineError::NoLane { lane: lane as u32, lanes }),
        };
        match outlook.nll(token) {
            Some(nll) => Ok(nll),
            None => {
                let logit = self.logits(lane)?.get(token as usize).copied();
                let logit = logit.ok_or(EngineError::TokenOutOfRange { id: token, place: 0, vocab })?;
                Ok(outlook.all.lse - logit)
            }
        }
    }
}
