//! Attention sinks: the sink rate of Gu et al. (2410.10781), value drain (Guo et al. 2410.13835), and the generic sink
//! token of Kang et al. (2503.03321).
//!
//! For T tokens, 0-based k: α_k of a head is the mean attention on k over the T − k queries that see it;
//! Sink_k^ε is the share of heads (over layers and samples) with α_k > ε. Both change with T: compare at T = 64.

use serde::Serialize;

/// ε of the sink rate.
pub const EPSILON: f32 = 0.3;
/// T at which the paper measures.
pub const LENGTH: usize = 64;
/// α above which a position counts as looked at where values are drained.
pub const DRAIN_ALPHA: f32 = 0.1;
/// τ of the generic sink token.
pub const TAU: f32 = 20.0;

/// α_k from the column sum of position `k` over the rows of `tokens` tokens.
pub fn alpha(received: f32, tokens: usize, k: usize) -> f32 {
    received / tokens.saturating_sub(k).max(1) as f32
}

/// Sink_k^ε of heads with these α_k, 0..=1; 0 of no heads.
pub fn rate(alphas: &[f32], epsilon: f32) -> f32 {
    alphas.iter().filter(|alpha| **alpha > epsilon).count() as f32 / alphas.len().max(1) as f32
}

/// The norm of a sink's value beside those of all tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Drain {
    pub norm: f32,
    pub median: f32,
    /// Between the quartiles.
    pub iqr: f32,
    /// ‖v‖ < median − 2 · IQR
    pub drained: bool,
}

/// Of the value at place `at` of `norms` [tokens]; `None` where there is none.
pub fn drain(norms: &[f32], at: usize) -> Option<Drain> {
    let norm = *norms.get(at)?;
    let mut sorted = norms.to_vec();
    sorted.sort_by(f32::total_cmp);
    let quantile = |q: f32| {
        let place = q * (sorted.len() - 1) as f32;
        let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
        low + (high - low) * place.fract()
    };
    let (median, iqr) = (quantile(0.5), quantile(0.75) - quantile(0.25));
    Some(Drain { norm, median, iqr, drained: norm < median - 2.0 * iqr })
}

/// φ(x) = max over `channels` of |x_j| / RMS(x); a generic sink token where that is at least [`TAU`]. `channels` are
/// those of the largest massive elements.
pub fn phi(x: &[f32], channels: &[u32]) -> f32 {
    let squares: f64 = x.iter().map(|&v| v as f64 * v as f64).sum();
    let rms = (squares / x.len().max(1) as f64).sqrt() as f32;
    let most = channels.iter().filter_map(|&channel| x.get(channel as usize)).fold(0.0f32, |most, v| most.max(v.abs()));
    if rms > 0.0 { most / rms } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column_sum(map: impl Fn(usize, usize) -> f32, tokens: usize, k: usize) -> f32 {
        (k..tokens).map(|query| map(query, k)).sum()
    }

    #[test]
    fn uniform_attention_is_no_sink() {
        let uniform = |query: usize, _| 1.0 / (query + 1) as f32;
        let alpha = alpha(column_sum(uniform, LENGTH, 0), LENGTH, 0);
        // Σ 1/(i + 1) over 64 rows, / 64
        assert!((alpha - 0.074_123).abs() < 1e-6, "{alpha}");
        assert_eq!(rate(&[alpha; 12], EPSILON), 0.0);
    }

    #[test]
    fn all_on_the_first_is_a_sink_everywhere() {
        let first = |_, key: usize| (key == 0) as u32 as f32;
        let alpha_0 = alpha(column_sum(first, LENGTH, 0), LENGTH, 0);
        assert_eq!((alpha_0, rate(&[alpha_0; 12], EPSILON)), (1.0, 1.0));
        // the mean is over the queries that see k
        assert_eq!(alpha(3.0, 10, 7), 1.0);
        assert_eq!(rate(&[0.3, 0.31, 0.1, 0.9], EPSILON), 0.5);
        assert_eq!(rate(&[], EPSILON), 0.0);
    }

    #[test]
    fn a_value_far_below_the_others_is_drained() {
        let mut norms: Vec<f32> = (0..64).map(|i| 5.0 + (i % 5) as f32 * 0.1).collect();
        norms[0] = 0.5;
        let first = drain(&norms, 0).unwrap();
        assert!(first.drained && (first.median - 5.2).abs() < 1e-6 && (first.iqr - 0.2).abs() < 1e-5);
        assert!(!drain(&norms, 3).unwrap().drained);
        assert_eq!(drain(&norms, 64), None);
    }

    #[test]
    fn phi_looks_at_the_channels_of_sinks() {
        let mut x = vec![1.0; 1000];
        assert_eq!(phi(&x, &[3]), 1.0);
        x[3] = -1000.0;
        assert!(phi(&x, &[3, 5000]) >= TAU && phi(&x, &[4]) < 1.0);
        assert_eq!(phi(&[0.0; 8], &[1]), 0.0);
    }
}
