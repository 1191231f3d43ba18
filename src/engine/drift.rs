//! Lane 0's attention in narrower arithmetic against f64, from the real queries, keys and values.

use rayon::prelude::*;

use super::core::Core;
use super::error::{EngineError, Result};
use super::message::LayerDrift;
use crate::backend::{Attention, Backend, BackendError, CacheId};
use crate::probe::numerics::{Arithmetic, Entries, Error};

/// How far one kind of arithmetic, and the program's own probabilities, lie from f64.
struct Errors {
    narrow: [Error; Arithmetic::ALL.len()],
    own: Error,
}

impl Core {
    /// Of each layer, over all heads and the queries at `positions`, which must be kept; keys and values as the cache
    /// stores them.
    pub fn drift(&mut self, positions: &[u32]) -> Result<Vec<LayerDrift>> {
        let kept = self.backend.kept_queries();
        if let Some(missing) = positions.iter().find(|position| !kept.contains(position)) {
            let why = format!("the query of position {missing} is not kept: {}..{} are", kept.start, kept.end);
            return Err(BackendError::Failed { what: "attention in other arithmetic".into(), why }.into());
        }
        let cache = self.lanes.first().ok_or(EngineError::NoPrompt)?.cache;
        let (config, decoder, backend): (_, _, &dyn Backend) = (self.config(), &self.decoder, &*self.backend);
        let (layers, kv_heads, dim) = (config.layers.len(), config.kv_heads, config.head_dim);
        let group = config.heads / kv_heads;
        let look = |i: usize| {
            let attention = *decoder.attention(i / kv_heads);
            Look { backend, cache, attention, kv_head: i % kv_heads, group }.errors(dim, positions)
        };
        let errors: Vec<Errors> = (0..layers * kv_heads).into_par_iter().map(look).collect::<Result<_>>()?;
        Ok(errors.chunks_exact(kv_heads).map(layer).collect())
    }

    /// The same for up to `rows` queries spread evenly over those that are kept.
    pub fn drift_over(&mut self, rows: usize) -> Result<(Vec<u32>, Vec<LayerDrift>)> {
        let kept = self.backend.kept_queries();
        let count = rows.min(kept.len());
        // The newest is always among them.
        let at = |i: usize| kept.end - 1 - (i * kept.len() / count) as u32;
        let positions: Vec<u32> = (0..count).rev().map(at).collect();
        let drift = self.drift(&positions)?;
        Ok((positions, drift))
    }
}

/// All heads of a layer together.
fn layer(heads: &[Errors]) -> LayerDrift {
    let join = |of: &dyn Fn(&Errors) -> Error| heads.iter().map(of).fold(Error::default(), Error::joined);
    let narrow: [Error; Arithmetic::ALL.len()] = std::array::from_fn(|a| join(&|errors| errors.narrow[a]));
    LayerDrift {
        output: narrow.map(|error| error.of_output()),
        probs: narrow.map(|error| error.of_probs()),
        own_probs: join(&|errors| errors.own).of_probs(),
    }
}

/// One kv head and the query heads that read it.
struct Look<'a> {
    backend: &'a dyn Backend,
    cache: CacheId,
    attention: Attention,
    kv_head: usize,
    group: usize,
}

impl Look<'_> {
    fn errors(&self, dim: usize, positions: &[u32]) -> Result<Errors> {
        let Self { backend, cache, attention, kv_head, group } = self;
        let layer = attention.layer;
        let (keys, values) = (backend.keys(*cache, layer, *kv_head), backend.values(*cache, layer, *kv_head));
        let held = backend.positions(*cache, layer, *kv_head);
        let (scale, softcap) = (attention.scale, attention.softcap);
        let all = Entries { keys: &keys, values: &values, dim, scale, softcap };
        let rounded = Arithmetic::ALL.map(|arithmetic| all.rounded(arithmetic));
        let mut errors = Errors { narrow: Default::default(), own: Error::default() };
        for &position in positions {
            // A window sees the newest so many positions, the query's own included.
            let first = attention.window.map_or(0, |window| (position + 1).saturating_sub(window as u32));
            let seen = held.partition_point(|&p| p < first)..held.partition_point(|&p| p <= position);
            let entries = all.of_slots(seen.start, seen.end);
            for head in kv_head * group..(kv_head + 1) * group {
                let query = backend.queries(layer, head, position..position + 1);
                let exact = entries.exactly(&query);
                for ((error, arithmetic), (keys, values)) in errors.narrow.iter_mut().zip(Arithmetic::ALL).zip(&rounded)
                {
                    let narrow = Entries { keys, values, ..all };
                    error.add(&narrow.of_slots(seen.start, seen.end).attend(&query, arithmetic), &exact);
                }
                let own = backend.rows(*cache, attention, head, position..position + 1)?;
                errors.own.add_probs(&own[seen.clone()], &exact.probs);
            }
        }
        Ok(errors)
    }
}
