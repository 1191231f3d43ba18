//! The figures of one model on one prompt.

use miette::Result;
use serde::Serialize;

use crate::cli::prompt::Prompt;
use crate::cli::session::{Session, tell, told};
use crate::engine::frame::ResidualStats;
use crate::probe::depth::{distance, entropy};

#[derive(Debug, Serialize)]
pub struct Growth {
    pub model: String,
    /// "plain", or how depth is mixed.
    pub residual: String,
    pub tokens: usize,
    /// Mean −ln p of the prompt's tokens but the first, nats.
    pub nll: f64,
    /// First sublayer of each block; empty in a plain model.
    pub edges: Vec<u32>,
    /// Of the stream: the embedding, then after each sublayer.
    pub stream: Vec<Point>,
    /// Of what sublayers read, the last one what the final norm reads; the stream itself in a plain model.
    pub read: Vec<Point>,
    /// Exponent of RMS of the stream over depth: least squares of ln rms over ln (point + 1).
    pub slope: f64,
    /// Largest RMS of the stream over that of the embedding.
    pub growth: f64,
    /// What each target is made of, mean over the prompt; weights where the model has them, else contributions.
    pub targets: Vec<Target>,
}

/// Over the prompt's tokens.
#[derive(Debug, Clone, Serialize)]
pub struct Point {
    /// Median over tokens.
    pub rms: f32,
    pub l2: f32,
    /// Largest |x| of all tokens.
    pub absmax: f32,
}

#[derive(Debug, Serialize)]
pub struct Target {
    pub sources: usize,
    /// Of the weights, or of the sizes of contributions, nats.
    pub entropy: f32,
    /// Of as many equal ones, nats.
    pub uniform: f32,
    pub embedding: f32,
    /// Mean distance from the newest source, sources.
    pub distance: f32,
    pub values: Vec<f32>,
}

fn median(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    match sorted.len() {
        0 => f32::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

fn points(stats: &ResidualStats) -> Vec<Point> {
    let of = |values: &[f32], point: usize| values[point * stats.rows..][..stats.rows].to_vec();
    let point = |p: usize| Point {
        rms: median(&of(&stats.rms, p)),
        l2: median(&of(&stats.l2, p)),
        absmax: of(&stats.absmax, p).into_iter().fold(0.0, f32::max),
    };
    (0..stats.points).map(point).collect()
}

/// Least squares of ln y over ln (index + 1).
fn slope(y: &[f32]) -> f64 {
    let n = y.len() as f64;
    let at = |i: usize| (((i + 1) as f64).ln(), f64::from(y[i]).ln());
    let (mx, my) = (0..y.len()).map(at).fold((0.0, 0.0), |(a, b), (x, y)| (a + x / n, b + y / n));
    let (xy, xx) =
        (0..y.len()).map(at).fold((0.0, 0.0), |(a, b), (x, y)| (a + (x - mx) * (y - my), b + (x - mx).powi(2)));
    xy / xx
}

pub fn measure(session: &mut Session, prompt: &Prompt) -> Result<Growth> {
    let ids = prompt.encode(&session.model)?;
    session.check(&ids, 0)?;
    let name = session.info.id.clone();
    let frame = session.read(&ids, |read| tell(&format!("{name}: {read} of {} tokens", ids.len())))?;
    let nll = session.core.prompt_nll()?;
    let depth = session.core.depth_of_span(0..ids.len())?;
    told();
    let (lane, info) = (&frame.lanes[0], &session.info.depth);
    let stream = points(if lane.stream.l2.is_empty() { &lane.residual } else { &lane.stream });
    let values = if depth.weight.is_empty() { &depth.share } else { &depth.weight };
    let target = |t: usize| {
        let row = depth.row(values, t);
        let sum: f32 = row.iter().map(|v| v.abs()).sum();
        let sizes: Vec<f32> = row.iter().map(|v| v.abs() / sum).collect();
        Target {
            sources: row.len(),
            entropy: entropy(&sizes),
            uniform: (row.len() as f32).ln(),
            embedding: row.get(usize::from(info.null)).copied().unwrap_or(f32::NAN),
            distance: distance(&sizes),
            values: row.to_vec(),
        }
    };
    let rms: Vec<f32> = stream.iter().map(|point| point.rms).collect();
    let count = nll.iter().filter(|x| x.is_finite()).count();
    Ok(Growth {
        model: name,
        residual: info.residual.clone(),
        tokens: ids.len(),
        nll: nll.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x)).sum::<f64>() / count.max(1) as f64,
        edges: info.edges.clone(),
        slope: slope(&rms),
        growth: f64::from(rms.iter().copied().fold(0.0, f32::max) / rms[0]),
        stream,
        read: points(&lane.residual),
        targets: (0..depth.counts.len()).map(target).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_of_depth_has_its_exponent_as_slope() {
        let y: Vec<f32> = (1..40).map(|i| 3.0 * (i as f32).powf(0.7)).collect();
        assert!((slope(&y) - 0.7).abs() < 1e-4);
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
    }
}
