//! Packing what a lane holds, where its policy says so.

use super::core::Core;
use super::error::Result;
use crate::backend::CacheId;
use crate::cache::Packing;
use crate::policy::Policy;
use crate::policy::part::{LaneView, Moment};

impl Core {
    /// After evictors had their say about step `step`.
    pub(super) fn store(&mut self, policy: &Policy, cache: CacheId, step: u32) -> Result<()> {
        let Some(storage) = policy.storage().filter(|storage| step == 0 || storage.acts_in_decode()) else {
            return Ok(());
        };
        let (layers, kv_heads) = (self.config().layers.len(), self.config().kv_heads);
        let prompt = self.prompt.len();
        let tokens = self.read_by(cache);
        let orders = self.look(policy, cache, step, &tokens, |lane| {
            let mut orders: Vec<Option<Packing>> = vec![None; layers * kv_heads];
            for layer in 0..layers {
                let packed: Vec<_> =
                    (0..kv_heads).map(|head| lane.reader.backend.borrow().packed(cache, layer, head)).collect();
                lane.layer(layer, &mut |view| {
                    let packing = storage.pack(Moment { step, prompt, layers, layer }, &packed, view);
                    orders[layer * kv_heads..].iter_mut().zip(packing).for_each(|(order, new)| *order = Some(new));
                });
            }
            orders
        })?;
        if orders.iter().any(Option::is_some) {
            self.backend.pack(cache, &orders)?;
        }
        Ok(())
    }
}
