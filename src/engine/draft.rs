//! Lane 0's model as its own draft: passes that leave sublayers out, and speculative decoding with them.

use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::core::{Core, Pause};
use super::error::{EngineError, Result};
use super::message::Probes;
use crate::backend::{CacheId, Row};
use crate::probe::draft::{draw, probabilities, verify};

/// How to decode with drafts.
#[derive(Debug, Clone, Copy)]
pub struct Speculation {
    /// Tokens drafted before each look of the whole model; 0 = the model alone.
    pub gamma: u32,
    /// 0 = greedy.
    pub temperature: f32,
    pub seed: u64,
    /// As many tokens are wanted; the last look may give more.
    pub tokens: usize,
}

/// What it came to.
#[derive(Debug, Clone)]
pub struct Speculated {
    /// Behind the text so far; the first is the one that lane 0 feeds next.
    pub tokens: Vec<u32>,
    /// Passes of the whole model.
    pub looks: u32,
    pub drafted: u32,
    pub accepted: u32,
    pub spent: Duration,
}

impl Core {
    /// Weights that a pass without the sublayers `skip` multiplies with, per those of a whole one: its cost where reading
    /// weights takes the time.
    pub fn draft_cost(&self, skip: &[bool]) -> f32 {
        let config = self.config();
        let heads = 2 * config.heads + 2 * config.kv_heads;
        let (attention, mlp) = (config.hidden * heads * config.head_dim, 3 * config.hidden * config.ff);
        let weights = |skip: &[bool]| {
            let left = (0..self.decoder.sublayers()).filter(|&i| !skip.get(i).is_some_and(|&left_out| left_out));
            let sublayers: usize = left.map(|index| if index % 2 == 0 { attention } else { mlp }).sum();
            (sublayers + config.hidden * config.vocab) as f64
        };
        (weights(skip) / weights(&[])) as f32
    }

    /// Logits [V] after lane 0's next token where the sublayers `skip` [2L] are left out of its pass; earlier tokens are
    /// those in the cache, which stays as it is.
    pub fn draft(&mut self, skip: &[bool]) -> Result<Vec<f32>> {
        let (cache, token) = self.begun(skip)?;
        let saved = self.backend.save(cache, true);
        let logits = self.pass_without(cache, self.read_so_far(), &[token], skip);
        self.backend.restore(cache, &saved)?;
        logits
    }

    /// Decodes on a copy of lane 0's cache: `gamma` tokens from passes without the sublayers `skip`, which read what the
    /// whole model has cached of the text before them, then one pass of the whole model over them. `None` where `between`,
    /// called after each look, gave it up.
    pub fn speculate(
        &mut self,
        skip: &[bool],
        how: Speculation,
        between: &mut dyn FnMut() -> Pause,
    ) -> Result<Option<Speculated>> {
        let (cache, first) = self.begun(skip)?;
        let cache = self.backend.fork(cache, &|_, _| None)?;
        let done = self.speculate_on(cache, first, skip, how, between);
        self.backend.free(cache);
        done
    }

    fn speculate_on(
        &mut self,
        cache: CacheId,
        first: u32,
        skip: &[bool],
        how: Speculation,
        between: &mut dyn FnMut() -> Pause,
    ) -> Result<Option<Speculated>> {
        let (vocab, context) = (self.config().vocab, self.config().context);
        let mut rng = ChaCha8Rng::seed_from_u64(how.seed);
        let mut position = self.read_so_far();
        let mut out = Speculated { tokens: vec![first], looks: 0, drafted: 0, accepted: 0, spent: Duration::default() };
        let started = Instant::now();
        while out.tokens.len() < how.tokens {
            let Some(&pending) = out.tokens.last() else { break };
            if position as usize + how.gamma as usize >= context {
                return Err(EngineError::ContextFull { context });
            }
            let saved = self.backend.save(cache, true);
            let (mut rows, mut offers) = (vec![pending], Vec::new());
            for i in 0..how.gamma {
                let logits = self.pass_without(cache, position + i, &rows[i as usize..], skip)?;
                let q = probabilities(&logits, how.temperature);
                rows.push(draw(&q, &mut rng));
                offers.push(q);
            }
            self.backend.restore(cache, &saved)?;
            let logits = self.pass_without(cache, position, &rows, &[])?;
            let mut wanted = logits.chunks_exact(vocab).map(|row| probabilities(row, how.temperature));
            let mut stood = 0;
            let mut instead = None;
            for ((q, &token), p) in offers.iter().zip(&rows[1..]).zip(&mut wanted) {
                match verify(&p, q, token, &mut rng) {
                    Ok(()) => stood += 1,
                    Err(other) => {
                        instead = Some(other);
                        break;
                    }
                }
            }
            out.tokens.extend(&rows[1..1 + stood]);
            // What the last row says comes for nothing where all stood.
            out.tokens.extend(instead.or_else(|| wanted.next().map(|p| draw(&p, &mut rng))));
            (out.looks, out.drafted) = (out.looks + 1, out.drafted + how.gamma);
            out.accepted += stood as u32;
            position += 1 + stood as u32;
            self.cut(cache, position)?;
            if let Pause::Stop = between() {
                return Ok(None);
            }
        }
        out.spent = started.elapsed();
        Ok(Some(out))
    }

    /// Lane 0's cache, and the token that it feeds next. Where depth is mixed, later sublayers have a place for what each
    /// earlier one writes: only the last ones can be left out.
    fn begun(&self, skip: &[bool]) -> Result<(CacheId, u32)> {
        if self.decoder.depth_plan().is_some() && !skip.is_sorted() {
            return Err(EngineError::MixedDraft);
        }
        let lane = self.lanes.first().ok_or(EngineError::NoPrompt)?;
        Ok((lane.cache, lane.next.ok_or(EngineError::NoToken { lane: 0 })?))
    }

    fn read_so_far(&self) -> u32 {
        self.prompt.len() as u32 + self.step
    }

    /// Logits [tokens, V] of `tokens`, at positions from `first` on, in a pass without the sublayers `skip`.
    fn pass_without(&mut self, cache: CacheId, first: u32, tokens: &[u32], skip: &[bool]) -> Result<Vec<f32>> {
        let b = &mut *self.backend;
        let row = |(position, &token): (u32, &u32)| Row { token, position, turned: position, cache };
        let rows: Vec<Row> = (first..).zip(tokens).map(row).collect();
        b.begin(&rows, Probes::NONE, None)?;
        self.decoder.embed(b);
        for index in (0..self.decoder.sublayers()).filter(|&index| !skip.get(index).is_some_and(|&out| out)) {
            self.decoder.sublayer(b, index);
        }
        self.decoder.head(b, 0..tokens.len());
        b.run()?;
        b.check()?;
        Ok(b.logits().to_vec())
    }

    /// Takes positions from `end` on out of a cache.
    fn cut(&mut self, cache: CacheId, end: u32) -> Result<()> {
        let (layers, kv_heads) = (self.config().layers.len(), self.config().kv_heads);
        let below = |i: usize| {
            let positions = self.backend.positions(cache, i / kv_heads, i % kv_heads);
            (0..positions.partition_point(|&p| p < end) as u32).collect::<Vec<u32>>()
        };
        let kept: Vec<Vec<u32>> = (0..layers * kv_heads).map(below).collect();
        let kept: Vec<Option<&[u32]>> = kept.iter().map(|slots| Some(slots.as_slice())).collect();
        Ok(self.backend.retain(cache, &kept)?)
    }
}
