//! What a device does at best, measured on it and not read from a datasheet.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Measured once for a run, by the backend that runs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peaks {
    /// Bytes read from memory per second.
    pub read_bytes_per_s: f64,
    /// Operations on f32 per second, two to a multiply-add.
    pub flops_per_s: f64,
    /// The same in the product kernel with weights as the model has them, which may go another way: 8-bit activations,
    /// tensor cores.
    pub product_flops_per_s: f64,
    /// How each of the three was measured.
    pub how: Arc<str>,
}

impl Peaks {
    /// Operations per second to compare with; `product`: of a product with weights.
    pub fn flops(&self, product: bool) -> f64 {
        if product { self.product_flops_per_s } else { self.flops_per_s }
    }

    /// All three are numbers of a device.
    pub fn is_sound(&self) -> bool {
        let rates = [self.read_bytes_per_s, self.flops_per_s, self.product_flops_per_s];
        rates.iter().all(|rate| rate.is_finite() && *rate > 0.0)
    }
}
