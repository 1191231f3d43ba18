//! `lens.ids`, `lens.prob` [L, k, P]: the k most probable tokens of `lm_head(final_norm(residual))` after each layer.

use memmap2::MmapMut;
use miette::Result;
use rayon::prelude::*;

use super::output::Output;
use crate::cli::exit::Io;
use crate::cli::interrupt::Interrupt;
use crate::cli::session::tell;
use crate::engine::Core;
use crate::model::config::Config;
use crate::probe::distribution::{Distribution, top_k};

/// Rows of one head product.
const ROWS: usize = 64;

/// The residual stream after each layer waits here until the run is over, since a head product ends a pass: in a
/// file, which need not stay in memory.
pub struct Lens {
    k: usize,
    hidden: usize,
    layers: usize,
    positions: usize,
    /// [L, P, d] f32; `None` where the lens is off.
    waiting: Option<MmapMut>,
}

impl Lens {
    pub fn new(config: &Config, positions: usize, k: usize) -> Result<Self> {
        let (hidden, layers) = (config.hidden, config.layers.len());
        let wrong = || Io::while_("make a temporary file for the logit lens");
        let waiting = if k == 0 {
            None
        } else {
            let file = tempfile::tempfile().map_err(wrong())?;
            file.set_len((layers * positions * hidden * 4) as u64).map_err(wrong())?;
            // SAFETY: the file has no name, so nobody else can change it.
            Some(unsafe { MmapMut::map_mut(&file) }.map_err(wrong())?)
        };
        Ok(Self { k, hidden, layers, positions, waiting })
    }

    /// `points`: each [rows, d]; the rows are the positions from `first` on.
    pub fn keep(&mut self, points: &[&[f32]], first: usize) {
        let Some(map) = &mut self.waiting else { return };
        let row = self.hidden * 4;
        for (layer, point) in points.iter().skip(2).step_by(2).enumerate() {
            let bytes: &[u8] = bytemuck::cast_slice(point);
            let at = (layer * self.positions + first) * row;
            map[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }

    pub fn write(self, core: &mut Core, interrupt: &Interrupt, out: &mut Output) -> Result<()> {
        let Some(map) = &self.waiting else { return Ok(()) };
        let vocab = core.config().vocab;
        let (p, k) = (self.positions, self.k);
        for layer in 0..self.layers {
            tell(&format!("logit lens: layer {layer} of {}", self.layers));
            for from in (0..p).step_by(ROWS) {
                interrupt.check()?;
                let to = (from + ROWS).min(p);
                let row = self.hidden * 4;
                let bytes = &map[(layer * p + from) * row..(layer * p + to) * row];
                let residual: Vec<f32> =
                    bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect();
                let logits = core.lens_logits(&residual)?;
                let best: Vec<Vec<(u32, f32)>> = logits.par_chunks_exact(vocab).map(|row| best(row, k)).collect();
                for rank in 0..k {
                    let at = (layer * k + rank) * p + from;
                    let probabilities: Vec<f32> = best.iter().map(|row| row[rank].1).collect();
                    out.integers("lens.ids", at, best.iter().map(|row| row[rank].0.into()));
                    out.floats("lens.prob", at, &probabilities);
                }
            }
        }
        Ok(())
    }
}

/// (token, probability), best first [k].
fn best(logits: &[f32], k: usize) -> Vec<(u32, f32)> {
    let lse = Distribution::of(logits).lse;
    top_k(logits, k).into_iter().map(|(id, logit)| (id, (logit - lse).exp())).collect()
}
