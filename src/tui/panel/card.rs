//! What the card says of itself: load, memory, power, temperature, clocks, PCIe, and what holds its clocks down.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Span;

use crate::engine::frame::CardSample;
use crate::tui::panel::{Caption, Panel};
use crate::tui::seen::Seen;
use crate::tui::widget::{bar, put};
use crate::tui::{text, units};

pub struct Card;

/// One line: a name, its words, and the number whose history is drawn.
struct Entry {
    name: &'static str,
    words: fn(&CardSample) -> Option<String>,
    number: Option<fn(&CardSample) -> Option<u32>>,
}

fn of<T>(value: Option<T>, limit: Option<T>, words: impl Fn(T) -> String) -> Option<String> {
    let value = words(value?);
    Some(limit.map_or(value.clone(), |limit| format!("{value} of {}", words(limit))))
}

fn watts(mw: u32) -> String {
    format!("{:.0} W", f64::from(mw) / 1e3)
}

fn megabytes(kb: u32) -> String {
    format!("{:.1} MB/s", f64::from(kb) / 1e3)
}

const ENTRIES: [Entry; 11] = [
    Entry { name: "busy", words: |c| c.busy_percent.map(|n| format!("{n} %")), number: Some(|c| c.busy_percent) },
    Entry {
        name: "memory busy",
        words: |c| c.memory_busy_percent.map(|n| format!("{n} %")),
        number: Some(|c| c.memory_busy_percent),
    },
    Entry { name: "memory", words: |c| of(c.used_bytes, c.total_bytes, units::bytes), number: None },
    Entry { name: "this process", words: |c| c.process_bytes.map(units::bytes), number: None },
    Entry { name: "power", words: |c| of(c.power_mw, c.power_limit_mw, watts), number: Some(|c| c.power_mw) },
    Entry {
        name: "temperature",
        words: |c| c.temperature_c.map(|n| format!("{n} °C")),
        number: Some(|c| c.temperature_c),
    },
    Entry { name: "SM clock", words: |c| c.sm_mhz.map(|n| format!("{n} MHz")), number: Some(|c| c.sm_mhz) },
    Entry { name: "memory clock", words: |c| c.memory_mhz.map(|n| format!("{n} MHz")), number: Some(|c| c.memory_mhz) },
    Entry { name: "to card", words: |c| c.to_card_kb_s.map(megabytes), number: Some(|c| c.to_card_kb_s) },
    Entry { name: "from card", words: |c| c.from_card_kb_s.map(megabytes), number: Some(|c| c.from_card_kb_s) },
    Entry {
        name: "held down by",
        words: |c| c.throttled_by().map(|by| if by.is_empty() { "nothing".into() } else { by.join(", ") }),
        number: None,
    },
];

const NAMES: u16 = 14;
const WORDS: u16 = 22;

impl Panel for Card {
    fn name(&self) -> &'static str {
        "card"
    }

    fn caption<'a>(&'a self, _area: Rect, seen: &Seen<'a>) -> Caption<'a> {
        let Some(card) = seen.frame().and_then(|frame| frame.card.as_ref()) else { return Caption::default() };
        let age = units::nanos(f64::from(card.age_ms) * 1e6);
        let (words, style) = match card.is_stale() {
            true => (format!("no answer for {age} "), seen.theme.strong()),
            false => (format!("{age} before the step's end "), seen.theme.soft()),
        };
        let legend = vec![Span::styled(" measured by NVML · history by step ", seen.theme.faint())];
        Caption { facts: Span::styled(words, style).into(), legend: legend.into() }
    }

    fn draw(&self, area: Rect, buf: &mut Buffer, seen: &Seen) {
        let theme = seen.theme;
        if put::waiting(buf, area, seen) {
            return;
        }
        let Some(card) = seen.frame().and_then(|frame| frame.card.as_ref()) else {
            let device =
                seen.model().map_or(String::new(), |m| format!(": the model runs on {}", text::line(&m.device)));
            put::note(buf, area, &format!("no card is watched{device}"), theme.soft());
            return;
        };
        let columns = area.width.saturating_sub(NAMES + WORDS) as usize;
        let frames = &seen.session.frames()[..=seen.at.unwrap_or(0)];
        let recent = &frames[frames.len().saturating_sub(columns)..];
        for (y, entry) in ENTRIES.iter().enumerate().take(area.height as usize) {
            let y = y as u16;
            put::at(buf, area, 0, y, entry.name, theme.soft());
            match (entry.words)(card) {
                None => put::at(buf, area, NAMES, y, "not measured", theme.faint()),
                Some(words) if card.is_stale() => put::at(buf, area, NAMES, y, &words, theme.faint()),
                Some(words) => put::at(buf, area, NAMES, y, &words, theme.strong()),
            };
            let Some(number) = entry.number.filter(|_| columns >= 4) else { continue };
            let known = |card: &CardSample| number(card).filter(|_| !card.is_stale());
            let history: Vec<Option<f32>> =
                recent.iter().map(|frame| frame.card.as_ref().and_then(known).map(|n| n as f32)).collect();
            if history.iter().any(Option::is_some) {
                let style = if card.is_stale() { theme.faint() } else { theme.accent() };
                put::at(buf, area, NAMES + WORDS, y, &bar::spark(&history, columns), style);
            }
        }
    }
}
