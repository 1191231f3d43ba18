//! The Walsh–Hadamard transform of a head's channels: spreads an outlier channel over all others.

/// x · H / √w in place on the largest blocks whose widths are powers of two: 64 is one block, 80 is 64 + 16.
/// Orthonormal and symmetric: twice is once around.
#[inline(always)]
pub fn hadamard(x: &mut [f32]) {
    let mut rest = x;
    while !rest.is_empty() {
        let width = 1 << rest.len().ilog2();
        let (block, more) = rest.split_at_mut(width);
        butterflies(block);
        rest = more;
    }
}

#[inline(always)]
fn butterflies(x: &mut [f32]) {
    let mut half = 1;
    let (eights, rest) = x.as_chunks_mut::<8>();
    if rest.is_empty() {
        // The first three stages within registers.
        eights.iter_mut().for_each(|x| [1, 2, 4].into_iter().for_each(|half| stage::<8>(x, half)));
        half = 8;
    }
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (a, b) = pair.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let scale = 1.0 / (x.len() as f32).sqrt();
    x.iter_mut().for_each(|x| *x *= scale);
}

#[inline(always)]
fn stage<const N: usize>(x: &mut [f32; N], half: usize) {
    let y = *x;
    for i in 0..N {
        x[i] = if i & half == 0 { y[i] + y[i ^ half] } else { y[i ^ half] - y[i] };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Sign of row i, column j: the parity of i & j.
    fn by_definition(x: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        let mut rest = x;
        while !rest.is_empty() {
            let width = (1..=rest.len()).rfind(|w| w.is_power_of_two()).unwrap();
            for i in 0..width {
                let sum: f64 =
                    (0..width).map(|j| (1 - 2 * ((i & j).count_ones() as i32 % 2)) as f64 * rest[j] as f64).sum();
                out.push((sum / (width as f64).sqrt()) as f32);
            }
            rest = &rest[width..];
        }
        out
    }

    proptest! {
        #[test]
        fn equals_its_definition_and_undoes_itself(x in prop::collection::vec(-9.0f32..9.0, 1..130)) {
            let mut y = x.clone();
            hadamard(&mut y);
            prop_assert!(y.iter().zip(by_definition(&x)).all(|(a, b)| (a - b).abs() < 1e-4));
            hadamard(&mut y);
            prop_assert!(y.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }

    #[test]
    fn an_outlier_is_spread() {
        let mut x = [0.0; 64];
        x[5] = 8.0;
        hadamard(&mut x);
        assert!(x.iter().all(|x| x.abs() == 1.0));
    }
}
