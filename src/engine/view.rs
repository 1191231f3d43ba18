//! What a policy sees of a lane, read through the backend.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::facts::Facts;
use super::history::History;
use super::layer::LayerCaches;
use super::text::Words;
use crate::backend::{Backend, BackendError, CacheId};
use crate::model::decoder::Decoder;
use crate::model::tokenizer::Tokenizer;
use crate::policy::part::{Ahead, LaneView, LayerView, Start, Text};

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
    pub failure: Mutex<Option<BackendError>>,
}

impl<'a> Reader<'a> {
    pub fn new(
        backend: &'a mut dyn Backend,
        decoder: &'a Decoder,
        tokenizer: Option<Arc<Tokenizer>>,
        facts: &'a Facts,
        max_rows: usize,
    ) -> Self {
        let (backend, failure) = (RefCell::new(backend), Mutex::new(None));
        Self { backend, decoder, tokenizer, facts, max_rows, failure }
    }

    /// Says whether all that was asked for could be read.
    pub fn finish(&self) -> Result<(), BackendError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    /// Nothing has failed so far.
    pub fn is_well(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// `empty` where it cannot be read.
    pub fn or<T>(&self, read: Result<T, BackendError>, empty: impl FnOnce() -> T) -> T {
        read.unwrap_or_else(|error| {
            note(&self.failure, error);
            empty()
        })
    }
}

/// Keeps the first failure.
pub fn note(failure: &Mutex<Option<BackendError>>, error: BackendError) {
    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
}

impl<'a, 'b> LaneCaches<'a, 'b> {
    pub fn new(reader: &'a Reader<'b>, cache: CacheId, tokens: &'a [u32], next: u32, rows: Rows<'a>) -> Self {
        let words = Words::new(reader.tokenizer.as_ref(), &reader.failure);
        Self { reader, cache, tokens, rows, next, words }
    }

    fn about<'c>(&'c self, backend: &'c dyn Backend) -> About<'c> {
        let Reader { decoder, facts, failure, .. } = self.reader;
        About { backend, decoder, facts, failure, cache: self.cache, tokens: self.tokens, rows: self.rows }
    }
}

/// What a layer's view is made of.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub backend: &'a dyn Backend,
    pub decoder: &'a Decoder,
    pub facts: &'a Facts,
    pub failure: &'a Mutex<Option<BackendError>>,
    pub cache: CacheId,
    pub tokens: &'a [u32],
    pub rows: Rows<'a>,
}

impl About<'_> {
    /// Policies act on the layer: it has no window of its own, and does not keep what another one keeps.
    fn is_open(&self, layer: usize) -> bool {
        let wired = || self.backend.wiring(self.cache).is_some_and(|wiring| !wiring.is_own(layer));
        self.decoder.attention(layer).window.is_none() && !wired()
    }
}

impl LaneView for LaneCaches<'_, '_> {
    fn layer(&self, layer: usize, look: &mut dyn FnMut(&dyn LayerView)) -> bool {
        let backend = self.reader.backend.borrow();
        let about = self.about(&**backend);
        let open = about.is_open(layer);
        if open {
            look(&LayerCaches::new(about, layer));
        }
        open
    }

    fn layers(&self, layers: usize, look: &(dyn Fn(usize, &dyn LayerView) + Sync)) {
        let backend = self.reader.backend.borrow();
        let about = self.about(&**backend);
        let open: Vec<usize> = (0..layers).filter(|&layer| about.is_open(layer)).collect();
        open.into_par_iter().for_each(|layer| look(layer, &LayerCaches::new(about, layer)));
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
