//! Speculative decoding with a part of the model as its own draft (Leviathan et al., arXiv 2211.17192; drafts that leave
//! sublayers out: Draft & Verify 2309.08168, Draft on the Fly 2410.01028).
//!
//! p is what the model says, q what the draft says after the same text.

use rand::Rng;

use super::distribution::Distribution;

/// Probabilities of logits [V] / temperature; at 0 all on the most probable token.
pub fn probabilities(logits: &[f32], temperature: f32) -> Vec<f32> {
    if temperature == 0.0 {
        let best = Distribution::of(logits).argmax;
        return (0..logits.len()).map(|id| (id == best as usize) as u8 as f32).collect();
    }
    let all = Distribution::at(logits, temperature);
    logits.iter().map(|l| (l / temperature - all.lse).exp()).collect()
}

/// Probability that a token drawn from q is accepted: Σ min(p, q).
pub fn acceptance(p: &[f32], q: &[f32]) -> f32 {
    p.iter().zip(q).map(|(p, q)| p.min(*q) as f64).sum::<f64>() as f32
}

/// Tokens that one look of the model is expected to yield where each of `gamma` drafted ones is accepted with
/// probability `a`: (1 − a^(γ+1)) / (1 − a).
pub fn tokens_per_look(a: f32, gamma: u32) -> f32 {
    (0..=gamma).map(|i| (a as f64).powi(i as i32)).sum::<f64>() as f32
}

/// Those tokens per cost, next to a model alone; a drafted token costs `cost` of one of the model's.
pub fn speedup(a: f32, gamma: u32, cost: f32) -> f32 {
    tokens_per_look(a, gamma) / (gamma as f32 * cost + 1.0)
}

/// The token for which weights add up to a share of their sum that was drawn evenly.
pub fn draw(weights: &[f32], rng: &mut impl Rng) -> u32 {
    let sum: f64 = weights.iter().map(|&w| w as f64).sum();
    let mut left = rng.random::<f64>() * sum;
    let mut last = 0;
    for (id, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        last = id;
        left -= weight as f64;
        if left < 0.0 {
            break;
        }
    }
    last as u32
}

/// Lets `drafted`, drawn from q, stand with probability min(1, p/q); else draws from max(p − q, 0). What comes out has
/// the distribution p. `Err` with the token drawn instead.
pub fn verify(p: &[f32], q: &[f32], drafted: u32, rng: &mut impl Rng) -> Result<(), u32> {
    let (wanted, offered) = (p[drafted as usize], q[drafted as usize]);
    if rng.random::<f32>() * offered < wanted {
        return Ok(());
    }
    let rest: Vec<f32> = p.iter().zip(q).map(|(p, q)| (p - q).max(0.0)).collect();
    // Nothing but rounding lay between the two.
    if rest.iter().all(|&left| left == 0.0) { Ok(()) } else { Err(draw(&rest, rng)) }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const P: [f32; 6] = [0.02, 0.4, 0.08, 0.25, 0.25, 0.0];
    const Q: [f32; 6] = [0.3, 0.1, 0.1, 0.25, 0.05, 0.2];

    /// Σ (counted − expected)² / expected over the tokens that can come.
    fn chi_squared(counts: &[u32], p: &[f32]) -> f64 {
        let all: u32 = counts.iter().sum();
        let of = |(&n, &p): (&u32, &f32)| {
            let expected = p as f64 * all as f64;
            if p > 0.0 { (n as f64 - expected).powi(2) / expected } else { f64::MAX * n as f64 }
        };
        counts.iter().zip(p).map(of).sum()
    }

    /// Of 4 degrees of freedom: passed by chance once in a million.
    const FAR: f64 = 33.4;

    #[test]
    fn what_is_accepted_or_drawn_instead_is_distributed_as_the_model_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let (mut lossless, mut without, mut accepted) = ([0u32; 6], [0u32; 6], 0);
        let rounds = 200_000;
        for _ in 0..rounds {
            let drafted = draw(&Q, &mut rng);
            let said = verify(&P, &Q, drafted, &mut rng);
            accepted += said.is_ok() as u32;
            lossless[said.err().unwrap_or(drafted) as usize] += 1;
            // drawn from p instead of from what is left of it
            let biased = if said.is_ok() { drafted } else { draw(&P, &mut rng) };
            without[biased as usize] += 1;
        }
        assert!(chi_squared(&lossless, &P) < FAR, "{lossless:?}");
        assert!(chi_squared(&without, &P) > FAR, "the test would not notice: {without:?}");
        let (share, expected) = (accepted as f32 / rounds as f32, acceptance(&P, &Q));
        assert!((expected - 0.5).abs() < 1e-6 && (share - expected).abs() < 0.006, "{share} {expected}");
    }

    #[test]
    fn a_draft_that_says_the_same_is_always_right() {
        assert!((acceptance(&P, &P) - 1.0).abs() < 1e-6);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!((0..500).all(|_| verify(&P, &P, draw(&P, &mut rng), &mut rng).is_ok()));
        assert_eq!(tokens_per_look(1.0, 4), 5.0);
        assert_eq!(speedup(1.0, 4, 0.0), 5.0);
    }

    #[test]
    fn tokens_and_speedup_follow_the_formula() {
        let (a, gamma, cost) = (0.8f32, 4, 0.25);
        let tokens = (1.0 - a.powi(5)) / (1.0 - a);
        assert!((tokens_per_look(a, gamma) - tokens).abs() < 1e-5);
        assert!((speedup(a, gamma, cost) - tokens / 2.0).abs() < 1e-5);
        assert_eq!(tokens_per_look(0.0, 4), 1.0);
    }

    #[test]
    fn temperature_zero_is_the_greedy_rule() {
        let logits = [0.1f32, 3.0, 2.9];
        assert_eq!(probabilities(&logits, 0.0), [0.0, 1.0, 0.0]);
        assert_eq!(acceptance(&probabilities(&logits, 0.0), &probabilities(&[0.0, 0.0, 1.0], 0.0)), 0.0);
        let warm = probabilities(&logits, 2.0);
        assert!((warm.iter().sum::<f32>() - 1.0).abs() < 1e-6 && warm[0] > probabilities(&logits, 1.0)[0]);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        assert_eq!(verify(&probabilities(&logits, 0.0), &[0.0, 0.0, 1.0], 2, &mut rng), Err(1));
    }
}
