//! What a lane's missing entries would do to lane 0's newest query.

use super::report::Damage;
use crate::cache::Wiring;
use crate::engine::frame::Kept;
use crate::engine::{Core, EngineError};
use crate::probe::damage::{lost_mass, output_error, replaced_error};

/// Asked right after the prompt, while lane 0's newest row is the prompt's last. `wiring`: of the lane's layers.
pub fn damage(core: &mut Core, kept: &Kept, wiring: Option<&Wiring>) -> Result<Damage, EngineError> {
    let (layers, heads, group) = {
        let config = core.config();
        (config.layers.len(), config.heads, config.heads / config.kv_heads)
    };
    let cache = core.lanes()[0].cache;
    let mut damage = Damage::default();
    for layer in 0..layers {
        let (mut error, mut length) = (0.0, 0.0);
        let mut lost = Vec::with_capacity(heads);
        let wired = wiring.filter(|wiring| !wiring.is_own(layer));
        for kv_head in 0..heads / group {
            let other = wired.map(|wiring| other(core, wiring, layer, kv_head)).transpose()?;
            let backend = core.backend();
            let values = backend.values(cache, layer, kv_head);
            let positions = backend.positions(cache, layer, kv_head);
            let held: Vec<bool> = positions.iter().map(|&p| kept.contains(layer, kv_head, p as usize)).collect();
            for head in kv_head * group..(kv_head + 1) * group {
                let row = backend.newest_row(cache, layer, head);
                lost.push(lost_mass(row, &held));
                let (e, l) = match &other {
                    None => output_error(row, &values, &held),
                    Some((rows, others)) => replaced_error((row, &values), (&rows[head % group], others), &held),
                };
                error += e;
                length += l;
            }
        }
        damage.lost_mass.push(lost);
        let relative = (error / length).sqrt() as f32;
        damage.out_rel_err.push(relative.is_finite().then_some(relative));
    }
    Ok(damage)
}

/// What the query heads of a wired layer would look at in lane 0: probabilities [group][n], values [n, D].
fn other(
    core: &mut Core,
    wiring: &Wiring,
    layer: usize,
    kv_head: usize,
) -> Result<(Vec<Vec<f32>>, Vec<f32>), EngineError> {
    let group = core.config().heads / core.config().kv_heads;
    let (queries, keys) = (wiring.queries(layer), wiring.keys(layer));
    let heads = kv_head * group..(kv_head + 1) * group;
    let rows = heads.map(|head| core.foreign_row(queries, keys, head)).collect::<Result<_, _>>()?;
    let cache = core.lanes()[0].cache;
    Ok((rows, core.backend().values(cache, wiring.values(layer), kv_head).into_owned()))
}
