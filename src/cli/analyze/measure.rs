//! The measurements behind the analysis.

use miette::Result;
use rayon::prelude::*;

use super::Args;
use super::heads::Cached;
use super::report::{Caches, Layer, Maps, Pair, Report, SCHEMA};
use crate::cli::exit::Interrupted;
use crate::cli::prompt::Prompt;
use crate::cli::session::{Session, tell, told};
use crate::engine::Pause;
use crate::policy::rope::Angles;
use crate::probe::head_similarity::GroupSimilarity;
use crate::probe::kv_distance::{Order, ranked};
use crate::probe::map_similarity::MapSimilarity;
use crate::probe::spans::best_spans;

/// Longest span of layers that is looked for.
const LONGEST: usize = 8;

pub fn measure(session: &mut Session, prompt: &Prompt, args: &Args) -> Result<Report> {
    let ids = prompt.encode(&session.model)?;
    session.check(&ids, 0)?;
    let interrupt = session.interrupt.clone();
    let go_on = |interrupted: bool| if interrupted { Pause::Stop } else { Pause::Continue };
    session.core.take_cosines = true;
    let read = session.core.read_prompt(&ids, |_, read| {
        tell(&format!("reading the prompt: {read} of {} tokens", ids.len()));
        go_on(interrupt.check().is_err())
    })?;
    read.ok_or(Interrupted)?;
    tell("comparing attention maps");
    let (maps, groups) = maps(session, args.rows as usize)?;
    interrupt.check()?;
    tell("ranks of keys and values");
    let (tokens, layers) = layers(session, args.tokens as usize, &groups);
    interrupt.check()?;
    let mut passes = 0;
    let caches = session.core.mean_caches(args.pieces as usize, args.piece as usize, &mut |_, _| {
        passes += 1;
        tell(&format!("reading pieces of text: pass {passes}"));
        go_on(interrupt.check().is_err())
    })?;
    let (mean, of_prompt) = caches.ok_or(Interrupted)?;
    told();
    let (core, info) = (&session.core, &session.info);
    let distance = mean.distances(info.head_dim);
    let pairs = |order| {
        let all = ranked(&distance, order).into_iter().filter(|&(from, layer, _)| core.alike(from, layer));
        all.map(|(from, layer, distance)| Pair { layer, from, distance }).collect()
    };
    let (dissimilar_first, similar_first) = (pairs(Order::Dissimilar), pairs(Order::Similar));
    Ok(Report {
        schema: SCHEMA,
        model: info.id.clone(),
        device: info.device.clone(),
        precision: info.precision.clone(),
        kv_type: info.kv_type.clone(),
        prompt_tokens: ids.len(),
        heads: info.heads,
        kv_heads: info.kv_heads,
        head_dim: info.head_dim,
        windows: info.windows.clone(),
        maps,
        caches: Caches {
            pieces: mean.pieces(),
            piece_tokens: args.piece as usize,
            of_prompt,
            distance,
            dissimilar_first,
            similar_first,
        },
        tokens,
        layers,
    })
}

/// Maps of all layers, and likeness within groups `[layer · G + kv head]`.
fn maps(session: &mut Session, rows: usize) -> Result<(Maps, Vec<f32>)> {
    let (layers, heads, kv_heads) = (session.info.layers, session.info.heads, session.info.kv_heads);
    let mut similarity = MapSimilarity::new(layers, heads);
    let mut groups = GroupSimilarity::new(layers, heads, kv_heads);
    session.core.each_map_row(rows, &mut |maps| {
        similarity.add(maps);
        groups.add(maps);
    })?;
    let similarity = similarity.finish();
    let spans = best_spans(&similarity.heads_without_sink, LONGEST, |a, b| session.core.alike(a, b));
    Ok((Maps { similarity, spans }, groups.finish()))
}

/// How many tokens were looked at, and what each layer caches of them.
fn layers(session: &mut Session, tokens: usize, groups: &[f32]) -> (usize, Vec<Layer>) {
    let (layers, kv_heads, dim) = (session.info.layers, session.info.kv_heads, session.info.head_dim);
    let cache = session.core.lanes()[0].cache;
    let mut slots = Vec::new();
    let mut all = Vec::with_capacity(layers);
    for layer in 0..layers {
        let turns = session.core.turns(layer).to_vec();
        let residual_cosine = session.core.cosines().get(layer).copied().unwrap_or(f32::NAN);
        let backend = session.core.backend();
        if layer == 0 {
            slots = spread(backend.positions(cache, 0, 0).len(), tokens);
        }
        let pick = |rows: &[f32]| slots.iter().flat_map(|&slot| &rows[slot * dim..(slot + 1) * dim]).copied().collect();
        let keys: Vec<Vec<f32>> = (0..kv_heads).map(|head| pick(&backend.keys(cache, layer, head))).collect();
        let values = (0..kv_heads).map(|head| pick(&backend.values(cache, layer, head))).collect();
        let mut plain = keys.clone();
        let angles = Angles::below(slots.last().map_or(0, |&slot| slot as u32 + 1), &turns);
        plain.iter_mut().for_each(|keys| angles.turn_back(keys, dim, slots.iter().map(|&slot| slot as u32)));
        let maps_in_group = groups[layer * kv_heads..(layer + 1) * kv_heads].to_vec();
        let held = backend.cache_bytes(cache, layer) as usize;
        let cell = held / (2 * kv_heads * dim * backend.positions(cache, layer, 0).len()).max(1);
        all.push(Cached { keys, plain, values, dim, cell, residual_cosine, maps_in_group });
    }
    (slots.len(), all.into_par_iter().map(Cached::layer).collect())
}

/// Up to `count` slots of `1..n`, evenly apart.
fn spread(n: usize, count: usize) -> Vec<usize> {
    let room = n.saturating_sub(1);
    let count = count.min(room);
    (0..count).map(|i| 1 + i * room / count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_spread_and_the_first_is_left_out() {
        assert_eq!(spread(5, 9), [1, 2, 3, 4]);
        assert_eq!(spread(11, 5), [1, 3, 5, 7, 9]);
        assert!(spread(1, 5).is_empty() && spread(0, 5).is_empty());
    }
}
