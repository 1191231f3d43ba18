//! What a lane's missing entries would do to lane 0's newest query.

use super::report::Damage;
use crate::engine::Core;
use crate::engine::frame::Kept;
use crate::probe::damage::{lost_mass, output_error};

/// Asked right after the prompt, while lane 0's newest row is the prompt's last.
pub fn damage(core: &mut Core, kept: &Kept) -> Damage {
    let (layers, heads, group) = {
        let config = core.config();
        (config.layers.len(), config.heads, config.heads / config.kv_heads)
    };
    let cache = core.lanes()[0].cache;
    let backend = core.backend();
    let mut damage = Damage::default();
    for layer in 0..layers {
        let (mut error, mut length) = (0.0, 0.0);
        let mut lost = Vec::with_capacity(heads);
        for kv_head in 0..heads / group {
            let values = backend.values(cache, layer, kv_head);
            let positions = backend.positions(cache, layer, kv_head);
            let held: Vec<bool> = positions.iter().map(|&p| kept.contains(layer, kv_head, p as usize)).collect();
            for head in kv_head * group..(kv_head + 1) * group {
                let row = backend.newest_row(cache, layer, head);
                lost.push(lost_mass(row, &held));
                let (e, l) = output_error(row, &values, &held);
                error += e;
                length += l;
            }
        }
        damage.lost_mass.push(lost);
        let relative = (error / length).sqrt() as f32;
        damage.out_rel_err.push(relative.is_finite().then_some(relative));
    }
    damage
}
