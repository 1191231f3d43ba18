//! Lanes that intervene: what is known before they read the prompt, what is done to the entries of its first token, and
//! what comes of it.

use std::sync::Arc;

use super::core::Core;
use super::error::{EngineError, Result};
use super::frame::Effect;
use super::lane::{Lane, sizes};
use super::pieces;
use crate::backend::CacheId;
use crate::model::alteration::{Alterations, Altered};
use crate::policy::Policy;
use crate::policy::intervene::{MassiveFound, Plan, SinkChange, Survey};
use crate::policy::part::{Rewritten, Sizes};
use crate::policy::rope::Angles;
use crate::probe::difference::Difference;
use crate::probe::massive::{Magnitudes, RATIO, Tally, onset};
use crate::probe::sink;

/// Added to a logit that gets no probability: e to it is nothing in f32, and sums stay finite.
const MASKED: f32 = -1e9;
/// Texts over which the means of massive activations are taken, and their tokens.
const TEXTS: usize = 30;
const TEXT: usize = 64;
/// The last tokens of the prompt by which an effect is judged.
const JUDGED: usize = 64;

/// What has been found out about lane 0's prompt; all of it only when asked for.
struct OnLane0<'a> {
    core: &'a mut Core,
    failure: Option<EngineError>,
}

impl Core {
    /// What `policy` does to this prompt; `None` where it does not intervene. What the last pass left in the backend is
    /// gone.
    pub(super) fn plan(&mut self, policy: &Policy) -> Result<Option<Arc<Plan>>> {
        let mut survey = OnLane0 { core: self, failure: None };
        let plan = policy.plan(&mut survey);
        if let Some(failure) = survey.failure {
            return Err(failure);
        }
        let misfit = |why| EngineError::Intervention { spec: policy.spec().to_string(), why };
        let plan = plan.map_err(misfit)?;
        if plan.as_ref().is_some_and(|plan| plan.drops_first) && self.prompt.len() < 2 {
            return Err(misfit("the prompt has one token only".into()));
        }
        Ok(plan.map(Arc::new))
    }

    /// Rows of a pass in which each lane has one, all at position `position`.
    pub(super) fn altered_rows(&self, position: u32) -> Vec<Altered> {
        let of = |(i, lane): (usize, &Lane)| {
            let by = lane.alterations.clone().filter(|by| !by.is_empty())?;
            Some(Altered { rows: i..i + 1, first: position, by })
        };
        self.lanes.iter().enumerate().filter_map(of).collect()
    }

    /// The entries of the first token, the only ones so far, become what `plan` says.
    pub(super) fn edit_sink(&mut self, plan: &Plan, cache: CacheId) -> Result<()> {
        let config = self.config();
        let (layers, kv_heads, dim) = (config.layers.len(), config.kv_heads, config.head_dim);
        for edit in &plan.sink {
            for layer in (0..layers).filter(|layer| edit.layer.is_none_or(|of| of == *layer)) {
                for head in (0..kv_heads).filter(|head| edit.kv_head.is_none_or(|of| of == *head)) {
                    let new = match edit.change {
                        SinkChange::Mask => Rewritten { offsets: Some(vec![MASKED]), ..Rewritten::default() },
                        SinkChange::ZeroValue => Rewritten { values: Some(vec![0.0; dim]), ..Rewritten::default() },
                        SinkChange::Bias { from } => self.bias(layer, head, from)?,
                    };
                    self.backend.overwrite(cache, layer, head, &new)?;
                }
            }
        }
        Ok(())
    }

    /// Key, as at position 0, and value of lane 0's token at position `from`.
    fn bias(&self, layer: usize, head: usize, from: u32) -> Result<Rewritten> {
        let (cache, dim) = (self.lanes[0].cache, self.config().head_dim);
        let Ok(slot) = self.backend.positions(cache, layer, head).binary_search(&from) else {
            let what = "taking a key and value from lane 0".into();
            let why = format!(
                "layer {layer} does not hold position {from}: choose one of the prompt's (a window passes the others)"
            );
            return Err(crate::backend::BackendError::Failed { what, why }.into());
        };
        let row = |all: &[f32]| all[slot * dim..(slot + 1) * dim].to_vec();
        let (mut key, value) =
            (row(&self.backend.keys(cache, layer, head)), row(&self.backend.values(cache, layer, head)));
        Angles::below(from + 1, self.decoder.turns(layer)).turn_back(&mut key, dim, std::iter::once(from));
        Ok(Rewritten { keys: Some(key), values: Some(value), offsets: None })
    }

    /// What came of reading the prompt with interventions: `hidden` are the final-normed states of its tokens from
    /// position `first` on. What the last pass left in the backend is gone.
    pub(super) fn effect(&mut self, cache: CacheId, first: u32, hidden: &[f32]) -> Result<Effect> {
        let (width, prompt) = (self.config().hidden, self.prompt.clone());
        let judged = JUDGED.min(prompt.len() - 1 - first as usize);
        let targets = &prompt[prompt.len() - judged..];
        let end = |states: &[f32]| states[states.len() - (judged + 1) * width..states.len() - width].to_vec();
        let (ours, theirs) = (end(hidden), end(&self.prompt_hidden));
        let before = self.logits_of(&theirs)?;
        let difference = self.difference(&before, &ours, targets)?;
        let rate =
            |cache, first: u32| sink::rate(&self.alphas(cache, first, prompt.len() - first as usize), sink::EPSILON);
        let Difference { tokens, nll, nll_before, kl, flips } = difference;
        let (sink_rate, sink_rate_full) = (rate(cache, first), rate(self.lanes[0].cache, 0));
        Ok(Effect { tokens, nll, nll_full: nll_before, kl, flips, sink_rate, sink_rate_full })
    }

    /// The massive elements of a text where they first appear. What the last pass left in the backend is gone.
    pub fn massive(&mut self, ids: &[u32]) -> Result<Vec<Magnitudes>> {
        let mut tallies: Vec<Tally> = (0..=self.decoder.sublayers()).map(|_| Tally::default()).collect();
        let hidden = self.config().hidden;
        self.trials(ids, &[Arc::default()], Some(&mut |point, first, rows| tallies[point].add(first, rows, hidden)))?;
        Ok(tallies.iter().map(Tally::finish).collect())
    }

    /// Of every token of a text, the values of `channels` at `point` [channel][tokens], and the median of |H| there.
    fn channels(&mut self, ids: &[u32], point: usize, channels: &[usize]) -> Result<(Vec<Vec<f32>>, f32)> {
        let (hidden, mut tally) = (self.config().hidden, Tally::default());
        let mut values = vec![Vec::new(); channels.len()];
        let mut look = |at: usize, first: u32, rows: &[f32]| {
            if at == point {
                let of = |channel: usize| rows.iter().skip(channel).step_by(hidden);
                values.iter_mut().zip(channels).for_each(|(values, &channel)| values.extend(of(channel)));
                tally.add(first, rows, hidden);
            }
        };
        self.trials(ids, &[Arc::<Alterations>::default()], Some(&mut look))?;
        Ok((values, tally.finish().median))
    }

    fn massive_found(&mut self) -> Result<Option<MassiveFound>> {
        let prompt = self.prompt.clone();
        let points = self.massive(&prompt)?;
        let Some(point) = onset(&points) else { return Ok(None) };
        let elements: Vec<_> = points[point].massive().copied().collect();
        let texts = pieces::cut(&prompt, self.tokenizer.as_ref(), TEXTS, TEXT.min(self.max_rows)).ids;
        // (sum, count) of each element's channel over tokens of its kind
        let mut sums = vec![(0.0f64, 0u32); elements.len()];
        let channels: Vec<usize> = elements.iter().map(|element| element.channel as usize).collect();
        for text in &texts {
            let (values, median) = self.channels(text, point, &channels)?;
            for ((element, values), sum) in elements.iter().zip(&values).zip(&mut sums) {
                let (first, later) = values.split_at(1);
                let of_kind = if element.position == 0 { first } else { later };
                let massive = of_kind.iter().filter(|x| element.position == 0 || x.abs() >= RATIO * median);
                for &x in massive {
                    *sum = (sum.0 + f64::from(x), sum.1 + 1);
                }
            }
        }
        let mean = |(element, &(sum, count)): (&crate::probe::massive::Element, &(f64, u32))| match count {
            0 => element.value,
            count => (sum / count as f64) as f32,
        };
        let means = elements.iter().zip(&sums).map(mean).collect();
        Ok(Some(MassiveFound { point, elements, means }))
    }
}

impl OnLane0<'_> {
    /// `value`, or a failure that is told elsewhere.
    fn or_fail<T>(&mut self, value: Result<T>) -> std::result::Result<T, String> {
        value.map_err(|error| {
            let why = error.to_string();
            self.failure = Some(error);
            why
        })
    }
}

impl Survey for OnLane0<'_> {
    fn sizes(&self) -> Sizes {
        sizes(self.core.config())
    }

    fn begins_with_bos(&self) -> bool {
        self.core.config().bos.is_some_and(|bos| self.core.prompt.first() == Some(&bos))
    }

    fn massive(&mut self) -> std::result::Result<Option<MassiveFound>, String> {
        let found = self.core.massive_found();
        self.or_fail(found)
    }

    fn channel_mean(&mut self, point: usize, channel: usize) -> std::result::Result<f32, String> {
        let prompt = self.core.prompt.clone();
        let read = self.core.channels(&prompt, point, &[channel]);
        let values = self.or_fail(read)?.0.concat();
        Ok((values.iter().map(|&x| x as f64).sum::<f64>() / values.len().max(1) as f64) as f32)
    }
}
