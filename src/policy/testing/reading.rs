//! What a reader of kv head 0 sees of a layer in plain memory.

use super::{Layer, Policy};
use crate::policy::reader::{HeadReader, Setting, Sight};

/// Bytes of a number in these caches.
const CELL: u64 = 2;

/// What the spec reads kv head 0 with, right after the prompt; 16 layers, all alike.
pub fn reader(spec: &str, layer: &Layer) -> Box<dyn HeadReader> {
    let prompt = layer.newest as usize + 1;
    let (kv_heads, group, head_dim) = (layer.keys.len(), layer.group, layer.dim);
    let setting = Setting { prompt, budget: None, layers: 16, kv_heads, group, head_dim };
    Policy::parse(spec).unwrap().readers(setting, &layer.alone()).unwrap().0.swap_remove(0).reader
}

/// The newest row of each query head of kv head 0 over what is held [group][n].
pub fn dense(layer: &Layer) -> Vec<Vec<f32>> {
    use crate::policy::part::LayerView;
    (0..layer.group).map(|head| layer.rows(head, layer.newest..layer.newest + 1)).collect()
}

/// Runs `look` with what is in sight of layer number `number`.
pub fn look<T>(layer: &Layer, number: usize, look: impl FnOnce(&Sight<'_>) -> T) -> T {
    use crate::policy::part::LayerView;
    let at = layer.newest as usize * layer.dim;
    let queries: Vec<f32> = layer.queries[..layer.group].iter().flat_map(|q| &q[at..at + layer.dim]).copied().collect();
    let all = LayerView::keys(layer, 0).into_owned();
    look(&Sight {
        layer: number,
        position: layer.newest,
        queries: &queries,
        positions: &layer.held[0],
        dense: &dense(layer),
        entry: 2 * layer.dim as u64 * CELL,
        keys: &|slots| all[slots.start * layer.dim..slots.end * layer.dim].to_vec(),
    })
}
