//! Policies with rules of their own against slow and obvious ones, on random layers.

use super::part::Moment;
use super::select::select;
use super::testing::{Lane, Layer, decide, moment, random_layer};
use super::{Decision, Policy};

/// Layers of different shapes after prompts of different lengths.
fn layers() -> impl Iterator<Item = Layer> {
    (0..24).map(|seed| random_layer(seed, (1 + seed as usize % 3, 1 + seed as usize % 2), 4, 12 + seed as usize))
}

fn after(spec: &str, layer: &Layer) -> Decision {
    let prompt = layer.newest as usize + 1;
    decide(&Policy::parse(spec).unwrap(), moment(prompt, 0), layer).unwrap()
}

fn mean_of_group(layer: &Layer, kv_head: usize, of: impl Fn(usize) -> f64) -> f64 {
    (kv_head * layer.group..(kv_head + 1) * layer.group).map(of).sum::<f64>() / layer.group as f64
}

/// A[head, query, entry] of a whole map.
fn a(layer: &Layer, head: usize, query: usize, entry: usize) -> f64 {
    let positions = layer.attention[head].len().isqrt();
    layer.attention[head][query * positions + entry] as f64
}

/// The `n` best of `score`, the newer of equals, ascending.
fn best(score: &[f64], n: usize) -> Vec<u32> {
    let mut order: Vec<usize> = (0..score.len()).collect();
    order.sort_by(|&x, &y| score[y].total_cmp(&score[x]).then(y.cmp(&x)));
    order.truncate(n);
    order.sort();
    order.into_iter().map(|slot| slot as u32).collect()
}

#[test]
fn scissorhands_counts_row_by_row() {
    for layer in layers() {
        let (prompt, heads) = (layer.newest as usize + 1, layer.keys.len());
        let decision = after("scissorhands@8:window=5,recent=0,drop=2", &layer);
        for kv_head in 0..heads {
            let count = |t: usize| {
                let hit = |head, i: usize| (t <= i && a(&layer, head, i, t) >= 1.0 / (i + 1) as f64) as u8 as f64;
                mean_of_group(&layer, kv_head, |head| (prompt - 5..prompt).map(|i| hit(head, i)).sum())
            };
            let counts: Vec<f64> = (0..prompt).map(count).collect();
            assert_eq!(decision.kept[kv_head], best(&counts, 6));
        }
    }
}

#[test]
fn kvcrush_picks_along_a_sorted_list() {
    for layer in layers() {
        let (prompt, heads) = (layer.newest as usize + 1, layer.keys.len());
        let plain = after("knorm@8", &layer).scores.values;
        let decision = after("kvcrush:crush=3,anchor=ones+knorm@8", &layer);
        let upper =
            |head: usize, t: usize| select(&plain[head], &vec![false; prompt], prompt / 2).contains(&(t as u32));
        for (head, scores) in plain.iter().enumerate() {
            let own = select(scores, &vec![false; prompt], 5);
            let mut left: Vec<usize> = (0..prompt).filter(|&t| !own.contains(&(t as u32))).collect();
            // stable: equal distances stay in order
            left.sort_by_key(|&t| (0..heads).filter(|&other| !upper(other, t)).count());
            let mut kept = own.clone();
            kept.extend((0..3).map(|i| left[i * left.len() / 3] as u32));
            kept.sort();
            assert_eq!(decision.kept[head], kept);
        }
    }
}

#[test]
fn dynamickv_sorts_all_that_is_left_again_and_again() {
    for seed in 0..12 {
        let (prompt, budget, window) = (30, 9, 3);
        let all: Vec<Layer> = (0..5).map(|l| random_layer(100 * seed + l, (2, 2), 4, prompt)).collect();
        let spec = format!("dynamickv:layers=2,most=3+snapkv@{budget}:window={window}");
        let at = Moment { layers: 5, ..moment(prompt, 0) };
        let decisions = Policy::parse(&spec).unwrap().decide(0, at, &Lane(&all));
        let base = budget - window;
        // (layer, score) of what is still kept, by kv head
        let mut left: Vec<Vec<(usize, f32)>> = vec![Vec::new(); 2];
        let mut numbers = Vec::new();
        for (layer, one) in all.iter().enumerate() {
            let scores = &after(&format!("snapkv@1:window={window}"), one).scores.values;
            for head in 0..2 {
                let mut free = scores[head][..prompt - window].to_vec();
                free.sort_by(|a, b| b.total_cmp(a));
                left[head].extend(free[..3 * base].iter().map(|&s| (layer, s)));
            }
            if layer % 2 == 0 && layer < 4 {
                continue;
            }
            let mut together = left.concat();
            together.sort_by(|a, b| b.1.total_cmp(&a.1));
            let n = layer + 1;
            let wins = |l| together[..base * n * 2].iter().filter(|&&(of, _)| of == l).count() as f64 / 2.0;
            numbers = (0..n).map(wins).collect::<Vec<f64>>();
            // halves are settled in favour of the first layers, as long as some are left
            let mut spare = base * n - numbers.iter().map(|x| x.floor() as usize).sum::<usize>();
            for number in &mut numbers {
                let up = number.fract() > 0.0 && spare > 0;
                spare -= up as usize;
                *number = number.floor() + up as u8 as f64;
            }
            for head in &mut left {
                let mut cut = Vec::new();
                for (l, &number) in numbers.iter().enumerate() {
                    let mut own: Vec<_> = head.iter().filter(|&&(of, _)| of == l).copied().collect();
                    own.sort_by(|a, b| b.1.total_cmp(&a.1));
                    cut.extend(own.into_iter().take(number as usize));
                }
                *head = cut;
            }
        }
        let budgets = decisions.iter().map(|d| d.as_ref().unwrap().budget[0] as f64 - window as f64);
        assert_eq!(budgets.collect::<Vec<_>>(), numbers);
    }
}

#[test]
fn taskkv_measures_heads_in_f64() {
    for layer in layers().filter(|layer| layer.keys.len() > 1) {
        let (prompt, kv_heads) = (layer.newest as usize + 1, layer.keys.len());
        let heads = kv_heads * layer.group;
        let decision = after("taskkv@8:window=4,sinks=1,recent=1,beta=0.5,m=0", &layer);
        let votes = |head: usize, t: usize| (prompt - 4..prompt).map(|i| a(&layer, head, i, t)).sum::<f64>() / 4.0;
        let vector = |head: usize| -> Vec<f64> {
            let v = |t: usize, i: usize| layer.values[head / layer.group][t * 4 + i] as f64;
            (0..4).map(|i| (0..prompt).map(|t| votes(head, t) * v(t, i)).sum()).collect()
        };
        let vectors: Vec<Vec<f64>> = (0..heads).map(vector).collect();
        let centre = |i: usize| vectors.iter().map(|v| v[i]).sum::<f64>() / heads as f64;
        let far = |head: usize| (0..4).map(|i| (vectors[head][i] - centre(i)).powi(2)).sum::<f64>();
        let mut order: Vec<usize> = (0..heads).collect();
        order.sort_by(|&x, &y| far(y).total_cmp(&far(x)));
        let count = (heads as f64 * 0.5).round_ties_even() as usize;
        let mut whole: Vec<usize> = Vec::new();
        for head in order[..count].iter().chain(order.last()).map(|head| head / layer.group) {
            let others = kv_heads - whole.len() - 1;
            let left = (8 * kv_heads) as i64 - (prompt * (whole.len() + 1)) as i64;
            if !whole.contains(&head) && left >= 0 && (others == 0 || left / others as i64 >= 2) {
                whole.push(head);
            }
        }
        for kv_head in 0..kv_heads {
            let part = (8 * kv_heads - prompt * whole.len()) / (kv_heads - whole.len()).max(1);
            let size = if whole.contains(&kv_head) { prompt } else { part.min(prompt) };
            let pooled = |t: usize| {
                let near = t.saturating_sub(3)..(t + 4).min(prompt);
                mean_of_group(&layer, kv_head, |head| near.clone().map(|t| votes(head, t)).sum::<f64>() / 7.0)
            };
            let score = |t: usize| if t == 0 || t + 1 == prompt { 9.0 } else { pooled(t) };
            assert_eq!(decision.kept[kv_head], best(&(0..prompt).map(score).collect::<Vec<_>>(), size));
        }
    }
}

#[test]
fn cam_spreads_values_one_after_the_other() {
    for layer in layers() {
        let decision = after("cam:merge=3,seed=5+knorm@7", &layer);
        let certain = after("cam:merge=3,seed=6+knorm@7", &layer);
        for (kv_head, kept) in decision.kept.iter().enumerate() {
            let received = |t: u32| mean_of_group(&layer, kv_head, |head| layer.received[head][t as usize] as f64);
            let value = |t: u32, i: usize| layer.values[kv_head][t as usize * 4 + i] as f64;
            // what must be there, and what chance may add
            let mut sure: Vec<f64> = kept.iter().flat_map(|&t| (0..4).map(move |i| value(t, i))).collect();
            let mut maybe = vec![0.0f64; sure.len()];
            for e in (0..=layer.newest).filter(|e| !kept.contains(e)) {
                let hosts: Vec<usize> = (0..kept.len()).filter(|&k| kept[k] > e).take(3).collect();
                let mean = hosts.iter().map(|&k| received(kept[k])).sum::<f64>() / hosts.len() as f64;
                for &k in &hosts {
                    for i in 0..4 {
                        let add = value(e, i) / hosts.len() as f64;
                        match received(e) >= mean * 1.000001 {
                            true => sure[k * 4 + i] += add,
                            false => maybe[k * 4 + i] += add.abs(),
                        }
                    }
                }
            }
            for new in [&decision, &certain] {
                let values = new.rewritten[kv_head].values.as_ref().unwrap();
                let off = |i: usize| (values[i] as f64 - sure[i]).abs() - maybe[i];
                assert!((0..sure.len()).all(|i| off(i) < 1e-4), "{values:?} {sure:?}");
            }
        }
    }
}
