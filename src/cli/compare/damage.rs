//! What a lane's missing entries, how it stores the others, and whose layers read whose, would do to lane 0's newest query.

use miette::Result;

use super::report::Damage;
use crate::cache::Wiring;
use crate::engine::Core;
use crate::engine::frame::Kept;
use crate::probe::damage::{lost_mass, output_change, output_error};

/// Asked right after the prompt, while lane 0's newest row is the prompt's last.
pub fn damage(core: &mut Core, lane: usize, kept: &Kept) -> Result<Damage> {
    let (layers, heads, group) = {
        let config = core.config();
        (config.layers.len(), config.heads, config.heads / config.kv_heads)
    };
    let packed = core.lanes()[lane].policy.storage().is_some();
    let shared = core.lanes()[lane].shared.clone();
    let mut damage = Damage::default();
    for layer in 0..layers {
        let wired = shared.as_ref().map(|shared| &shared.wiring).filter(|wiring| !wiring.is_own(layer));
        let (mut error, mut length) = (0.0, 0.0);
        let mut lost = Vec::with_capacity(heads);
        for head in 0..heads {
            let cache = core.lanes()[0].cache;
            let backend = core.backend();
            let positions = backend.positions(cache, layer, head / group);
            let held: Vec<bool> = positions.iter().map(|&p| kept.contains(layer, head / group, p as usize)).collect();
            let row = backend.newest_row(cache, layer, head);
            lost.push(lost_mass(row, &held));
            let (e, l) = match (packed, wired) {
                (false, None) => output_error(row, &backend.values(cache, layer, head / group), &held),
                (true, _) => changed(core, lane, layer, head)?,
                (false, Some(wiring)) => rewired(core, wiring, layer, head, &held)?,
            };
            error += e;
            length += l;
        }
        damage.lost_mass.push(lost);
        let relative = (error / length).sqrt() as f32;
        damage.out_rel_err.push(relative.is_finite().then_some(relative));
    }
    Ok(damage)
}

/// Squared error and length of a head's output over what the lane holds, read as it stores it.
fn changed(core: &mut Core, lane: usize, layer: usize, head: usize) -> Result<(f64, f64)> {
    let kv_head = head * core.config().kv_heads / core.config().heads;
    let newest = core.prompt_ids().len() as u32 - 1;
    let over = core.attention_rows_over(lane, layer, head, newest..newest + 1)?;
    let (from, to) = (core.lanes()[0].cache, core.lanes()[lane].cache);
    let backend = core.backend();
    let values = backend.values(to, layer, kv_head);
    Ok(output_change(backend.newest_row(from, layer, head), &backend.values(from, layer, kv_head), &over, &values))
}

/// The same of a layer that reads others as `wiring` says, in lane 0's numbers: over what the lane holds.
fn rewired(core: &mut Core, wiring: &Wiring, layer: usize, head: usize, held: &[bool]) -> Result<(f64, f64)> {
    let kv_head = head * core.config().kv_heads / core.config().heads;
    let over = core.foreign_row(wiring.queries(layer), wiring.keys(layer), head)?;
    let cache = core.lanes()[0].cache;
    let backend = core.backend();
    let other = backend.values(cache, wiring.values(layer), kv_head);
    // what is gone weighs nothing
    let over: Vec<f32> = over.iter().zip(held).map(|(&p, &held)| if held { p } else { 0.0 }).collect();
    Ok(output_change(backend.newest_row(cache, layer, head), &backend.values(cache, layer, kv_head), &over, &other))
}
