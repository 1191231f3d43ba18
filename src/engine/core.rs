//! The engine without its thread: reads the prompt, steps all lanes as one batch, gives frames.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rayon::prelude::*;

use super::assemble;
use super::error::{EngineError, Result};
use super::facts::Facts;
use super::frame::{Finding, Frame, Kept, Peaks};
use super::history::History;
use super::judge::Judged;
use super::lane::{Lane, LaneSpec};
use super::message::Probes;
use super::outlook::{LogitRows, Outlook};
use super::travel::Keyframe;
use super::verdict::{self, Verdicts};
use super::view::{LaneCaches, Reader, Rows};
use crate::backend::draw::Draw;
use crate::backend::{Backend, BackendError, CacheId, Row};
use crate::meter::watch::CardMeter;
use crate::model::config::Config;
use crate::model::decoder::Decoder;
use crate::model::tokenizer::Tokenizer;
use crate::policy::part::Moment;
use crate::policy::{Decision, Policy};
use crate::probe::depth::Sources;

/// A model on a backend, and all lanes of one prompt.
pub struct Core {
    pub(super) backend: Box<dyn Backend>,
    pub(super) decoder: Decoder,
    pub(super) specs: Vec<LaneSpec>,
    pub(super) lanes: Vec<Lane>,
    pub(super) prompt: Arc<[u32]>,
    /// Final-normed hidden states of the prompt [P, d], for its NLL.
    pub(super) prompt_hidden: Vec<f32>,
    pub(super) step: u32,
    pub(super) pass: Option<Pass>,
    pub(super) keyframes: VecDeque<Keyframe>,
    pub(super) findings: Vec<Finding>,
    /// Attention of lane 0 above which an evicted entry is regretted.
    pub regret_above: f32,
    /// Parts of the prompt that lanes are judged by.
    pub(super) judged: Judged,
    /// The frame of step 0.
    pub(super) first: Option<Frame>,
    pub(super) max_rows: usize,
    pub(super) lens_k: usize,
    pub(super) queries_budget: u64,
    pub(super) tokenizer: Option<Arc<Tokenizer>>,
    /// What policies asked to be gathered while the prompt was read.
    pub(super) facts: Facts,
    /// Cosines are gathered whatever the policies ask for.
    pub take_cosines: bool,
    /// What targets are made of.
    pub(super) depth_sources: Sources,
    /// Whether steps leave rows of logits.
    pub logit_rows: LogitRows,
    pub probes: Probes,
    /// Steps of which every other one goes without times, so that the two can be compared.
    pub alternating: Range<u32>,
    /// What the device does at best, once somebody has asked.
    pub(super) peaks: Option<Arc<Peaks>>,
    /// Watches the card that the backend is on.
    pub card: Option<CardMeter>,
}

/// A step on its way down.
pub(super) struct Pass {
    pub next_sublayer: usize,
    pub started: Instant,
    /// Time spent so far, without the waiting between commands.
    pub spent_ns: u64,
    pub fed: Vec<u32>,
    /// −ln p of those [lanes], nats.
    pub nll: Vec<f32>,
    /// What it ends in; `None`: in rows of logits.
    pub draws: Option<[Draw; 1]>,
}

/// Why reading the prompt stopped early.
pub enum Pause {
    Continue,
    Stop,
}

impl Core {
    /// `specs[0]` must keep everything: it is the yardstick.
    pub fn new(
        backend: Box<dyn Backend>,
        decoder: Decoder,
        specs: Vec<LaneSpec>,
        max_rows: usize,
        queries_budget: u64,
        tokenizer: Option<Arc<Tokenizer>>,
    ) -> Self {
        Self {
            queries_budget,
            tokenizer,
            facts: Facts::default(),
            take_cosines: false,
            depth_sources: match decoder.mixes_depth() {
                true => Sources::of(decoder.depth_plan(), decoder.sublayers()),
                false => Sources::plain(decoder.sublayers()),
            },
            logit_rows: LogitRows::default(),
            backend,
            decoder,
            specs,
            lanes: Vec::new(),
            prompt: Arc::from([]),
            prompt_hidden: Vec::new(),
            step: 0,
            pass: None,
            keyframes: VecDeque::new(),
            findings: Vec::new(),
            regret_above: super::regret::REGRET_ABOVE,
            judged: Judged::default(),
            first: None,
            max_rows,
            lens_k: 5,
            probes: Probes::default(),
            alternating: 0..0,
            peaks: None,
            card: None,
        }
    }

    pub fn config(&self) -> &Config {
        self.decoder.config()
    }

    pub fn backend(&mut self) -> &mut dyn Backend {
        &mut *self.backend
    }

    /// How far each layer's attention turns the residual stream: see [`Core::take_cosines`].
    pub fn cosines(&self) -> &[f32] {
        &self.facts.cosines
    }

    /// Rope of layer `l`: channel pair i of position p is turned by p · turns[i] radians [D / 2].
    pub fn turns(&self, layer: usize) -> &[f32] {
        self.decoder.turns(layer)
    }

    /// What the device does at best: measured the first time, kept for all later frames.
    pub fn peaks(&mut self) -> Result<Arc<Peaks>> {
        let peaks = match &self.peaks {
            Some(peaks) => peaks.clone(),
            None => Arc::new(self.backend.peaks()?),
        };
        Ok(self.peaks.insert(peaks).clone())
    }

    /// Lets every other one of the next `steps` steps go without times.
    pub fn alternate_timings(&mut self, steps: u32) {
        self.alternating = self.step + 1..self.step.saturating_add(steps).saturating_add(1);
    }

    pub fn prompt_ids(&self) -> &Arc<[u32]> {
        &self.prompt
    }

    pub fn step_number(&self) -> u32 {
        self.step
    }

    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Other lanes, from the next prompt on; `specs[0]` must keep everything. All of them must fit the model, which
    /// `open` makes sure of for those that it is given.
    pub fn set_lanes(&mut self, specs: Vec<LaneSpec>) {
        self.specs = specs;
    }

    pub fn interrupter(&self) -> Arc<AtomicBool> {
        self.backend.interrupter()
    }

    pub fn has_prompt(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// What is wrong with a prompt, before anything is computed.
    pub fn check(&self, ids: &[u32]) -> Result<()> {
        let config = self.config();
        if ids.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        if ids.len() >= config.context {
            return Err(EngineError::PromptTooLong { tokens: ids.len(), context: config.context });
        }
        if let Some(place) = ids.iter().position(|&id| id as usize >= config.vocab) {
            return Err(EngineError::TokenOutOfRange { id: ids[place], place, vocab: config.vocab });
        }
        Ok(())
    }

    /// What stage `stage` of `policy` decides about `cache` now [layer].
    pub(super) fn decide(
        &mut self,
        policy: &Policy,
        stage: usize,
        cache: CacheId,
        step: u32,
    ) -> Result<Vec<Option<Decision>>> {
        self.decide_after(policy, stage, cache, step, &self.read_by(cache))
    }

    /// All that `cache` has read; the prompt where its lane is about to open.
    pub(super) fn read_by(&self, cache: CacheId) -> Vec<u32> {
        let lane = self.lanes.iter().find(|lane| lane.cache == cache);
        self.prompt.iter().chain(lane.iter().flat_map(|lane| &lane.fed)).copied().collect()
    }

    /// The same after `tokens`, all that `cache` has read.
    pub(super) fn decide_after(
        &mut self,
        policy: &Policy,
        stage: usize,
        cache: CacheId,
        step: u32,
        tokens: &[u32],
    ) -> Result<Vec<Option<Decision>>> {
        let moment = Moment { step, prompt: self.prompt.len(), layers: self.config().layers.len(), layer: 0 };
        self.look(policy, cache, step, tokens, |lane| policy.decide(stage, moment, lane))
    }

    /// What `ask`, for `policy`, finds out about `cache` after step `step`, when it has read `tokens`.
    pub(super) fn look<T>(
        &mut self,
        policy: &Policy,
        cache: CacheId,
        step: u32,
        tokens: &[u32],
        ask: impl FnOnce(&LaneCaches<'_, '_>) -> T,
    ) -> Result<T> {
        let window = policy.window(self.prompt.len()).min(tokens.len());
        let available = self.backend.kept_queries().len();
        if step == 0 && available < window {
            return Err(EngineError::QueriesBudget {
                spec: policy.spec().to_string(),
                needed: window,
                kept: available,
            });
        }
        let lane = self.lanes.iter().find(|lane| lane.cache == cache);
        // Lanes that are about to open share the first one's prompt.
        let next = lane.or(self.lanes.first()).map_or(0, |lane| lane.outlook.all.argmax);
        let rows = lane.filter(|_| step > 0).map_or(Rows::OfQueries, |lane| Rows::Newest(&lane.history));
        let (facts, tokenizer) = (&self.facts, self.tokenizer.clone());
        let reader = Reader::new(&mut *self.backend, &self.decoder, tokenizer, facts, self.max_rows);
        let found = ask(&LaneCaches::new(&reader, cache, tokens, next, rows));
        reader.finish()?;
        Ok(found)
    }

    /// The slots that stay `[layer · G + kv head]`; `None` = all.
    pub(super) fn kept_slots<'a>(&self, decisions: &'a [Option<Decision>]) -> Vec<Option<&'a [u32]>> {
        let heads = decisions.iter().flat_map(|decision| (0..self.config().kv_heads).map(move |head| (decision, head)));
        heads.map(|(decision, head)| Some(decision.as_ref()?.kept[head].as_slice())).collect()
    }

    /// Writes what the decisions changed about what stays.
    pub(super) fn rewrite(&mut self, decisions: &[Option<Decision>], cache: CacheId) -> Result<()> {
        for (layer, decision) in decisions.iter().enumerate() {
            for (head, new) in decision.iter().flat_map(|d| &d.rewritten).enumerate() {
                self.backend.overwrite(cache, layer, head, new)?;
            }
        }
        Ok(())
    }

    /// How far positions lie behind those of the text, for a policy that turns keys to the places of their slots.
    pub(super) fn shift(&self, policy: &Policy, cache: CacheId) -> u32 {
        let config = self.config();
        // One position serves all layers: where some keep everything, it must stay the text's.
        if !policy.cache_positions() || config.layers.iter().any(|layer| layer.window.is_some()) {
            return 0;
        }
        let heads = (0..config.layers.len()).flat_map(|l| (0..config.kv_heads).map(move |g| (l, g)));
        let held = heads.map(|(l, g)| self.backend.positions(cache, l, g).len()).max().unwrap_or(0);
        let read = self.prompt.len() + self.step as usize;
        (read - held.min(read)) as u32
    }

    /// Lets the stages of `policy` from `first` on decide about `cache`; whether anything left it.
    pub(super) fn evict(
        &mut self,
        policy: &Policy,
        first: usize,
        cache: CacheId,
        step: u32,
        verdicts: &mut Verdicts,
    ) -> Result<bool> {
        let mut changed = false;
        for stage in first..policy.stages() {
            if !policy.schedule(stage).acts(step) || policy.schedule(stage).block().is_some() {
                continue;
            }
            let decisions = self.decide(policy, stage, cache, step)?;
            let held = verdict::held(&decisions, &*self.backend, cache);
            changed |= self.apply(&decisions, cache)?;
            verdict::note(verdicts, decisions, held, step);
        }
        Ok(changed)
    }

    /// Lets the losing entries leave; whether there were any.
    pub(super) fn apply(&mut self, decisions: &[Option<Decision>], cache: CacheId) -> Result<bool> {
        let any = decisions.iter().any(Option::is_some);
        if any {
            let kept = self.kept_slots(decisions);
            self.backend.retain(cache, &kept)?;
            self.rewrite(decisions, cache)?;
        }
        Ok(any)
    }

    /// Starts the pass of the next step.
    fn begin_step(&mut self) -> Result<()> {
        if !self.has_prompt() {
            return Err(EngineError::NoPrompt);
        }
        let position = self.prompt.len() as u32 + self.step;
        if position as usize >= self.config().context {
            return Err(EngineError::ContextFull { context: self.config().context });
        }
        let started = Instant::now();
        let next = self.lanes.iter().map(|lane| lane.next);
        let fed: Option<Vec<u32>> = next.clone().collect();
        let Some(fed) = fed else {
            let lane = next.take_while(Option::is_some).count() as u32;
            return Err(EngineError::NoToken { lane });
        };
        // before the pass: a row may have to be made for it
        let nll = fed.iter().enumerate().map(|(i, &token)| self.nll(i, token)).collect::<Result<_>>()?;
        let row =
            |(lane, &token): (&Lane, &u32)| Row { token, position, turned: position - lane.shift, cache: lane.cache };
        let rows: Vec<Row> = self.lanes.iter().zip(&fed).map(row).collect();
        let step = self.step + 1;
        // The last one has times, to be looked at.
        let untimed = self.alternating.contains(&step) && (self.alternating.end - step).is_multiple_of(2);
        let probes = Probes { timings: self.probes.timings && !untimed, ..self.probes };
        self.backend.begin(&rows, probes, Some(self.lanes[0].cache))?;
        let altered = self.altered_rows(position);
        self.decoder.embed_altered(&mut *self.backend, &altered);
        self.pass = Some(Pass { next_sublayer: 0, started, spent_ns: 0, fed, nll, draws: self.draws() });
        Ok(())
    }

    /// Runs at most `sublayers` further sublayers of the current step, starting it where needed.
    /// The frame is partial while some are left.
    pub fn advance(&mut self, sublayers: usize) -> Result<Frame> {
        if self.pass.is_none() {
            self.begin_step()?;
        }
        let total = self.decoder.sublayers();
        let Some(pass) = &mut self.pass else { return Err(EngineError::NoPrompt) };
        if pass.spent_ns > 0 {
            pass.started = Instant::now();
        }
        let (from, to) = (pass.next_sublayer, total.min(pass.next_sublayer.saturating_add(sublayers)));
        pass.next_sublayer = to;
        let altered = self.altered_rows(self.prompt.len() as u32 + self.step);
        for index in from..to {
            self.decoder.sublayer_altered(&mut *self.backend, index, &altered);
            if index % 2 == 0 {
                self.note_inputs(index / 2)?;
            }
        }
        if to < total {
            self.backend.run()?;
            let frame = assemble::partial_frame(self, to as u32);
            self.backend.check()?;
            return Ok(frame);
        }
        match self.pass.as_ref().and_then(|pass| pass.draws) {
            Some(draws) => self.decoder.draw(&mut *self.backend, &draws),
            None => self.decoder.head(&mut *self.backend, 0..self.lanes.len()),
        }
        self.backend.run()?;
        self.finish_step()
    }

    /// One whole step (or the rest of one).
    pub fn step(&mut self) -> Result<Frame> {
        self.advance(usize::MAX)
    }

    fn finish_step(&mut self) -> Result<Frame> {
        self.step += 1;
        let Some(pass) = self.pass.take() else { return Err(EngineError::NoPrompt) };
        for (lane, &token) in self.lanes.iter_mut().zip(&pass.fed) {
            lane.fed.push(token);
        }
        let (covered, regrets) = self.hindsight();
        let mut changed = Vec::new();
        for i in 0..self.lanes.len() {
            changed.push(self.compact(i)?);
        }
        let read = self.prompt.len() + self.step as usize;
        let kept = |(i, changed): (usize, bool)| match changed {
            true => assemble::kept(self, i),
            false => assemble::grown(&self.lanes[i].kept, read),
        };
        let kept: Vec<Kept> = changed.into_par_iter().enumerate().map(kept).collect();
        self.lanes.iter_mut().zip(kept).for_each(|(lane, kept)| lane.kept = Arc::new(kept));
        let frame = assemble::step_frame(self, pass, regrets, covered)?;
        self.backend.check()?;
        if self.step.is_multiple_of(super::travel::INTERVAL) {
            super::travel::remember(self);
        }
        Ok(frame)
    }

    /// Lets lane `i`'s policy decide and the losing entries leave; whether there were any.
    fn compact(&mut self, i: usize) -> Result<bool> {
        let (policy, cache) = (self.lanes[i].policy.clone(), self.lanes[i].cache);
        let read = self.prompt.len() + self.step as usize;
        self.lanes[i].history.push(&*self.backend, &self.decoder, cache, read);
        let mut verdicts = std::mem::take(&mut self.lanes[i].verdicts);
        let changed = self.evict(&policy, 0, cache, self.step, &mut verdicts)?;
        self.lanes[i].verdicts = verdicts;
        if policy.always_cache_positions() {
            self.lanes[i].shift = self.shift(&policy, cache);
        }
        self.store(&policy, cache, self.step)?;
        Ok(changed)
    }

    /// Stops a pass that cannot be finished, so that the next command starts clean.
    pub fn is_interrupted(error: &EngineError) -> bool {
        matches!(error, EngineError::Backend(BackendError::Interrupted))
    }
}

impl Lane {
    pub(super) fn new(spec: &LaneSpec, cache: CacheId, born: u32, outlook: Arc<Outlook>) -> Self {
        Self {
            spec: Arc::from(spec.policy.spec().to_string()),
            policy: spec.policy.clone(),
            sampler: spec.sampler.clone(),
            cache,
            fed: Vec::new(),
            next: None,
            kept: Arc::default(),
            shift: 0,
            history: History::default(),
            shared: None,
            alterations: None,
            first: 0,
            effect: None,
            verdicts: Vec::new(),
            born,
            outlook,
        }
    }
}
