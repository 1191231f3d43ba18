//! Tokens read behind a cache for a policy's sake and forgotten again.

use super::message::Probes;
use super::view::{LaneCaches, Reader, Rows, note};
use crate::backend::{BackendError, CacheId, Result, Row};
use crate::cache::Saved;
use crate::model::soft::{LayerChange, SoftTokens};
use crate::policy::part::{Ahead, LaneView, Start};
use crate::probe::distribution::Distribution;
use crate::simd::sum_of_squares;

/// See [`LaneView::ahead`].
pub fn ahead(lane: &LaneCaches<'_, '_>, start: Start<'_>, work: &mut dyn FnMut(&mut dyn Ahead)) {
    let reader = lane.reader;
    let begun = begin(lane, start);
    let Some((cache, saved)) = begun.map_err(|error| note(&reader.failure, error)).ok() else { return };
    let tokens = match start {
        Start::Nothing => Vec::new(),
        Start::Behind | Start::Kept(_) => lane.tokens.to_vec(),
    };
    reader.backend.borrow_mut().shelve_queries(tokens.len() as u32);
    let norms = vec![Vec::new(); reader.decoder.config().layers.len()];
    work(&mut Reading { reader, cache, tokens, next: lane.next(), norms });
    let mut backend = reader.backend.borrow_mut();
    backend.restore_queries();
    match saved {
        Some(saved) => backend.restore(cache, &saved).unwrap_or_else(|error| note(&reader.failure, error)),
        None => backend.free(cache),
    }
}

/// The cache to read on with, and how it was before where it is the lane's own.
fn begin(lane: &LaneCaches<'_, '_>, start: Start<'_>) -> Result<(CacheId, Option<Vec<Saved>>)> {
    let mut backend = lane.reader.backend.borrow_mut();
    match start {
        Start::Behind => Ok((lane.cache, Some(backend.save(lane.cache, true)))),
        Start::Kept(kept) => {
            let keep = |layer: usize, head: usize| kept[layer].as_ref().map(|heads| heads[head].clone());
            Ok((backend.fork(lane.cache, &keep)?, None))
        }
        Start::Nothing => {
            let (wiring, cache) = (backend.wiring(lane.cache).cloned(), backend.cache());
            wiring.iter().try_for_each(|wiring| backend.wire(cache, wiring))?;
            Ok((cache, None))
        }
    }
}

struct Reading<'a, 'b> {
    reader: &'a Reader<'b>,
    cache: CacheId,
    /// All that was read, before and here.
    tokens: Vec<u32>,
    /// The most probable token after them.
    next: u32,
    /// [layers][tokens read here]
    norms: Vec<Vec<f32>>,
}

/// What a pass is made of.
#[derive(Clone, Copy)]
enum Input<'a> {
    Tokens(&'a [u32]),
    /// [rows, hidden], and the layers' changes or none.
    Soft(&'a [f32], &'a [LayerChange]),
}

/// Stands where a row is no token.
const NO_TOKEN: u32 = u32::MAX;

impl Reading<'_, '_> {
    /// Logits of the last row, if wanted.
    fn pass(&mut self, input: Input<'_>, logits: bool) -> Result<Vec<f32>> {
        let decoder = self.reader.decoder;
        let hidden = decoder.config().hidden;
        let b = &mut **self.reader.backend.borrow_mut();
        let (tokens, changes) = match input {
            Input::Tokens(tokens) => (tokens.to_vec(), &[][..]),
            Input::Soft(rows, changes) => (vec![NO_TOKEN; rows.len() / hidden], changes),
        };
        let row = |(position, &token): (u32, &u32)| Row { token, position, turned: position, cache: self.cache };
        let rows: Vec<Row> = (self.tokens.len() as u32..).zip(&tokens).map(row).collect();
        b.begin(&rows, Probes::NONE, Some(self.cache))?;
        match input {
            Input::Tokens(_) => decoder.embed(b),
            Input::Soft(rows, _) => decoder.fill(b, rows),
        }
        for index in 0..decoder.sublayers() {
            match changes.get(index / 2) {
                None => decoder.sublayer(b, index),
                Some(change) => decoder.sublayer_changed(b, index, change),
            }
            if index % 2 == 0 {
                b.run()?;
                let input = decoder.attention_input(b);
                self.norms[index / 2].extend(input.chunks_exact(hidden).map(|x| sum_of_squares(x).sqrt()));
            }
        }
        decoder.head(b, if logits { tokens.len() - 1..tokens.len() } else { 0..0 });
        b.run()?;
        self.tokens.extend(tokens);
        Ok(if logits { b.logits().to_vec() } else { Vec::new() })
    }

    /// `rows` more can be read; else that is the failure.
    fn has_room(&self, rows: usize) -> bool {
        if !self.reader.is_well() {
            return false;
        }
        let (all, context) = (self.tokens.len() + rows, self.reader.decoder.config().context);
        if all > context {
            let (what, why) =
                ("reading ahead for a policy".into(), format!("{all} tokens in all, the context is {context}"));
            note(&self.reader.failure, BackendError::Failed { what, why });
        }
        all <= context
    }
}

impl Ahead for Reading<'_, '_> {
    fn read(&mut self, tokens: &[u32]) -> Vec<f32> {
        let mut logits = Vec::new();
        let mut rest = tokens;
        while !rest.is_empty() {
            if !self.has_room(rest.len()) {
                return Vec::new();
            }
            let (chunk, more) = rest.split_at(rest.len().min(self.reader.max_rows));
            let read = self.pass(Input::Tokens(chunk), more.is_empty());
            logits = self.reader.or(read, Vec::new);
            if more.is_empty() {
                self.next = Distribution::of(&logits).argmax;
            }
            rest = more;
        }
        logits
    }

    fn read_soft(&mut self, soft: &SoftTokens) {
        if !self.has_room(soft.count) {
            return;
        }
        for rows in soft.embeddings.chunks(self.reader.max_rows * self.reader.decoder.config().hidden) {
            let read = self.pass(Input::Soft(rows, &soft.changes), false);
            self.reader.or(read, Vec::new);
        }
    }

    fn lane(&self, look: &mut dyn FnMut(&dyn LaneView)) {
        look(&LaneCaches::new(self.reader, self.cache, &self.tokens, self.next, Rows::OfQueries));
    }

    fn input_norms(&self) -> &[Vec<f32>] {
        &self.norms
    }
}

#[cfg(test)]
#[path = "ahead_tests.rs"]
mod tests;
