//! A short check that a device runs our kernels and gets their numbers right, and how fast its memory is: peaks are
//! measured here, not read from a datasheet.

use std::sync::Arc;

use super::device::{Arg, Device, Launch};
use super::memory::Memory;
use crate::backend::{BackendError, Result};

/// Copies of which the median counts.
const COPIES: usize = 5;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Largest |error| of a kernel's results against f64, of numbers up to 16.
    pub error: f32,
    /// Memory read and written together while copying, bytes per second.
    pub bandwidth: f64,
    /// Of one copy.
    pub bytes: usize,
}

/// `bytes`: of the copy, from which the bandwidth comes; far more than the caches hold.
///
/// # Errors
/// Where the device fails, or its numbers are wrong.
pub fn self_test(device: &Arc<dyn Device>, bytes: usize) -> Result<Measured> {
    let error = gated(device)?;
    // f32 rounding of a handful of operations on numbers up to 16
    if error.is_nan() || error > 2e-5 {
        let why = format!("the kernel gated is wrong by {error:e}: the card or its driver cannot be trusted");
        return Err(BackendError::Failed { what: "self-test".into(), why });
    }
    Ok(Measured { error, bandwidth: bandwidth(device, bytes)?, bytes })
}

/// Largest error of silu(gate) · up.
fn gated(device: &Arc<dyn Device>) -> Result<f32> {
    let (width, rows) = (1000, 3);
    let x: Vec<f32> = (0..rows * 2 * width).map(|i| (i * 2_654_435 % 8191) as f32 / 1024.0 - 4.0).collect();
    let (from, to) = (Memory::of(device, &x)?, Memory::<f32>::new(device, rows * width)?);
    let args = [from.arg(), Arg::Pointer(0), (width as i32).into(), 0.into(), to.arg()];
    let grid = [width.div_ceil(256) as u32, rows as u32, 1];
    device.launch(Launch { kernel: "gated", grid, block: [256, 1, 1], shared: 0, args: &args })?;
    let error = |(i, found): (usize, f32)| {
        let at = |half: usize| f64::from(x[(i / width * 2 + half) * width + i % width]);
        (f64::from(found) - at(0) / (1.0 + (-at(0)).exp()) * at(1)).abs() as f32
    };
    Ok(to.read(0, rows * width)?.into_iter().enumerate().map(error).fold(0.0, nan_or_max))
}

/// The larger one; NaN is never lost.
fn nan_or_max(a: f32, b: f32) -> f32 {
    if b.is_nan() || b > a { b } else { a }
}

/// Memory read and written together while copying `bytes`, bytes per second.
pub fn bandwidth(device: &Arc<dyn Device>, bytes: usize) -> Result<f64> {
    let (from, to) = (Memory::<u8>::new(device, bytes)?, Memory::<u8>::new(device, bytes)?);
    from.clear()?;
    device.copy(from.at(0), to.at(0), bytes)?;
    device.clear_marks();
    let mut times = Vec::new();
    for _ in 0..COPIES {
        let start = device.mark()?;
        device.copy(from.at(0), to.at(0), bytes)?;
        times.push(device.between(start, device.mark()?)?);
    }
    times.sort_unstable();
    Ok(2.0 * bytes as f64 / times[COPIES / 2].max(1) as f64 * 1e9)
}
