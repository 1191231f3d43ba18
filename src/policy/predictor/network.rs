//! The network that looks at the last attention rows as an image and gives every block a score.
//!
//! Two 3×3 convolutions (1 → 16 → 32 channels, zeros around the image) with ReLU, the mean over the rows, and a
//! weighted sum of the channels: 4,833 numbers.

use std::path::Path;

use crate::policy::tensor_file;
use crate::simd::vectorized;

/// Channels after the first and the second convolution.
const CHANNELS: [usize; 2] = [16, 32];

pub struct Network {
    first: Convolution,
    second: Convolution,
    /// [32], and what is added.
    last: (Vec<f32>, f32),
}

struct Convolution {
    /// [out][in][3][3]
    weights: Vec<f32>,
    /// [out]
    bias: Vec<f32>,
}

impl Network {
    /// Fails with a sentence about the file.
    pub fn read(file: &Path) -> Result<Self, String> {
        let convolution = |name: &str, out: usize, within: usize| {
            let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
            let (shape, weights) = tensor_file::read(file, &weight, "[out, in, 3, 3]")?;
            fits(&weight, &shape, [out, within, 3, 3])?;
            let (shape, numbers) = tensor_file::read(file, &bias, "[out]")?;
            fits(&bias, &shape, [out])?;
            Ok::<_, String>(Convolution { weights, bias: numbers })
        };
        let [a, b] = CHANNELS;
        let (first, second) = (convolution("conv1", a, 1)?, convolution("conv2", b, a)?);
        let (shape, weights) = tensor_file::read(file, "conv3.weight", "[1, in, 1]")?;
        fits("conv3.weight", &shape, [1, b, 1])?;
        let (shape, bias) = tensor_file::read(file, "conv3.bias", "[1]")?;
        fits("conv3.bias", &shape, [1])?;
        Ok(Self { first, second, last: (weights, bias[0]) })
    }

    /// Scores [blocks] of an image [rows][blocks], at least one row.
    pub fn predict(&self, image: &[Vec<f32>]) -> Vec<f32> {
        let (rows, width) = (image.len(), image.first().map_or(0, Vec::len));
        let hidden = self.first.carry_out(&image.concat(), rows, width);
        let hidden = self.second.carry_out(&hidden, rows, width);
        let mut scores = vec![self.last.1; width];
        for (channel, weight) in hidden.chunks_exact((rows * width).max(1)).zip(&self.last.0) {
            for row in channel.chunks_exact(width) {
                scores.iter_mut().zip(row).for_each(|(score, x)| *score += weight * x / rows as f32);
            }
        }
        scores
    }
}

fn fits<const N: usize>(name: &str, shape: &[usize; N], wanted: [usize; N]) -> Result<(), String> {
    (*shape == wanted).then_some(()).ok_or_else(|| format!("`{name}` is {shape:?}, not {wanted:?}"))
}

impl Convolution {
    /// ReLU of the convolution of an image [in][rows][width]: [out][rows][width].
    fn carry_out(&self, image: &[f32], rows: usize, width: usize) -> Vec<f32> {
        let size = rows * width;
        let within = image.len() / size.max(1);
        let mut out: Vec<f32> = self.bias.iter().flat_map(|&bias| std::iter::repeat_n(bias, size)).collect();
        let planes = out.chunks_exact_mut(size.max(1)).zip(self.weights.chunks_exact(9 * within.max(1)));
        vectorized(
            #[inline(always)]
            || {
                for (plane, weights) in planes {
                    for (image, kernel) in image.chunks_exact(size).zip(weights.chunks_exact(9)) {
                        for (y, row) in plane.chunks_exact_mut(width).enumerate() {
                            for from in y.saturating_sub(1)..(y + 2).min(rows) {
                                let line = &image[from * width..(from + 1) * width];
                                add(row, line, &kernel[3 * (from + 1 - y)..][..3]);
                            }
                        }
                    }
                    plane.iter_mut().for_each(|x| *x = x.max(0.0));
                }
            },
        );
        out
    }
}

/// row[x] += Σ_i kernel[i] · line[x + i − 1], nothing beyond the ends.
#[inline(always)]
fn add(row: &mut [f32], line: &[f32], kernel: &[f32]) {
    let width = row.len();
    row[1..].iter_mut().zip(line).for_each(|(x, left)| *x = kernel[0].mul_add(*left, *x));
    row.iter_mut().zip(line).for_each(|(x, here)| *x = kernel[1].mul_add(*here, *x));
    row[..width.saturating_sub(1)].iter_mut().zip(&line[1..]).for_each(|(x, right)| *x = kernel[2].mul_add(*right, *x));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::random::{mix, uniform};
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    fn drawn(seed: u64, n: usize) -> Vec<f32> {
        (0..n as u64).map(|i| uniform(mix(seed * 10_000 + i)) - 0.5).collect()
    }

    /// The layers of the authors' checkpoint: names, shapes, numbers.
    fn layers() -> Vec<(&'static str, Vec<usize>, Vec<f32>)> {
        let shapes: [(&str, &[usize]); 6] = [
            ("conv1.weight", &[16, 1, 3, 3]),
            ("conv1.bias", &[16]),
            ("conv2.weight", &[32, 16, 3, 3]),
            ("conv2.bias", &[32]),
            ("conv3.weight", &[1, 32, 1]),
            ("conv3.bias", &[1]),
        ];
        let layer = |(seed, (name, shape)): (u64, (&'static str, &[usize]))| {
            (name, shape.to_vec(), drawn(seed, shape.iter().product()))
        };
        (0..).zip(shapes).map(layer).collect()
    }

    fn written(tag: &str, layers: &[(&'static str, Vec<usize>, Vec<f32>)]) -> tempfile::NamedTempFile {
        let bytes: Vec<Vec<u8>> =
            layers.iter().map(|(_, _, x)| x.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
        let views = layers
            .iter()
            .zip(&bytes)
            .map(|((name, shape, _), data)| (*name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
        let file = tempfile::Builder::new().prefix(tag).tempfile().unwrap();
        std::fs::write(file.path(), safetensors::serialize(views, None).unwrap()).unwrap();
        file
    }

    /// One output number at a time, in f64.
    fn slow(image: &[Vec<f32>], layers: &[(&str, Vec<usize>, Vec<f32>)]) -> Vec<f64> {
        let (rows, width) = (image.len(), image[0].len());
        let convolved = |image: &[Vec<Vec<f64>>], weights: &[f32], bias: &[f32]| -> Vec<Vec<Vec<f64>>> {
            let cell = |o: usize, y: usize, x: usize| {
                let mut sum = bias[o] as f64;
                for (i, plane) in image.iter().enumerate() {
                    for (dy, dx) in (0..3).flat_map(|dy| (0..3).map(move |dx| (dy, dx))) {
                        let (yy, xx) = (y as i64 + dy - 1, x as i64 + dx - 1);
                        if (0..rows as i64).contains(&yy) && (0..width as i64).contains(&xx) {
                            let w = weights[((o * image.len() + i) * 3 + dy as usize) * 3 + dx as usize];
                            sum += w as f64 * plane[yy as usize][xx as usize];
                        }
                    }
                }
                sum.max(0.0)
            };
            let row = |o: usize, y: usize| (0..width).map(|x| cell(o, y, x)).collect();
            (0..bias.len()).map(|o| (0..rows).map(|y| row(o, y)).collect()).collect()
        };
        let wide = vec![image.iter().map(|row| row.iter().map(|&x| x as f64).collect()).collect()];
        let first = convolved(&wide, &layers[0].2, &layers[1].2);
        let second = convolved(&first, &layers[2].2, &layers[3].2);
        let mean = |plane: &Vec<Vec<f64>>, x: usize| plane.iter().map(|row| row[x]).sum::<f64>() / rows as f64;
        let score = |x: usize| second.iter().zip(&layers[4].2).map(|(p, &w)| mean(p, x) * w as f64).sum::<f64>();
        (0..width).map(|x| score(x) + layers[5].2[0] as f64).collect()
    }

    #[test]
    fn scores_are_those_of_the_layers_one_by_one() {
        let layers = layers();
        assert_eq!(layers.iter().map(|(_, _, x)| x.len()).sum::<usize>(), 4833);
        let file = written("good", &layers);
        let network = Network::read(file.path()).unwrap();
        for (rows, width) in [(64, 20), (3, 3), (1, 5), (2, 1)] {
            let image: Vec<Vec<f32>> = (0..rows).map(|y| drawn(90 + y, width)).collect();
            for (score, exact) in network.predict(&image).iter().zip(slow(&image, &layers)) {
                assert!((*score as f64 - exact).abs() < 1e-5 * (1.0 + exact.abs()), "{score} {exact}");
            }
        }
    }

    #[test]
    fn other_shapes_are_refused_by_name() {
        let mut layers = layers();
        layers[2].1 = vec![16, 32, 3, 3];
        let refused = |layers: &[_]| Network::read(written("bad", layers).path()).err().unwrap();
        assert_eq!(refused(&layers), "`conv2.weight` is [16, 32, 3, 3], not [32, 16, 3, 3]");
        assert_eq!(refused(&layers[..2]), "there is no tensor `conv2.weight`");
    }
}
