//! How fast the kernels are alone, on memory of a real model's size whose contents are known: what each computed is
//! checked before its time counts.

mod attention;
mod clock;
mod maps;
mod product;
mod sampling;
mod sizes;

use std::sync::Arc;

use serde::Serialize;

use super::device::Device;
use super::self_test::self_test;
use crate::backend::{BackendError, Result};
pub use attention::Attention;
pub use maps::Map;
pub use product::Product;
pub use sampling::Sampling;
pub use sizes::Sizes;

/// What was measured: medians.
#[derive(Debug, Serialize)]
pub struct Measures {
    pub device: String,
    /// Memory read and written together while copying, bytes per second.
    pub copy_bytes_s: f64,
    pub products: Vec<Product>,
    pub sampling: Vec<Sampling>,
    pub maps: Vec<Map>,
    pub attention: Vec<Attention>,
}

/// `tell` hears what comes next, and stops it with an error.
///
/// # Errors
/// Where the device fails, its memory is too small, or a kernel's numbers are wrong.
pub fn measure(device: &Arc<dyn Device>, sizes: &Sizes, tell: &mut dyn FnMut(&str) -> Result<()>) -> Result<Measures> {
    tell("copying")?;
    let copy_bytes_s = self_test(device, sizes.copy)?.bandwidth;
    let mut measures = Measures {
        device: device.describe(),
        copy_bytes_s,
        products: Vec::new(),
        sampling: Vec::new(),
        maps: Vec::new(),
        attention: Vec::new(),
    };
    for &width in &sizes.widths {
        for format in product::FORMATS {
            tell(&format!("products with {format} weights of width {width}"))?;
            measures.products.extend(product::measure(device, sizes, format, width, copy_bytes_s)?);
        }
    }
    for &head in &sizes.heads {
        tell(&format!("sampling from {} tokens", head.vocab))?;
        measures.sampling.extend(sampling::measure(device, sizes, head)?);
    }
    for &map in &sizes.maps {
        tell(&format!("maps of {} positions", map.positions))?;
        measures.maps.extend(maps::measure(device, sizes, map)?);
    }
    for &slots in &sizes.slots {
        for &lanes in &sizes.lanes {
            tell(&format!("attention of {lanes} lanes to {slots} slots"))?;
            measures.attention.push(attention::measure(device, sizes, slots, lanes, copy_bytes_s)?);
        }
    }
    Ok(measures)
}

/// `found` is `expected`, but for `off`; NaN is nothing.
fn check(kernel: &str, found: f32, expected: f64, off: f64) -> Result<()> {
    if (f64::from(found) - expected).abs() <= off {
        return Ok(());
    }
    let why = format!("{found:e} instead of {expected:e}: no time is given for wrong numbers");
    Err(BackendError::Failed { what: format!("measuring {kernel}"), why })
}
