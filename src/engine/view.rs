//! What a policy sees of a lane, read through the backend.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::ops::Range;

use crate::backend::cpu::simd::sum_of_squares;
use crate::backend::{Attention, Backend, BackendError, CacheId};
use crate::model::decoder::Decoder;
use crate::policy::part::{LaneView, LayerView};

/// All layers of a cache. Queries older than the newest come from the kept ones and are lane 0's: asked for after the
/// prompt only, when all lanes still share it.
pub struct LaneCaches<'a> {
    backend: RefCell<&'a mut dyn Backend>,
    decoder: &'a Decoder,
    cache: CacheId,
    newest: u32,
    /// After the prompt rows come from kept queries; later only the newest row exists.
    after_prompt: bool,
    /// The first thing that could not be read; decisions made on it are void.
    failure: RefCell<Option<BackendError>>,
}

impl<'a> LaneCaches<'a> {
    pub fn new(
        backend: &'a mut dyn Backend,
        decoder: &'a Decoder,
        cache: CacheId,
        newest: u32,
        after_prompt: bool,
    ) -> Self {
        Self { backend: RefCell::new(backend), decoder, cache, newest, after_prompt, failure: RefCell::new(None) }
    }

    /// Says whether all that was asked for could be read.
    pub fn finish(self) -> Result<(), BackendError> {
        self.failure.into_inner().map_or(Ok(()), Err)
    }
}

impl LaneView for LaneCaches<'_> {
    fn layer(&self, layer: usize, look: &mut dyn FnMut(&dyn LayerView)) -> bool {
        let attention = *self.decoder.attention(layer);
        if attention.window.is_some() {
            return false;
        }
        let config = self.decoder.config();
        let positions =
            (0..config.kv_heads).map(|g| self.backend.borrow().positions(self.cache, layer, g).to_vec()).collect();
        let received = (0..config.heads).map(|_| OnceCell::new()).collect();
        look(&LayerCaches { lane: self, attention, positions, received, projected: OnceCell::new() });
        true
    }
}

/// One layer of a cache.
struct LayerCaches<'a, 'b> {
    lane: &'a LaneCaches<'b>,
    attention: Attention,
    /// [kv heads][n]
    positions: Vec<Vec<u32>>,
    /// Column sums of each query head, read when first asked for.
    received: Vec<OnceCell<Vec<f32>>>,
    /// Of each query head, computed when first asked for.
    projected: OnceCell<Vec<Vec<f32>>>,
}

impl LayerCaches<'_, '_> {
    /// `empty` where it cannot be read.
    fn or<T>(&self, read: Result<T, BackendError>, empty: impl FnOnce() -> T) -> T {
        read.unwrap_or_else(|error| {
            self.lane.failure.borrow_mut().get_or_insert(error);
            empty()
        })
    }
}

impl LayerView for LayerCaches<'_, '_> {
    fn kv_heads(&self) -> usize {
        self.positions.len()
    }

    fn group(&self) -> usize {
        self.received.len() / self.positions.len()
    }

    fn head_dim(&self) -> usize {
        self.lane.decoder.config().head_dim
    }

    fn scale(&self) -> f32 {
        self.attention.scale
    }

    fn positions(&self, kv_head: usize) -> &[u32] {
        &self.positions[kv_head]
    }

    fn keys(&self, kv_head: usize) -> Cow<'_, [f32]> {
        Cow::Owned(self.lane.backend.borrow().keys(self.lane.cache, self.attention.layer, kv_head).into_owned())
    }

    fn values(&self, kv_head: usize) -> Cow<'_, [f32]> {
        Cow::Owned(self.lane.backend.borrow().values(self.lane.cache, self.attention.layer, kv_head).into_owned())
    }

    fn key_norms(&self, kv_head: usize) -> Vec<f32> {
        self.keys(kv_head).chunks_exact(self.head_dim()).map(|k| sum_of_squares(k).sqrt()).collect()
    }

    fn rows(&self, head: usize, rows: Range<u32>) -> Vec<f32> {
        let n = self.positions[head / self.group()].len();
        if self.lane.after_prompt {
            let mut backend = self.lane.backend.borrow_mut();
            let read = backend.rows(self.lane.cache, &self.attention, head, rows.clone());
            self.or(read, || vec![0.0; rows.len() * n])
        } else {
            self.lane.backend.borrow().newest_row(self.lane.cache, self.attention.layer, head).to_vec()
        }
    }

    fn newest(&self) -> u32 {
        self.lane.newest
    }

    fn received(&self, head: usize) -> &[f32] {
        let read = || self.lane.backend.borrow().received(self.lane.cache, self.attention.layer, head).to_vec();
        self.received[head].get_or_init(read)
    }

    fn queries(&self, head: usize, rows: Range<u32>) -> Vec<f32> {
        let backend = self.lane.backend.borrow();
        rows.flat_map(|position| backend.query(self.attention.layer, head, position).0).collect()
    }

    fn turns(&self) -> &[f32] {
        self.lane.decoder.turns(self.attention.layer)
    }

    fn projected(&self, head: usize) -> Vec<f32> {
        let layer = self.attention.layer;
        let read = || {
            let backend = self.lane.backend.borrow();
            let none = || (0..self.received.len()).map(|h| vec![0.0; self.positions[h / self.group()].len()]).collect();
            self.or(backend.projected(self.lane.cache, layer, self.lane.decoder.output(layer)), none)
        };
        self.projected.get_or_init(read)[head].clone()
    }
}
