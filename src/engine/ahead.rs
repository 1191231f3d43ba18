//! Tokens read behind a cache for a policy's sake and forgotten again.

use super::message::Probes;
use super::view::{LaneCaches, Reader, Rows, note};
use crate::backend::{CacheId, Result, Row};
use crate::policy::part::{Ahead, LaneView, Start};
use crate::probe::distribution::Distribution;
use crate::simd::sum_of_squares;

const SILENT: Probes = Probes { residual: false, attention: false, kv_norms: false, lens: false, timings: false };

/// See [`LaneView::ahead`].
pub fn ahead(lane: &LaneCaches<'_, '_>, start: Start<'_>, work: &mut dyn FnMut(&mut dyn Ahead)) {
    let reader = lane.reader;
    let (cache, tokens, saved) = {
        let mut backend = reader.backend.borrow_mut();
        let (cache, tokens, saved) = match start {
            Start::Behind => (lane.cache, lane.tokens, Some(backend.save(lane.cache, true))),
            Start::Kept(kept) => {
                let keep = |layer: usize, head: usize| kept[layer].as_ref().map(|heads| heads[head].clone());
                (backend.fork(lane.cache, &keep), lane.tokens, None)
            }
            Start::Nothing => {
                let (wiring, cache) = (backend.wiring(lane.cache).cloned(), backend.cache());
                wiring.iter().for_each(|wiring| backend.wire(cache, wiring));
                (cache, &[][..], None)
            }
        };
        backend.shelve_queries(tokens.len() as u32);
        (cache, tokens.to_vec(), saved)
    };
    let norms = vec![Vec::new(); reader.decoder.config().layers.len()];
    work(&mut Reading { reader, cache, tokens, next: lane.next(), norms });
    let mut backend = reader.backend.borrow_mut();
    backend.restore_queries();
    match saved {
        Some(saved) => backend.restore(cache, &saved),
        None => backend.free(cache),
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

impl Reading<'_, '_> {
    fn pass(&mut self, tokens: &[u32], last: bool) -> Result<Vec<f32>> {
        let decoder = self.reader.decoder;
        let b = &mut **self.reader.backend.borrow_mut();
        let row = |(position, &token): (u32, &u32)| Row { token, position, turned: position, cache: self.cache };
        let rows: Vec<Row> = (self.tokens.len() as u32..).zip(tokens).map(row).collect();
        b.begin(&rows, SILENT, Some(self.cache))?;
        decoder.embed(b);
        for index in 0..decoder.sublayers() {
            decoder.sublayer(b, index);
            if index % 2 == 0 {
                b.run()?;
                let input = decoder.attention_input(b);
                self.norms[index / 2]
                    .extend(input.chunks_exact(decoder.config().hidden).map(|x| sum_of_squares(x).sqrt()));
            }
        }
        decoder.head(b, if last { tokens.len() - 1..tokens.len() } else { 0..0 });
        b.run()?;
        self.tokens.extend(tokens);
        Ok(if last { b.logits().to_vec() } else { Vec::new() })
    }
}

impl Ahead for Reading<'_, '_> {
    fn read(&mut self, tokens: &[u32]) -> Vec<f32> {
        let context = self.reader.decoder.config().context;
        let mut logits = Vec::new();
        let mut rest = tokens;
        while !rest.is_empty() && self.reader.is_well() {
            if self.tokens.len() + rest.len() > context {
                let why = format!("{} tokens in all, the context is {context}", self.tokens.len() + rest.len());
                let what = "reading ahead for a policy".to_owned();
                note(&self.reader.failure, crate::backend::BackendError::Failed { what, why });
                return Vec::new();
            }
            let (chunk, more) = rest.split_at(rest.len().min(self.reader.max_rows));
            let read = self.pass(chunk, more.is_empty());
            logits = self.reader.or(read, Vec::new);
            if more.is_empty() {
                self.next = Distribution::of(&logits).argmax;
            }
            rest = more;
        }
        logits
    }

    fn lane(&self, look: &mut dyn FnMut(&dyn LaneView)) {
        look(&LaneCaches::new(self.reader, self.cache, &self.tokens, self.next, Rows::OfQueries));
    }

    fn input_norms(&self) -> &[Vec<f32>] {
        &self.norms
    }
}
