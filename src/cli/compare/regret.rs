//! Evicted entries that lane 0 looks at later.

use std::collections::BTreeMap;

use super::report::Regret;
use crate::engine::Core;
use crate::engine::frame::Kept;

/// The longest list that is worth reading: what would follow is weaker.
const MOST: usize = 1000;

/// What one lane should have kept.
#[derive(Debug, Default)]
pub struct Regrets {
    above: f32,
    /// By (layer, head, position): the step at which lane 0 looks most.
    found: BTreeMap<(usize, usize, u32), (u32, f32)>,
}

impl Regrets {
    pub fn above(above: f32) -> Self {
        Self { above, found: BTreeMap::new() }
    }

    /// After step `step`, before which the lane held `held`.
    pub fn look(&mut self, core: &mut Core, held: &Kept, step: u32) {
        let (layers, heads, group) = {
            let config = core.config();
            (config.layers.len(), config.heads, config.heads / config.kv_heads)
        };
        let cache = core.lanes()[0].cache;
        let backend = core.backend();
        for layer in 0..layers {
            for head in 0..heads {
                let positions = backend.positions(cache, layer, head / group);
                for (&position, &mass) in positions.iter().zip(backend.newest_row(cache, layer, head)) {
                    let gone =
                        (position as usize) < held.positions && !held.contains(layer, head / group, position as usize);
                    if mass > self.above && gone {
                        let most = self.found.entry((layer, head, position)).or_insert((step, mass));
                        if mass > most.1 {
                            *most = (step, mass);
                        }
                    }
                }
            }
        }
    }

    /// Strongest first, at most [`MOST`].
    pub fn strongest_first(self) -> Vec<Regret> {
        let one = |((layer, head, position), (step, mass)): ((usize, usize, u32), (u32, f32))| Regret {
            position,
            step,
            mass,
            layer: layer as u32,
            head: head as u32,
        };
        let mut all: Vec<Regret> = self.found.into_iter().map(one).collect();
        all.sort_by(|a, b| b.mass.total_cmp(&a.mass));
        all.truncate(MOST);
        all
    }
}
