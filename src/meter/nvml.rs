//! A card's own figures, through NVML. Opened by the very file that the search for CUDA's libraries finds.

use std::path::Path;

use nvml_wrapper::enum_wrappers::device::{Clock, PcieUtilCounter, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::card::CardSample;
use super::watch::Look;
use crate::backend::cuda::libraries::{Library, find};
use crate::backend::cuda::system::ThisMachine;

/// A card as NVML numbers them, which may be another order than CUDA's, or by its UUID (`GPU-…`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    Index(u32),
    Uuid(String),
}

/// A card through an open library.
pub struct Card {
    nvml: Nvml,
    which: Which,
}

impl Card {
    /// Says what is missing otherwise. May hang where the driver does.
    pub fn open(which: Which) -> Result<Self, String> {
        let found = find(&ThisMachine, Library::Nvml, None).found;
        let found = found.ok_or("no NVML library found: attnscope doctor tells where it was looked for")?;
        Self::at(&found.opened_by, which)
    }

    /// With the library at `path`.
    pub fn at(path: &Path, which: Which) -> Result<Self, String> {
        let nvml = Nvml::builder().lib_path(path.as_os_str()).init().map_err(|error| format!("NVML: {error}"))?;
        let card = Self { nvml, which };
        card.device().map_err(|error| format!("NVML, {:?}: {error}", card.which))?;
        Ok(card)
    }

    fn device(&self) -> Result<Device<'_>, NvmlError> {
        match &self.which {
            Which::Index(index) => self.nvml.device_by_index(*index),
            Which::Uuid(uuid) => self.nvml.device_by_uuid(uuid.as_str()),
        }
    }
}

impl Look for Card {
    fn look(&mut self, in_time: &dyn Fn() -> bool) -> Option<CardSample> {
        let device = self.device().ok()?;
        let mut sample = CardSample::default();
        for field in FIELDS {
            field(&device, &mut sample);
            if !in_time() {
                return None;
            }
        }
        Some(sample)
    }
}

/// One call of the driver each, but for PCIe, which takes the card two times 20 ms to measure.
const FIELDS: [fn(&Device<'_>, &mut CardSample); 9] =
    [utilization, memory, process, power, power_limit, temperature, clocks, pcie, throttle];

fn utilization(device: &Device<'_>, sample: &mut CardSample) {
    if let Ok(rates) = device.utilization_rates() {
        (sample.busy_percent, sample.memory_busy_percent) = (Some(rates.gpu), Some(rates.memory));
    }
}

fn memory(device: &Device<'_>, sample: &mut CardSample) {
    if let Ok(memory) = device.memory_info() {
        (sample.used_bytes, sample.total_bytes) = (Some(memory.used), Some(memory.total));
    }
}

/// In a container the driver may number processes otherwise: then none of them is this one.
fn process(device: &Device<'_>, sample: &mut CardSample) {
    let all = device.running_compute_processes().unwrap_or_default();
    let own = all.iter().filter(|process| process.pid == std::process::id());
    let bytes = own.filter_map(|process| match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    });
    // Once for each instance of a card that is split up.
    sample.process_bytes = bytes.reduce(u64::saturating_add);
}

fn power(device: &Device<'_>, sample: &mut CardSample) {
    sample.power_mw = device.power_usage().ok();
}

fn power_limit(device: &Device<'_>, sample: &mut CardSample) {
    sample.power_limit_mw = device.enforced_power_limit().ok();
}

fn temperature(device: &Device<'_>, sample: &mut CardSample) {
    sample.temperature_c = device.temperature(TemperatureSensor::Gpu).ok();
}

fn clocks(device: &Device<'_>, sample: &mut CardSample) {
    sample.sm_mhz = device.clock_info(Clock::SM).ok();
    sample.memory_mhz = device.clock_info(Clock::Memory).ok();
}

/// NVML counts from the card's side: what it receives goes to the card.
fn pcie(device: &Device<'_>, sample: &mut CardSample) {
    sample.to_card_kb_s = device.pcie_throughput(PcieUtilCounter::Receive).ok();
    sample.from_card_kb_s = device.pcie_throughput(PcieUtilCounter::Send).ok();
}

fn throttle(device: &Device<'_>, sample: &mut CardSample) {
    sample.throttle = device.current_throttle_reasons().ok().map(|reasons| reasons.bits());
}
