//! What this card does at best, measured with its own copies and with the kernels that passes use.

use super::backend::CudaBackend;
use super::device::{Arg, Launch};
use super::memory::Memory;
use super::records::F32;
use super::self_test::bandwidth;
use crate::backend::Result;
use crate::engine::frame::Peaks;

/// Most that is copied; cards' caches hold some 50 MB.
const COPY: u64 = 512 << 20;
/// The best one counts: others on the card only ever take away.
const ROUNDS: usize = 5;

impl CudaBackend {
    pub(super) fn measured_peaks(&mut self) -> Result<Peaks> {
        let bytes = self.device.room().map_or(COPY, |free| (free / 8).clamp(1 << 12, COPY)) as usize;
        let copied = bandwidth(&self.device, bytes)?;
        // as many operations as fill a large card for some milliseconds, or, of a small emulated one, a moment
        let side = if bytes as u64 == COPY { 4096 } else { 64 };
        let flops = self.product_rate("product_many", [side, side], 64, 256, 0)?;
        let tensor = self.product_rate("product_tensor_128", [side, side], 128, 256, 65536)?;
        let how = format!(
            "memory: copying {} MiB, read and written, on the card; f32: product_many of {side} × {side} × {side}; \
             products: product_tensor_128 of the same, f32 as three products in TF32; the best of {ROUNDS}",
            bytes >> 20
        );
        Ok(Peaks { read_bytes_per_s: copied, flops_per_s: flops, product_flops_per_s: tensor, how: how.into() })
    }

    /// Operations per second of a product [rows, outs] of numbers that are 0.
    fn product_rate(
        &self,
        kernel: &'static str,
        [rows, outs]: [usize; 2],
        tile: usize,
        block: u32,
        shared: u32,
    ) -> Result<f64> {
        let device = &self.device;
        let (x, w) = (Memory::<f32>::new(device, rows * outs)?, Memory::<f32>::new(device, outs * outs)?);
        let out = Memory::<f32>::new(device, rows * outs)?;
        x.clear()?;
        w.clear()?;
        let int = |x: usize| Arg::Int(x as i32);
        let args = [x.arg(), int(rows), int(outs), w.arg(), Arg::Int(F32), int(outs), Arg::Pointer(0), out.arg()];
        let args = [&args[..], &[int(outs), Arg::Int(0), Arg::Int(0)]].concat();
        let grid = [outs.div_ceil(tile) as u32, rows.div_ceil(tile) as u32, 1];
        let launch = || device.launch(Launch { kernel, grid, block: [block, 1, 1], shared, args: &args });
        launch()?;
        device.clear_marks();
        let mut least = u64::MAX;
        for _ in 0..ROUNDS {
            let start = device.mark()?;
            launch()?;
            least = least.min(device.between(start, device.mark()?)?.max(1));
        }
        Ok(2.0 * (rows * outs * outs) as f64 / least as f64 * 1e9)
    }
}
