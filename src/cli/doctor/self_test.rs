//! Kernels run on a card, their numbers compared, its memory's speed measured.

use std::sync::Arc;

use indicatif::HumanBytes;
use miette::Result;

use super::Section;
use crate::backend::cuda::device::Device;
use crate::backend::cuda::driver::Driver;
use crate::backend::cuda::self_test::self_test;
use crate::engine::EngineError;

/// Most that is copied at a time to measure the memory.
const COPY: u64 = 1 << 30;

pub fn run(card: u32) -> Result<Section> {
    let mut section = Section::new("self-test");
    let driver = Arc::new(Driver::open(card)?);
    let (free, total) = driver.memory()?;
    section.fact(format!("card {card}"), driver.describe());
    section.fact("memory", format!("{} of {} free", HumanBytes(free), HumanBytes(total)));
    let device: Arc<dyn Device> = driver.clone();
    let measured = self_test(&device, COPY.min(free / 4) as usize).map_err(EngineError::from)?;
    section.fact("kernels", format!("right: largest error {:.1e} of numbers up to 16", measured.error));
    let (speed, bytes) = (measured.bandwidth / 1e9, HumanBytes(measured.bytes as u64));
    section.fact("copying", format!("{speed:.0} GB/s, read and written together; {bytes}, median of 5"));
    driver.notes().into_iter().for_each(|note| section.warn("note", note));
    Ok(section)
}
