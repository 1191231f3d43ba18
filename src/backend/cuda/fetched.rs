//! What the last pass left on the device, fetched when first asked for.

use std::sync::OnceLock;

use super::backend::CudaBackend;
use super::records::{NORMS, REDUCTIONS, STATS};
use crate::backend::draw::Drawn;

/// Copies on this side, until the next pass.
#[derive(Default)]
pub struct Fetched {
    logits: OnceLock<Vec<f32>>,
    points: OnceLock<Vec<f32>>,
    residual: OnceLock<Vec<f32>>,
    attention: OnceLock<Vec<f32>>,
    norms: OnceLock<Vec<f32>>,
    drawn: OnceLock<Vec<Drawn>>,
}

impl CudaBackend {
    pub(super) fn forget_fetched(&mut self) {
        self.fetched = Fetched::default();
    }

    /// [rows drawn from]
    pub(super) fn fetched_drawn(&self) -> &[Drawn] {
        self.fetched.drawn.get_or_init(|| self.read_drawn())
    }

    /// NaN where the device no longer answers: no number is made up, and the failure is told.
    fn fetch<'a>(
        &self,
        place: &'a OnceLock<Vec<f32>>,
        count: usize,
        read: impl FnOnce() -> crate::backend::Result<Vec<f32>>,
    ) -> &'a [f32] {
        place.get_or_init(|| {
            let mut all = self.note(read()).unwrap_or_default();
            all.resize(count, f32::NAN);
            all
        })
    }

    /// [rows asked for, V]
    pub(super) fn fetched_logits(&self) -> &[f32] {
        let count = self.logit_rows * self.shape.vocab;
        self.fetch(&self.fetched.logits, count, || self.grids.logits.read(0, count))
    }

    /// [points][saved rows][hidden]
    pub(super) fn fetched_points(&self) -> &[f32] {
        let count = self.all_points_seen() * self.saved_rows() * self.shape.hidden;
        self.fetch(&self.fetched.points, count, || self.grids.points.read(0, count))
    }

    /// [points][rows][5]
    pub(super) fn fetched_residual(&self) -> &[f32] {
        let count = self.all_points_seen() * self.rows.count() * STATS;
        self.fetch(&self.fetched.residual, count, || self.grids.residual.read(0, count))
    }

    /// [L][H][rows][6]; rows of caches on the host are the host's.
    pub(super) fn fetched_attention(&self) -> &[f32] {
        let count = self.shape.layers * self.shape.heads * self.rows.count() * REDUCTIONS;
        self.fetch(&self.fetched.attention, count, || {
            let mut all = self.grids.attention.read(0, count)?;
            self.host.put_attention(&mut all, self.rows.count());
            Ok(all)
        })
    }

    /// [L][G][rows][4]; rows of caches on the host are the host's.
    pub(super) fn fetched_norms(&self) -> &[f32] {
        let count = self.shape.layers * self.shape.kv_heads * self.rows.count() * NORMS;
        self.fetch(&self.fetched.norms, count, || {
            let mut all = self.grids.norms.read(0, count)?;
            self.host.put_norms(&mut all, self.rows.count());
            Ok(all)
        })
    }
}
