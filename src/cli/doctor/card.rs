//! What a card is doing, in one line.

use indicatif::HumanBytes;

use crate::meter::card::CardSample;

/// A dash for what the card does not tell.
pub fn words(sample: &CardSample) -> String {
    let or_dash = |words: Option<String>| words.unwrap_or_else(|| "–".into());
    let percent = |share: Option<u32>| or_dash(share.map(|share| format!("{share} %")));
    let bytes = |bytes: Option<u64>| or_dash(bytes.map(|bytes| HumanBytes(bytes).to_string()));
    let watts = |mw: Option<u32>| or_dash(mw.map(|mw| format!("{} W", mw / 1000)));
    let mhz = |mhz: Option<u32>| or_dash(mhz.map(|mhz| format!("{mhz} MHz")));
    let rate = |kb: Option<u32>| or_dash(kb.map(|kb| format!("{:.1} MB/s", f64::from(kb) / 1e3)));
    let held_down = match sample.throttled_by() {
        None => "–".into(),
        Some(by) if by.is_empty() => "by nothing".into(),
        Some(by) => by.join(", "),
    };
    [
        format!("busy {}", percent(sample.busy_percent)),
        format!("memory busy {}", percent(sample.memory_busy_percent)),
        format!("{} of {} used", bytes(sample.used_bytes), bytes(sample.total_bytes)),
        format!("{} of {}", watts(sample.power_mw), watts(sample.power_limit_mw)),
        or_dash(sample.temperature_c.map(|degrees| format!("{degrees} °C"))),
        format!("SM {}", mhz(sample.sm_mhz)),
        format!("memory {}", mhz(sample.memory_mhz)),
        format!("to card {}", rate(sample.to_card_kb_s)),
        format!("from card {}", rate(sample.from_card_kb_s)),
        format!("clocks held down: {held_down}"),
    ]
    .join(", ")
}
