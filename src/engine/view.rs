//! What a policy sees of one layer of a lane.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

use crate::backend::{Attention, Backend, BackendError, CacheId};
use crate::policy::part::LayerView;

/// One layer of a cache, read through the backend. Queries older than the newest come from the kept ones and are
/// lane 0's: asked for after the prompt only, when all lanes still share it.
pub struct CacheView<'a> {
    pub backend: RefCell<&'a mut dyn Backend>,
    pub cache: CacheId,
    pub attention: Attention,
    pub kv_heads: usize,
    pub group: usize,
    pub head_dim: usize,
    pub newest: u32,
    /// Held positions of each kv head.
    pub positions: Vec<Vec<u32>>,
    /// Column sums of each query head, read when first asked for.
    pub received: Vec<Vec<f32>>,
    /// After the prompt rows come from kept queries; later only the newest row exists.
    pub after_prompt: bool,
    /// The first thing that could not be read; the decision made on it is void.
    pub failure: RefCell<Option<BackendError>>,
}

impl<'a> CacheView<'a> {
    pub fn new(
        backend: &'a mut dyn Backend,
        cache: CacheId,
        attention: Attention,
        shape: (usize, usize, usize),
        newest: u32,
        after_prompt: bool,
    ) -> Self {
        let (heads, kv_heads, head_dim) = shape;
        let layer = attention.layer;
        let positions = (0..kv_heads).map(|g| backend.positions(cache, layer, g).to_vec()).collect();
        let received = (0..heads).map(|h| backend.received(cache, layer, h).to_vec()).collect();
        let group = heads / kv_heads;
        let backend = RefCell::new(backend);
        let failure = RefCell::new(None);
        Self {
            backend,
            cache,
            attention,
            kv_heads,
            group,
            head_dim,
            newest,
            positions,
            received,
            after_prompt,
            failure,
        }
    }
}

impl LayerView for CacheView<'_> {
    fn kv_heads(&self) -> usize {
        self.kv_heads
    }

    fn group(&self) -> usize {
        self.group
    }

    fn head_dim(&self) -> usize {
        self.head_dim
    }

    fn scale(&self) -> f32 {
        self.attention.scale
    }

    fn positions(&self, kv_head: usize) -> &[u32] {
        &self.positions[kv_head]
    }

    fn keys(&self, kv_head: usize) -> Cow<'_, [f32]> {
        Cow::Owned(self.backend.borrow().keys(self.cache, self.attention.layer, kv_head).into_owned())
    }

    fn values(&self, kv_head: usize) -> Cow<'_, [f32]> {
        Cow::Owned(self.backend.borrow().values(self.cache, self.attention.layer, kv_head).into_owned())
    }

    fn key_norms(&self, kv_head: usize) -> Vec<f32> {
        let keys = self.keys(kv_head);
        keys.chunks_exact(self.head_dim).map(|k| crate::backend::cpu::simd::sum_of_squares(k).sqrt()).collect()
    }

    fn rows(&self, head: usize, rows: Range<u32>) -> Vec<f32> {
        let n = self.positions[head / self.group].len();
        if self.after_prompt {
            let mut backend = self.backend.borrow_mut();
            backend.rows(self.cache, &self.attention, head, rows.clone()).unwrap_or_else(|error| {
                self.failure.borrow_mut().get_or_insert(error);
                vec![0.0; rows.len() * n]
            })
        } else {
            self.backend.borrow().newest_row(self.cache, self.attention.layer, head).to_vec()
        }
    }

    fn newest(&self) -> u32 {
        self.newest
    }

    fn received(&self, head: usize) -> &[f32] {
        &self.received[head]
    }
}
