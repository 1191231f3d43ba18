//! What a policy sees of a lane, read through the backend.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::ops::Range;
use std::sync::Arc;

use super::facts::Facts;
use super::history::History;
use super::text::Words;
use crate::backend::{Attention, Backend, BackendError, CacheId};
use crate::model::decoder::Decoder;
use crate::model::tokenizer::Tokenizer;
use crate::policy::part::{Ahead, LaneView, LayerView, Norm, Start, Text};
use crate::simd::sum_of_squares;

/// All layers of a cache. Queries older than the newest come from the kept ones and are lane 0's: asked for after the
/// prompt only, when all lanes still share it.
pub struct LaneCaches<'a, 'b> {
    pub(super) reader: &'a Reader<'b>,
    pub(super) cache: CacheId,
    /// Read so far; empty where nothing was read yet.
    pub(super) tokens: &'a [u32],
    rows: Rows<'a>,
    next: u32,
    words: Words<'a>,
}

/// Where attention rows come from.
#[derive(Clone, Copy)]
pub enum Rows<'a> {
    /// After the prompt: from kept queries.
    OfQueries,
    /// After a step: only the newest row exists; of older ones what was remembered.
    Newest(&'a History),
}

/// What caches are read through.
pub struct Reader<'a> {
    pub backend: RefCell<&'a mut dyn Backend>,
    pub decoder: &'a Decoder,
    pub tokenizer: Option<Arc<Tokenizer>>,
    pub facts: &'a Facts,
    /// Most tokens of one pass.
    pub max_rows: usize,
    /// The first thing that could not be read; decisions made on it are void.
    pub failure: RefCell<Option<BackendError>>,
}

impl<'a> Reader<'a> {
    pub fn new(
        backend: &'a mut dyn Backend,
        decoder: &'a Decoder,
        tokenizer: Option<Arc<Tokenizer>>,
        facts: &'a Facts,
        max_rows: usize,
    ) -> Self {
        let (backend, failure) = (RefCell::new(backend), RefCell::new(None));
        Self { backend, decoder, tokenizer, facts, max_rows, failure }
    }

    /// Says whether all that was asked for could be read.
    pub fn finish(&self) -> Result<(), BackendError> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// `empty` where it cannot be read.
    pub fn or<T>(&self, read: Result<T, BackendError>, empty: impl FnOnce() -> T) -> T {
        read.unwrap_or_else(|error| {
            self.failure.borrow_mut().get_or_insert(error);
            empty()
        })
    }
}

impl<'a, 'b> LaneCaches<'a, 'b> {
    pub fn new(reader: &'a Reader<'b>, cache: CacheId, tokens: &'a [u32], next: u32, rows: Rows<'a>) -> Self {
        let words = Words::new(reader.tokenizer.as_ref(), &reader.failure);
        Self { reader, cache, tokens, rows, next, words }
    }
}

impl LaneView for LaneCaches<'_, '_> {
    fn layer(&self, layer: usize, look: &mut dyn FnMut(&dyn LayerView)) -> bool {
        let attention = *self.reader.decoder.attention(layer);
        // A layer that takes from another one keeps what that one keeps.
        let wired = |backend: &dyn Backend| backend.wiring(self.cache).is_some_and(|wiring| !wiring.is_own(layer));
        if attention.window.is_some() || wired(&**self.reader.backend.borrow()) {
            return false;
        }
        let config = self.reader.decoder.config();
        let positions = (0..config.kv_heads)
            .map(|g| self.reader.backend.borrow().positions(self.cache, layer, g).to_vec())
            .collect();
        let received = (0..config.heads).map(|_| OnceCell::new()).collect();
        let offsets =
            (0..config.kv_heads).map(|g| self.reader.backend.borrow().offsets(self.cache, layer, g).to_vec()).collect();
        look(&LayerCaches { lane: self, attention, positions, received, offsets, projected: Default::default() });
        true
    }

    fn tokens(&self) -> &[u32] {
        self.tokens
    }

    fn context(&self) -> usize {
        self.reader.decoder.config().context
    }

    fn text(&self) -> &dyn Text {
        &self.words
    }

    fn next(&self) -> u32 {
        self.next
    }

    fn cosines(&self) -> &[f32] {
        &self.reader.facts.cosines
    }

    fn ahead(&self, start: Start<'_>, work: &mut dyn FnMut(&mut dyn Ahead)) {
        super::ahead::ahead(self, start, work);
    }
}

/// One layer of a cache.
struct LayerCaches<'a, 'b> {
    lane: &'a LaneCaches<'a, 'b>,
    attention: Attention,
    /// [kv heads][n]
    positions: Vec<Vec<u32>>,
    /// Column sums of each query head, read when first asked for.
    received: Vec<OnceCell<Vec<f32>>>,
    /// Added to logits [kv heads][n or none]
    offsets: Vec<Vec<f32>>,
    /// Of each query head in each norm, computed when first asked for.
    projected: [OnceCell<Vec<Vec<f32>>>; 2],
}

impl LayerView for LayerCaches<'_, '_> {
    fn kv_heads(&self) -> usize {
        self.positions.len()
    }

    fn group(&self) -> usize {
        self.received.len() / self.positions.len()
    }

    fn head_dim(&self) -> usize {
        self.lane.reader.decoder.config().head_dim
    }

    fn scale(&self) -> f32 {
        self.attention.scale
    }

    fn positions(&self, kv_head: usize) -> &[u32] {
        &self.positions[kv_head]
    }

    fn keys(&self, kv_head: usize) -> Cow<'_, [f32]> {
        Cow::Owned(self.lane.reader.backend.borrow().keys(self.lane.cache, self.attention.layer, kv_head).into_owned())
    }

    fn values(&self, kv_head: usize) -> Cow<'_, [f32]> {
        Cow::Owned(
            self.lane.reader.backend.borrow().values(self.lane.cache, self.attention.layer, kv_head).into_owned(),
        )
    }

    fn key_norms(&self, kv_head: usize) -> Vec<f32> {
        self.keys(kv_head).chunks_exact(self.head_dim()).map(|k| sum_of_squares(k).sqrt()).collect()
    }

    fn rows(&self, head: usize, rows: Range<u32>) -> Vec<f32> {
        let n = self.positions[head / self.group()].len();
        if let Rows::OfQueries = self.lane.rows {
            let mut backend = self.lane.reader.backend.borrow_mut();
            let read = backend.rows(self.lane.cache, &self.attention, head, rows.clone());
            self.lane.reader.or(read, || vec![0.0; rows.len() * n])
        } else {
            self.lane.reader.backend.borrow().newest_row(self.lane.cache, self.attention.layer, head).to_vec()
        }
    }

    fn newest(&self) -> u32 {
        (self.lane.tokens.len() as u32).saturating_sub(1)
    }

    fn received(&self, head: usize) -> &[f32] {
        let read = || self.lane.reader.backend.borrow().received(self.lane.cache, self.attention.layer, head).to_vec();
        self.received[head].get_or_init(read)
    }

    fn above_average(&self, head: usize, rows: usize) -> Vec<u32> {
        let positions = &self.positions[head / self.group()];
        match self.lane.rows {
            Rows::Newest(history) => history.counts(self.attention.layer * self.received.len() + head, positions, rows),
            Rows::OfQueries => {
                let end = self.lane.tokens.len() as u32;
                let first = end.saturating_sub(rows as u32);
                let mut counts = vec![0; positions.len()];
                for (query, row) in (first..end).zip(self.rows(head, first..end).chunks_exact(positions.len().max(1))) {
                    let seen = positions.partition_point(|&p| p <= query);
                    let above = row[..seen].iter().map(|&a| a >= 1.0 / seen as f32);
                    counts.iter_mut().zip(above).for_each(|(count, above)| *count += above as u32);
                }
                counts
            }
        }
    }

    fn inputs(&self) -> &[f32] {
        self.lane.reader.facts.inputs.get(self.attention.layer).map_or(&[], Vec::as_slice)
    }

    fn offsets(&self, kv_head: usize) -> &[f32] {
        &self.offsets[kv_head]
    }

    fn queries(&self, head: usize, rows: Range<u32>) -> Vec<f32> {
        let backend = self.lane.reader.backend.borrow();
        rows.flat_map(|position| backend.query(self.attention.layer, head, position).0).collect()
    }

    fn turns(&self) -> &[f32] {
        self.lane.reader.decoder.turns(self.attention.layer)
    }

    fn projected(&self, head: usize, norm: Norm) -> Vec<f32> {
        let layer = self.attention.layer;
        let read = || {
            let backend = self.lane.reader.backend.borrow();
            let none = || (0..self.received.len()).map(|h| vec![0.0; self.positions[h / self.group()].len()]).collect();
            self.lane
                .reader
                .or(backend.projected(self.lane.cache, layer, self.lane.reader.decoder.output(layer), norm), none)
        };
        self.projected[norm as usize].get_or_init(read)[head].clone()
    }
}
