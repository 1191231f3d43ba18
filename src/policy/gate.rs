//! Weights of gates over what a layer's attention is given: one small network a layer, read from a safetensors file.

use std::path::{Path, PathBuf};

use super::part::Sizes;
use super::product::Matrix;
use super::tensor_file::{Tensors, Weights};

/// y = W x + b over rows.
pub(super) struct Linear {
    /// [out, in] row-major.
    weight: Vec<f32>,
    /// [out]
    bias: Vec<f32>,
    inputs: usize,
}

/// A gate of each layer: one linear map, or two with GELU between.
pub(super) struct Gates {
    path: PathBuf,
    layers: Vec<(Linear, Option<Linear>)>,
}

impl Linear {
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Rows [n, in] → [n, out].
    fn apply(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = Matrix::of(rows, self.inputs).times(Matrix::of(&self.weight, self.inputs).turned());
        for row in out.chunks_exact_mut(self.outputs()) {
            row.iter_mut().zip(&self.bias).for_each(|(y, b)| *y += b);
        }
        out
    }
}

/// The exact GELU: x·Φ(x), Φ by the complementary error function's series of Abramowitz and Stegun 7.1.26 (1.5e-7).
fn gelu(x: f32) -> f32 {
    let z = (x.abs() / std::f32::consts::SQRT_2) as f64;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series =
        t * (0.254_829_592 + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let erf = 1.0 - series * (-z * z).exp();
    (x as f64 * 0.5 * (1.0 + erf.copysign(x as f64))) as f32
}

impl Gates {
    /// `layers.N.weight` [kv heads, hidden] and `layers.N.bias` [kv heads], or `layers.N.0.weight` [width, hidden],
    /// `layers.N.0.bias`, `layers.N.2.weight` [kv heads, width], `layers.N.2.bias` of every layer N from 0 on; f32, f16
    /// or bf16. Fails with a sentence about what is wrong with the file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let about = |why: String| format!("cannot use `{}`: {why}", path.display());
        let weights = Weights::open(path).map_err(about)?;
        let tensors = weights.tensors().map_err(about)?;
        let mut layers = Vec::new();
        loop {
            let name = |part: &str| format!("layers.{}{part}", layers.len());
            let has = |part: &str| tensors.has(&name(part));
            let linear = |part: &str| linear(&tensors, &name(part));
            layers.push(match (has(".weight"), has(".0.weight")) {
                (true, _) => (linear("").map_err(about)?, None),
                (_, true) => (linear(".0").map_err(about)?, Some(linear(".2").map_err(about)?)),
                _ if layers.is_empty() => return Err(about("there is no tensor `layers.0.weight`".into())),
                _ => break,
            });
        }
        for (number, (first, second)) in layers.iter().enumerate() {
            if second.as_ref().is_some_and(|second| second.inputs != first.outputs()) {
                return Err(about(format!("the two maps of layer {number} do not fit each other")));
            }
        }
        Ok(Self { path: path.into(), layers })
    }

    /// Fails with the reason where the gates are for another model.
    pub fn fits(&self, model: Sizes) -> Result<(), String> {
        let of =
            |(first, second): &(Linear, Option<Linear>)| (second.as_ref().unwrap_or(first).outputs(), first.inputs);
        let found = self.layers.first().map_or((0, 0), of);
        let wanted = (model.kv_heads, model.hidden);
        if self.layers.len() == model.layers && self.layers.iter().all(|layer| of(layer) == wanted) {
            return Ok(());
        }
        Err(format!(
            "{} has gates of {} layers and {} heads over a width of {}, the model needs {}, {} and {}",
            self.path.display(),
            self.layers.len(),
            found.0,
            found.1,
            model.layers,
            wanted.0,
            wanted.1
        ))
    }

    /// What the gate of `layer` says about `inputs` [n, hidden] → [n, kv heads]; `None` where they are of another width.
    pub fn of(&self, layer: usize, inputs: &[f32], rows: usize) -> Option<Vec<f32>> {
        let (first, second) = self.layers.get(layer)?;
        if inputs.len() != rows * first.inputs {
            return None;
        }
        let mut out = first.apply(inputs);
        if let Some(second) = second {
            out.iter_mut().for_each(|x| *x = gelu(*x));
            out = second.apply(&out);
        }
        Some(out)
    }
}

fn linear(tensors: &Tensors<'_>, name: &str) -> Result<Linear, String> {
    let (outputs, inputs, weight) = tensors.matrix(&format!("{name}.weight"))?;
    let (_, bias) = tensors.numbers(&format!("{name}.bias"))?;
    match outputs == bias.len() {
        true => Ok(Linear { weight, bias, inputs }),
        false => Err(format!("`{name}` has a weight of shape [{outputs}, {inputs}] and a bias of {}", bias.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tensor_file::tests::file;
    use crate::policy::testing::sizes;

    #[test]
    fn gelu_is_x_times_the_normal_distribution() {
        for (x, y) in [(0.0, 0.0), (1.0, 0.841_344_7), (-1.0, -0.158_655_3), (3.0, 2.995_950_3), (-8.0, 0.0)] {
            assert!((gelu(x) - y).abs() < 1e-6, "{x}: {}", gelu(x));
        }
    }

    #[test]
    fn two_maps_with_gelu_between() {
        let file = file(
            &[
                ("layers.0.0.weight", &[2, 2], &[1.0, 0.0, 0.0, 1.0]),
                ("layers.0.0.bias", &[2], &[0.0, 1.0]),
                ("layers.0.2.weight", &[1, 2], &[2.0, -1.0]),
                ("layers.0.2.bias", &[1], &[0.5]),
            ],
            &[],
        );
        let gates = Gates::read(file.path()).unwrap();
        let y = gates.of(0, &[1.0, 0.0, 3.0, -1.0], 2).unwrap();
        let expected = [2.0 * gelu(1.0) - gelu(1.0) + 0.5, 2.0 * gelu(3.0) - gelu(0.0) + 0.5];
        assert!(y.iter().zip(expected).all(|(y, e)| (y - e).abs() < 1e-6), "{y:?}");
        let model = Sizes { hidden: 2, ..sizes(1, 1, 4) };
        assert_eq!(gates.fits(model), Ok(()));
        let others = [Sizes { layers: 2, ..model }, Sizes { kv_heads: 3, ..model }, Sizes { hidden: 4, ..model }];
        assert!(others.iter().all(|other| gates.fits(*other).is_err()));
        assert_eq!(gates.of(0, &[1.0, 2.0, 3.0], 1), None, "another width");
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let wrong = |tensors: &[(&str, &[usize], &[f32])]| Gates::read(file(tensors, &[]).path()).err().unwrap();
        assert!(wrong(&[("other", &[1], &[0.0])]).contains("`layers.0.weight`"));
        assert!(wrong(&[("layers.0.weight", &[1, 2], &[0.0; 2])]).contains("`layers.0.bias`"));
        let shapes: &[(&str, &[usize], &[f32])] =
            &[("layers.0.weight", &[1, 2], &[0.0; 2]), ("layers.0.bias", &[2], &[0.0; 2])];
        assert!(wrong(shapes).contains("shape [1, 2]"));
        let nan: &[(&str, &[usize], &[f32])] =
            &[("layers.0.weight", &[1, 1], &[f32::NAN]), ("layers.0.bias", &[1], &[0.0])];
        assert!(wrong(nan).contains("not finite"));
        assert!(Gates::read(Path::new("/")).err().unwrap().contains("not a plain file"));
    }
}
