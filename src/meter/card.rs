//! What a card says of itself.

use serde::{Deserialize, Serialize};

/// One look at a card through NVML; `None`: the card, its driver or this user's rights do not give it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardSample {
    /// Since the look began, when it was put into a frame.
    pub age_ms: u32,
    /// Share of the driver's last sampling period in which a kernel ran, and in which memory was read or written, percent.
    pub busy_percent: Option<u32>,
    pub memory_busy_percent: Option<u32>,
    /// Memory of this process on the card, bytes.
    pub process_bytes: Option<u64>,
    /// Of all processes, and what the card has, bytes.
    pub used_bytes: Option<u64>,
    pub total_bytes: Option<u64>,
    pub power_mw: Option<u32>,
    pub power_limit_mw: Option<u32>,
    /// Degrees Celsius.
    pub temperature_c: Option<u32>,
    pub sm_mhz: Option<u32>,
    pub memory_mhz: Option<u32>,
    /// Over PCIe, kB/s as the card counts them.
    pub to_card_kb_s: Option<u32>,
    pub from_card_kb_s: Option<u32>,
    /// Why clocks are lower than they could be: NVML's bits.
    pub throttle: Option<u64>,
}

/// Older than this it says nothing about now.
const STALE_MS: u32 = 2_000;

/// NVML's nvmlClocksEventReasons (nvml.h).
const THROTTLES: [(u64, &str); 9] = [
    (0x1, "idle"),
    (0x2, "clocks set"),
    (0x4, "power cap"),
    (0x8, "hardware slowdown"),
    (0x10, "sync boost"),
    (0x20, "too hot (software)"),
    (0x40, "too hot (hardware)"),
    (0x80, "power brake"),
    (0x100, "display clocks"),
];

impl CardSample {
    pub fn is_stale(&self) -> bool {
        self.age_ms > STALE_MS
    }

    /// Why clocks are lower than they could be, in words; empty: they are not.
    pub fn throttled_by(&self) -> Option<Vec<&'static str>> {
        let bits = self.throttle?;
        Some(THROTTLES.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttle_bits_have_names() {
        let with = |throttle| CardSample { throttle, ..CardSample::default() }.throttled_by();
        assert_eq!(with(None), None);
        assert_eq!(with(Some(0)), Some(vec![]));
        assert_eq!(with(Some(0x44)), Some(vec!["power cap", "too hot (hardware)"]));
    }
}
