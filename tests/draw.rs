//! Drawing from a row of logits: the reference of the kernels, against plain sums and frequencies.

#[path = "common/chance.rs"]
mod chance;

use attnscope::backend::draw::{Draw, Drawn, gumbel, philox};
use attnscope::probe::distribution::Distribution;
use chance::{chi_square, softmax};
use rand::{Rng, SeedableRng, rngs::StdRng};

const ONE: Draw = Draw { temperature: 1.0, seed: 0xfeed_0007, ..Draw::GREEDY };

fn logits(seed: u64, vocab: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..vocab).map(|_| rng.random_range(-3.0..2.0f32)).collect()
}

fn exactly(logits: &[f32], draw: &Draw, k: usize) -> Drawn {
    Drawn::exactly(logits, &Distribution::of(logits), draw, k)
}

fn frequencies(logits: &[f32], draw: Draw, k: usize, draws: u32) -> Vec<f64> {
    let mut counts = vec![0.0; logits.len()];
    for step in 0..draws {
        let drawn = exactly(logits, &Draw { step, ..draw }, k);
        counts[drawn.winner.unwrap() as usize] += 1.0;
    }
    counts
}

/// Every token's score one by one, best first.
fn scores(logits: &[f32], draw: &Draw) -> Vec<(f32, usize)> {
    let [low, high, step, row, stream] = draw.words();
    let score = |(id, z): (usize, &f32)| {
        let words = philox([[id as u32 / 4], [step], [row], [stream]], [low, high]);
        (z / draw.heat() + gumbel(words[id % 4][0]), id)
    };
    let mut all: Vec<(f32, usize)> = logits.iter().enumerate().map(score).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    all
}

#[test]
fn the_best_two_are_found_among_rows_of_any_length() {
    let mut rng = StdRng::seed_from_u64(5);
    for vocab in [1, 2, 7, 63, 64, 65, 128, 1000, 49_152] {
        for (temperature, wide) in [(1.0, 1.0), (0.3, 8.0), (2.0, 30.0)] {
            let logits: Vec<f32> = logits(rng.random(), vocab).iter().map(|z| z * wide).collect();
            let draw = Draw { temperature, seed: rng.random(), step: rng.random(), row: 3, stream: 8, ..Draw::GREEDY };
            let (drawn, all) = (Drawn::of(&logits, &draw, 4), scores(&logits, &draw));
            assert_eq!((drawn.winner, drawn.scores[0]), (Some(all[0].1 as u32), all[0].0));
            assert_eq!(drawn.runner_up, all.get(1).map(|second| second.1 as u32));
            assert_eq!(drawn.margin, all.get(1).map_or(f32::INFINITY, |second| all[0].0 - second.0));
            assert_eq!((drawn.survivors as usize, drawn.exact), (vocab, true));
        }
    }
}

#[test]
fn sums_are_those_of_the_distribution_drawn_from() {
    let mut logits = logits(1, 300);
    (logits[7], logits[8]) = (f32::NEG_INFINITY, f32::NAN);
    for temperature in [0.0, 0.5, 1.0, 3.0] {
        let drawn = Drawn::of(&logits, &Draw { temperature, ..ONE }, 300);
        let heat = if temperature == 0.0 { 1.0 } else { f64::from(temperature) };
        let x: Vec<f64> = logits.iter().filter(|z| z.is_finite()).map(|&z| f64::from(z) / heat).collect();
        let lse = x.iter().map(|x| x.exp()).sum::<f64>().ln();
        let entropy: f64 = x.iter().map(|x| -(x - lse).exp() * (x - lse)).sum();
        assert!((f64::from(drawn.lse) - lse).abs() < 1e-5, "{temperature}");
        assert!((f64::from(drawn.entropy) - entropy).abs() < 1e-4, "{temperature}");
        assert_eq!(drawn.candidates.len(), 298, "masked ones are no candidates");
        let mass: f32 = drawn.candidates.iter().map(|c| c.p).sum();
        assert!((mass - 1.0).abs() < 1e-4, "{temperature}: {mass}");
    }
}

/// p > 1e-4.
#[test]
fn frequencies_are_those_of_softmax() {
    let logits = logits(21, 512);
    for temperature in [1.0, 1.25] {
        let counts = frequencies(&logits, Draw { temperature, stream: 2, ..ONE }, 0, 100_000);
        let p = softmax(logits.iter().map(|&z| f64::from(z) / f64::from(temperature)));
        let (deviations, cells) = chi_square(&counts, &p);
        assert!(cells > 400.0, "{cells} cells");
        assert!(deviations.abs() < 3.72, "{deviations} deviations");
    }
}

/// 10^5 draws of what filters leave, also where that is more than the candidates tell.
#[test]
fn frequencies_of_survivors_are_those_of_softmax_among_them() {
    let logits: Vec<f32> = (0..40).map(|place| 1.0 - place as f32 * 0.11).collect();
    let all = softmax(logits.iter().map(|&z| f64::from(z)));
    let within = |mass: f64| {
        let mut sum = 0.0;
        let enough = |p: &&f64| {
            let enough = sum >= mass;
            sum += **p;
            !enough
        };
        all.iter().take_while(enough).count()
    };
    let cases = [
        (Draw { top_k: 12, ..ONE }, 12),
        (Draw { top_p: 0.6, ..ONE }, within(0.6)),
        (Draw { min_p: 0.2, ..ONE }, all.iter().filter(|p| **p >= 0.2 * all[0]).count()),
        (Draw { top_p: 0.95, ..ONE }, within(0.95)),
        (Draw { top_k: 30, ..ONE }, 30),
    ];
    for (draw, kept) in cases {
        assert!((1..40).contains(&kept));
        for k in [8, 32] {
            let drawn = Drawn::of(&logits, &draw, k);
            // one more than survive must be seen, but by top-k, which counts itself
            assert_eq!(drawn.exact, if draw.top_k > 0 { kept <= k } else { kept < k }, "{draw:?}, {k}");
        }
        assert_eq!(exactly(&logits, &draw, 8).survivors as usize, kept, "{draw:?}");
        let counts = frequencies(&logits, draw, 8, 100_000);
        assert_eq!(counts[kept..].iter().sum::<f64>(), 0.0, "{draw:?}");
        let (deviations, cells) = chi_square(&counts[..kept], &softmax(logits[..kept].iter().map(|&z| f64::from(z))));
        assert_eq!(cells, kept as f64);
        assert!(deviations.abs() < 3.72, "{draw:?}: {deviations} deviations");
    }
}

/// Top-p looks at what top-k leaves, scaled up to 1: of these five A alone, not A and B.
#[test]
fn filters_follow_each_other() {
    let logits = [0.30f32, 0.25, 0.24, 0.11, 0.10].map(f32::ln);
    let survivors = |draw: Draw| Drawn::of(&logits, &draw, 5).survivors;
    assert_eq!(survivors(Draw { top_k: 3, top_p: 0.35, ..ONE }), 1);
    assert_eq!(survivors(Draw { top_p: 0.35, ..ONE }), 2);
    assert_eq!(survivors(Draw { top_k: 3, top_p: 0.5, ..ONE }), 2);
    assert_eq!(survivors(Draw { min_p: 0.79, ..ONE }), 3);
    assert_eq!(survivors(Draw { top_p: 0.0, ..ONE }), 1);
    assert_eq!(survivors(Draw { temperature: 0.0, top_k: 3, ..ONE }), 1);
}

#[test]
fn masked_tokens_never_win_and_all_masked_is_no_token() {
    let mut logits = vec![f32::NEG_INFINITY; 130];
    for draw in [Draw::GREEDY, ONE, Draw { top_k: 5, ..ONE }] {
        let drawn = exactly(&logits, &draw, 3);
        assert_eq!((drawn.winner, drawn.runner_up, drawn.candidates.len()), (None, None, 0));
        assert_eq!((drawn.max, drawn.lse), (f32::NEG_INFINITY, f32::NEG_INFINITY));
        assert!(drawn.entropy.is_nan());
    }
    (logits[7], logits[99]) = (f32::NAN, -1e30);
    for draw in [Draw::GREEDY, ONE, Draw { top_k: 5, ..ONE }] {
        let drawn = exactly(&logits, &draw, 3);
        assert_eq!((drawn.winner, drawn.runner_up, drawn.entropy), (Some(99), None, 0.0));
    }
    let open: Vec<f32> = (0..512).map(|id| if id % 25 == 3 { 0.0 } else { f32::NEG_INFINITY }).collect();
    for step in 0..2000 {
        let drawn = Drawn::of(&open, &Draw { step, ..ONE }, 0);
        assert!([drawn.winner, drawn.runner_up].iter().all(|id| id.unwrap() % 25 == 3));
    }
}

#[test]
fn the_smaller_of_equals_wins_and_cold_is_greedy() {
    for equal in [[9, 11], [63, 64], [5, 400]] {
        let mut row = vec![-1.0; 512];
        equal.iter().for_each(|&id| row[id] = 2.5);
        let drawn = Drawn::of(&row, &Draw::GREEDY, 2);
        assert_eq!([drawn.winner, drawn.runner_up], equal.map(|id| Some(id as u32)));
        assert_eq!(drawn.margin, 0.0);
    }
    for seed in 0..20 {
        let row = logits(seed, 300);
        let (greedy, cold) =
            (Drawn::of(&row, &Draw::GREEDY, 1), Drawn::of(&row, &Draw { temperature: 1e-7, ..ONE }, 1));
        // the best two are further apart than noise, 26 · 1e-7
        assert!(greedy.margin > 3e-6);
        assert_eq!(greedy.winner, cold.winner);
        assert_eq!(greedy.winner, Some(greedy.candidates[0].id));
    }
}

#[test]
fn noise_follows_every_part_of_the_counter() {
    let row = vec![0.0; 64];
    let winner = |draw: Draw| Drawn::of(&row, &draw, 0).winner;
    let winners = |of: &dyn Fn(u32) -> Draw| (0..40).map(|i| winner(of(i))).collect::<Vec<_>>();
    let same = winners(&|step| Draw { step, ..ONE });
    assert_eq!(same, winners(&|step| Draw { step, ..ONE }));
    let others = [
        winners(&|step| Draw { step, seed: ONE.seed + 1, ..ONE }),
        winners(&|step| Draw { step, seed: ONE.seed + (1 << 32), ..ONE }),
        winners(&|step| Draw { step, row: 1, ..ONE }),
        winners(&|step| Draw { step, stream: 1, ..ONE }),
        winners(&|step| Draw { step: step + 1, ..ONE }),
    ];
    for other in others {
        let equal = same.iter().zip(&other).filter(|(a, b)| a == b).count();
        assert!(equal < 8, "{equal} of 40 by chance");
    }
}
