//! `attnscope bench --kernels`: kernels alone on a card.

use std::sync::Arc;

use miette::Result;
use serde::Serialize;

use super::Args;
use crate::backend::BackendError;
use crate::backend::cuda::device::Device;
use crate::backend::cuda::driver::Driver;
use crate::backend::cuda::measure::{Measures, Sizes, measure};
use crate::cli::exit::{Interrupted, Usage};
use crate::cli::interrupt::Interrupt;
use crate::cli::output::{print, print_json};
use crate::cli::session::{tell, told};
use crate::engine::{self, EngineError};
use crate::tui::text::line;

#[derive(Serialize)]
struct Report {
    schema: u32,
    /// Of each figure: the median of so many.
    repeats: usize,
    #[serde(flatten)]
    measures: Measures,
}

pub fn run(args: &Args) -> Result<()> {
    let card = match args.model.device {
        engine::Device::Auto => 0,
        engine::Device::Cuda(card) => card,
        engine::Device::Cpu => {
            let help = "leave --device out, or name a card with --device cuda:N";
            return Err(Usage::new("--kernels measures kernels on a card, not on the CPU", help).into());
        }
    };
    let interrupt = Interrupt::watch()?;
    let device: Arc<dyn Device> = Arc::new(Driver::open(card)?);
    let sizes = if args.tiny { Sizes::tiny() } else { Sizes::full() };
    let measures = measure(&device, &sizes, &mut |what| {
        tell(what);
        interrupt.check().map_err(|_| BackendError::Interrupted)
    });
    told();
    let measures = match measures {
        Err(BackendError::Interrupted) => return Err(Interrupted.into()),
        measures => measures.map_err(EngineError::from)?,
    };
    match args.json {
        true => print_json(&Report { schema: 1, repeats: sizes.repeats, measures })?,
        false => print(text(&measures, &sizes).trim_end())?,
    }
    Ok(())
}

fn text(measures: &Measures, sizes: &Sizes) -> String {
    let device = line(&measures.device);
    let copy = measures.copy_bytes_s / 1e9;
    let mut out =
        format!("{device}: copying {copy:.0} GB/s, read and written together; medians of {}\n", sizes.repeats);
    let mut row = |text: String| out.push_str(&(text + "\n"));
    row(format!("\n{:28} {:>8} {:>10} {:>8} {:>10}", "products", "MB", "µs", "GB/s", "of copying"));
    for p in &measures.products {
        let name = format!("{} of {} in {}", p.kernel, p.format, p.width);
        row(format!("  {name:26} {}", speed(p.bytes, p.us, p.gb_s, p.share)));
    }
    row(format!("\n{:28} {:>10} {:>14} {:>10}", "sampling, µs", "in one", "product alone", "MB saved"));
    for s in &measures.sampling {
        let name = format!("{} × {}, {} rows", s.vocab, s.width, s.batch);
        let saved = s.bytes_saved as f64 / 1e6;
        row(format!("  {name:26} {:10.1} {:14.1} {saved:10.1}", s.flash_us, s.product_us));
    }
    row(format!("\n{:28} {:>8} {:>10} {:>8} {:>10}", "maps", "ms", "with copy", "MB", "of half"));
    for m in &measures.maps {
        let name = format!("{} positions, D {}, {}", m.positions, m.dim, m.fold);
        let [bytes, half] = [m.bytes, m.bytes_of_half].map(|bytes| bytes as f64 / 1e6);
        row(format!("  {name:26} {:8.3} {:10.3} {bytes:8.1} {half:10.1}", m.ms, m.whole_ms));
    }
    row(format!("\n{:28} {:>8} {:>10} {:>8} {:>10}", "decode attention, a layer", "MB", "µs", "GB/s", "of copying"));
    for a in &measures.attention {
        let name = format!("{} lanes, {} slots", a.lanes, a.slots);
        row(format!("  {name:26} {}", speed(a.bytes, a.us, a.gb_s, a.share)));
    }
    out
}

fn speed(bytes: usize, us: f64, gb_s: f64, share: f64) -> String {
    format!("{:8.1} {us:10.1} {gb_s:8.1} {:8.1} %", bytes as f64 / 1e6, 100.0 * share)
}
