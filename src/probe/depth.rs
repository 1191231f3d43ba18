//! How much each source of the residual stream contributes to what a sublayer reads.

/// Signed shares c_{i→t} = ⟨v_i, h_t⟩ / ‖h_t‖² of one token, from its residual stream `points` [N, d].
///
/// Sources: v_0 = point 0 (the embedding), v_i = point_i − point_{i−1} (what sublayer i − 1 added). Target t < N − 1
/// is sublayer t, which reads h_t = point_t; target N − 1 is the output. `out` [targets N, sources N]: rows sum to 1,
/// sources that come after the target are 0. A target of length 0 has no shares: its row stays 0.
pub fn shares(points: &[f32], dim: usize, out: &mut [f32]) {
    let count = points.len().checked_div(dim).unwrap_or(0);
    out.fill(0.0);
    let point = |i: usize| &points[i * dim..(i + 1) * dim];
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| x as f64 * y as f64).sum::<f64>();
    for target in 0..count {
        let h = point(target);
        let length = dot(h, h);
        if length == 0.0 {
            continue;
        }
        // ⟨v_i, h⟩ = ⟨point_i, h⟩ − ⟨point_{i−1}, h⟩
        let mut before = 0.0;
        for source in 0..=target {
            let along = if source == target { length } else { dot(point(source), h) };
            out[target * count + source] = ((along - before) / length) as f32;
            before = along;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_definition_and_sum_to_one() {
        // Points e, e + a, e + a + b.
        let (e, a, b) = ([1.0f32, 2.0], [0.5f32, -1.0], [-3.0f32, 0.25]);
        let h1 = [e[0] + a[0], e[1] + a[1]];
        let h2 = [h1[0] + b[0], h1[1] + b[1]];
        let points = [e, h1, h2].concat();
        let mut out = vec![9.0; 9];
        shares(&points, 2, &mut out);
        assert_eq!(&out[..3], &[1.0, 0.0, 0.0]);
        assert_eq!(out[5], 0.0);
        let length = h2[0] * h2[0] + h2[1] * h2[1];
        for (source, v) in [e, a, b].iter().enumerate() {
            let expected = (v[0] * h2[0] + v[1] * h2[1]) / length;
            assert!((out[6 + source] - expected).abs() < 1e-6);
        }
        for row in out.chunks(3) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_stream_of_zeros_has_no_shares() {
        let mut out = vec![1.0; 4];
        shares(&[0.0; 6], 3, &mut out);
        assert_eq!(out, [0.0; 4]);
    }
}
