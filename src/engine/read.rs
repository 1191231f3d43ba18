//! Reading the prompt: once for all lanes, and once more for each lane that cuts its cache while it reads, reads
//! sparsely, or whose layers share.

use std::sync::Arc;
use std::time::Instant;

use super::assemble::{self, PromptStats};
use super::core::{Core, Pause};
use super::error::Result;
use super::facts::{Facts, Needs};
use super::frame::{Effect, Frame, LensLayer, Reads};
use super::history::History;
use super::lane::{Lane, LaneSpec};
use super::outlook::Outlook;
use super::reading::{Covered, MOST_GAMMA};
use super::travel::Keyframe;
use super::verdict::{self, Verdicts};
use crate::backend::{CacheId, Row};
use crate::model::alteration::{Alterations, Altered};
use crate::policy::Policy;
use crate::policy::intervene::Plan;
use crate::policy::sharing::Shared;

/// What reading the prompt left behind, beside the cache.
pub struct PromptRead {
    pub stats: PromptStats,
    /// Logit lens of the last token; empty while the probe is off.
    pub lens: Vec<LensLayer>,
    /// What was read, where that is not everything.
    pub reads: Option<Arc<Reads>>,
}

/// A lane that has read the prompt on its own.
struct Own {
    cache: CacheId,
    outlook: Arc<Outlook>,
    history: History,
    shared: Option<Arc<Shared>>,
    alterations: Option<Arc<Alterations>>,
    first: u32,
    effect: Option<Effect>,
    verdicts: Verdicts,
    read: PromptRead,
}

/// How a lane reads the prompt on its own.
struct Reading {
    /// Tokens at a time.
    block: usize,
    shared: Option<Arc<Shared>>,
    plan: Option<Arc<Plan>>,
}

/// What a policy asks to be gathered while a prompt is read.
fn needs(policy: &Policy) -> Needs {
    let (cosines, inputs) = (policy.needs_cosines(), policy.needs_inputs());
    Needs { cosines, inputs, watches: policy.watches() }
}

impl Core {
    /// Reads the prompt and gives the frame of step 0. Forgets everything about an earlier prompt, and about this one
    /// where that fails. `between(core, read)` is called after every layer of every chunk; [`Pause::Stop`] gives it up.
    pub fn read_prompt(
        &mut self,
        ids: &[u32],
        mut between: impl FnMut(&mut Core, usize) -> Pause,
    ) -> Result<Option<Frame>> {
        self.check(ids)?;
        let read = self.read_all(ids, &mut between);
        if read.is_err() {
            self.forget();
        }
        read
    }

    fn read_all(&mut self, ids: &[u32], between: &mut dyn FnMut(&mut Core, usize) -> Pause) -> Result<Option<Frame>> {
        self.forget();
        self.prompt = ids.into();
        self.judged.spans = self.find_spans(ids);
        let started = Instant::now();
        let cache = self.backend.cache();
        self.lanes.push(Lane::new(&self.specs[0], cache, 0, Arc::new(Outlook::whole(&[]))));
        let mut stats = PromptStats::default();
        let needs = self
            .specs
            .iter()
            .map(|spec| needs(&spec.policy))
            .fold(Needs { cosines: self.take_cosines, ..Needs::default() }, Needs::or);
        self.facts = Facts::new(self.config().layers.len(), needs);
        self.backend.watch(&self.facts.needs.watches);
        let mut read = 0;
        for chunk in ids.chunks(self.max_rows) {
            if let Pause::Stop = self.read_rows(chunk, read, cache, None, between)? {
                return Ok(None);
            }
            self.prompt_hidden.extend(self.decoder.normed(&*self.backend));
            stats.add(self, chunk.len());
            read += chunk.len();
        }
        self.facts.watched = self.backend.take_watched();
        // The lens runs products of its own: the prompt's logits are gone after it.
        let outlook = Arc::new(Outlook::whole(self.backend.logits()));
        let shared = PromptRead { stats, lens: assemble::prompt_lens(self)?, reads: None };
        let Some(own) = self.open_lanes(cache, outlook, between)? else { return Ok(None) };
        let frame = assemble::prompt_frame(self, shared, own, started)?;
        self.keyframes.push_back(Keyframe::of(self));
        self.backend.check()?;
        self.first = Some(frame.clone());
        Ok(Some(frame))
    }

    /// Reads the prompt's tokens `chunk` behind the `read` before them, altered where `by` says so; logits of the last one
    /// where it ends the prompt.
    pub(super) fn read_rows(
        &mut self,
        chunk: &[u32],
        read: usize,
        cache: CacheId,
        by: Option<&Arc<Alterations>>,
        between: &mut dyn FnMut(&mut Core, usize) -> Pause,
    ) -> Result<Pause> {
        let row = |(position, &token): (u32, &u32)| Row { token, position, turned: position, cache };
        let rows: Vec<Row> = (read as u32..).zip(chunk).map(row).collect();
        self.backend.begin(&rows, self.probes, Some(cache))?;
        let altered = |by: &Arc<Alterations>| Altered { rows: 0..chunk.len(), first: read as u32, by: by.clone() };
        let altered: Vec<Altered> = by.map(altered).into_iter().collect();
        self.decoder.embed_altered(&mut *self.backend, &altered);
        for index in 0..self.decoder.sublayers() {
            if index % 2 == 0 && self.facts.needs.between() {
                self.facts.before(&self.decoder, &mut *self.backend)?;
                self.decoder.sublayer_altered(&mut *self.backend, index, &altered);
                self.facts.after(&self.decoder, &mut *self.backend, index / 2, read + chunk.len())?;
            } else {
                self.decoder.sublayer_altered(&mut *self.backend, index, &altered);
            }
            if index % 2 == 1 {
                self.backend.run()?;
                if let Pause::Stop = between(self, read) {
                    return Ok(Pause::Stop);
                }
            }
        }
        let last = read + chunk.len() == self.prompt.len();
        let wanted = if last { chunk.len() - 1..chunk.len() } else { 0..0 };
        self.decoder.head(&mut *self.backend, wanted);
        self.backend.run()?;
        Ok(Pause::Continue)
    }

    fn forget(&mut self) {
        for lane in std::mem::take(&mut self.lanes) {
            self.backend.free(lane.cache);
        }
        self.backend.truncate_queries(0);
        self.backend.take_watched();
        self.prompt_hidden.clear();
        self.keyframes.clear();
        self.findings.clear();
        self.first = None;
        self.pass = None;
        self.step = 0;
        self.alternating = 0..0;
    }

    /// Opens all lanes; gives what those read that did it on their own [lane], `None` where it was given up.
    fn open_lanes(
        &mut self,
        cache: CacheId,
        outlook: Arc<Outlook>,
        between: &mut dyn FnMut(&mut Core, usize) -> Pause,
    ) -> Result<Option<Vec<Option<PromptRead>>>> {
        self.lanes[0].outlook = outlook.clone();
        let mut reads = vec![None];
        for spec in self.specs.clone().iter().skip(1) {
            let Some((lane, read)) = self.open_lane(spec, cache, outlook.clone(), between)? else { return Ok(None) };
            self.lanes.push(lane);
            reads.push(read);
        }
        for i in 0..self.lanes.len() {
            self.lanes[i].kept = Arc::new(assemble::kept(self, i));
        }
        Ok(Some(reads))
    }

    /// A lane at the end of the prompt, with what it read itself; `None` where reading was given up.
    pub(super) fn open_lane(
        &mut self,
        spec: &LaneSpec,
        cache: CacheId,
        outlook: Arc<Outlook>,
        between: &mut dyn FnMut(&mut Core, usize) -> Pause,
    ) -> Result<Option<(Lane, Option<PromptRead>)>> {
        let alone = spec.policy.sharing().is_some() || spec.policy.intervenes();
        let whole = alone.then_some(self.max_rows);
        let Some(block) = spec.policy.block().or_else(|| self.sparse_block(&spec.policy)).or(whole) else {
            return Ok(Some((self.open_on(spec, cache, outlook)?, None)));
        };
        let Some(own) = self.read_in_blocks(&spec.policy, block, between)? else { return Ok(None) };
        let Own { cache, outlook, history, shared, alterations, first, effect, verdicts, read } = own;
        let shift = self.shift(&spec.policy, cache);
        let lane =
            Lane { shift, shared, alterations, first, effect, verdicts, history, ..Lane::new(spec, cache, 0, outlook) };
        Ok(Some((lane, Some(read))))
    }

    /// A lane that starts from lane 0's cache with what its policy leaves of it: the rest is never copied.
    fn open_on(&mut self, spec: &LaneSpec, cache: CacheId, outlook: Arc<Outlook>) -> Result<Lane> {
        let mut decisions = vec![None; self.config().layers.len()];
        self.facts.marks =
            Some((cache, self.prompt_history(&spec.policy, cache)?)).filter(|_| spec.policy.history() > 0);
        if spec.policy.evicts() {
            decisions = self.decide(&spec.policy, 0, cache, 0)?;
        }
        let marks = self.facts.marks.take().filter(|_| spec.policy.acts_in_decode());
        let mut history = marks.map(|(_, marks)| marks).unwrap_or_default();
        history.inputs = self.recent_inputs(&spec.policy);
        let mut verdicts = Verdicts::new();
        let held = verdict::held(&decisions, &*self.backend, cache);
        let (kept, kv_heads) = (self.kept_slots(&decisions), self.config().kv_heads);
        let own = self.backend.fork(cache, &|layer, head| kept[layer * kv_heads + head].map(<[u32]>::to_vec))?;
        self.rewrite(&decisions, own)?;
        verdict::note(&mut verdicts, decisions, held, 0);
        self.evict(&spec.policy, 1, own, 0, &mut verdicts)?;
        self.store(&spec.policy, own, 0)?;
        self.start_reading(&spec.policy, own)?;
        let shift = self.shift(&spec.policy, own);
        Ok(Lane { shift, history, verdicts, ..Lane::new(spec, own, 0, outlook) })
    }

    /// Reads the prompt once more into nowhere where `policy` asks for what was not gathered the first time.
    pub(super) fn gather_for(&mut self, policy: &Policy) -> Result<()> {
        let wanted = self.facts.needs.clone().or(needs(policy));
        if self.facts.needs.covers(wanted.clone()) {
            return Ok(());
        }
        self.facts = Facts::new(self.config().layers.len(), wanted);
        let cache = self.backend.cache();
        self.backend.shelve_queries(0);
        self.backend.watch(&self.facts.needs.watches);
        let (prompt, mut read) = (self.prompt.clone(), 0);
        let outcome = prompt.chunks(self.max_rows).try_for_each(|chunk| {
            self.read_rows(chunk, read, cache, None, &mut |_, _| Pause::Continue)?;
            read += chunk.len();
            Ok(())
        });
        self.facts.watched = self.backend.take_watched();
        self.backend.restore_queries();
        self.backend.free(cache);
        outcome
    }

    /// Reads the prompt `block` tokens at a time into a cache of its own, whose layers are wired and which is cut as the
    /// policy says. Nothing is left of it where that was given up.
    fn read_in_blocks(
        &mut self,
        policy: &Policy,
        block: usize,
        between: &mut dyn FnMut(&mut Core, usize) -> Pause,
    ) -> Result<Option<Own>> {
        let shared = match policy.sharing() {
            None => None,
            Some(_) => match self.wire(policy, between)? {
                None => return Ok(None),
                shared => shared.map(Arc::new),
            },
        };
        let plan = self.plan(policy)?;
        let cache = self.backend.cache();
        shared.iter().try_for_each(|shared| self.backend.wire(cache, &shared.wiring))?;
        self.backend.shelve_queries(plan.as_ref().is_some_and(|plan| plan.drops_first) as u32);
        let facts = Facts::new(self.config().layers.len(), needs(policy));
        let of_lane_0 = std::mem::replace(&mut self.facts, facts);
        let how = Reading { block, shared, plan };
        let own = self.read_cutting(policy, how, cache, between);
        self.facts = of_lane_0;
        self.backend.restore_queries();
        if !matches!(own, Ok(Some(_))) {
            self.backend.free(cache);
        }
        own
    }

    fn read_cutting(
        &mut self,
        policy: &Policy,
        how: Reading,
        cache: CacheId,
        between: &mut dyn FnMut(&mut Core, usize) -> Pause,
    ) -> Result<Option<Own>> {
        let Reading { block, shared, plan } = how;
        let prompt = self.prompt.clone();
        let first = plan.as_ref().is_some_and(|plan| plan.drops_first) as usize;
        let alterations = plan.as_ref().map(|plan| Arc::new(plan.alterations.clone()));
        let (mut stats, mut read) = (PromptStats::default(), first);
        let mut hidden = Vec::new();
        let mut verdicts = Verdicts::new();
        self.backend.set_sparse(cache, policy.sparse().map(|sparse| (sparse, prompt.len())))?;
        let mut covered = Covered::default();
        let (mut outlook, mut lens) = (Arc::new(Outlook::whole(&[])), Vec::new());
        // What becomes of the first token's entries has to happen before others read them.
        let edited = plan.as_ref().filter(|plan| !plan.sink.is_empty());
        let (alone, rest) = prompt[first..].split_at(edited.is_some() as usize);
        let blocks = rest.chunks(block.min(self.max_rows.max(MOST_GAMMA)));
        for block in std::iter::once(alone).filter(|alone| !alone.is_empty()).chain(blocks) {
            if let Pause::Stop = self.read_rows(block, read, cache, alterations.as_ref(), between)? {
                return Ok(None);
            }
            if plan.is_some() {
                hidden.extend(self.decoder.normed(&*self.backend));
            }
            if let Some(plan) = edited.filter(|_| read == first) {
                self.edit_sink(plan, cache)?;
            }
            stats.add(self, block.len());
            covered.add(&self.backend.covered(), block.len());
            read += block.len();
            if read == prompt.len() {
                outlook = Arc::new(Outlook::whole(self.backend.logits()));
                lens = assemble::prompt_lens(self)?;
            }
            for stage in (0..policy.stages()).filter(|&stage| policy.schedule(stage).block().is_some()) {
                let decisions = self.decide_after(policy, stage, cache, 0, &prompt[..read])?;
                let held = verdict::held(&decisions, &*self.backend, cache);
                self.apply(&decisions, cache)?;
                verdict::note(&mut verdicts, decisions, held, 0);
            }
        }
        let effect = match plan.is_some() && prompt.len() > first + 1 {
            true => Some(self.effect(cache, first as u32, &hidden)?),
            false => None,
        };
        let counts_on = policy.acts_in_decode();
        let mut history = if counts_on { self.prompt_history(policy, cache)? } else { History::default() };
        history.inputs = self.recent_inputs(policy);
        self.backend.set_sparse(cache, None)?;
        // While the queries kept are this lane's.
        self.evict(policy, 0, cache, 0, &mut verdicts)?;
        self.store(policy, cache, 0)?;
        self.start_reading(policy, cache)?;
        let reads = policy.sparse().map(|sparse| Arc::new(self.sparse_reads(sparse, cache, &covered)));
        let first = first as u32;
        Ok(Some(Own {
            cache,
            outlook,
            history,
            shared,
            alterations,
            first,
            effect,
            verdicts,
            read: PromptRead { stats, lens, reads },
        }))
    }

    /// The prompt's rows that a policy goes on counting while the text grows.
    fn prompt_history(&self, policy: &Policy, cache: CacheId) -> Result<History> {
        match policy.history() {
            rows if rows > 0 => {
                let prompt = self.prompt.len() as u32;
                Ok(History::of_prompt(&*self.backend, &self.decoder, cache, prompt, rows)?)
            }
            _ => Ok(History::default()),
        }
    }
}
