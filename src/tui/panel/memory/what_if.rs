//! The same model with another KV cache, by arithmetic: at any length of text, in any number type.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::{Entry, draw_entry};
use crate::engine::message::ModelInfo;
use crate::meter::kv::{Dtype, Terms, what_if};
use crate::model::kv_shape::KvShape;
use crate::tui::action::Action;
use crate::tui::seen::Seen;
use crate::tui::units;
use crate::tui::widget::put;

/// Shortest and longest text, tokens.
const SHORTEST: u64 = 1 << 8;
const LONGEST: u64 = 1 << 24;
const BATCHES: [u64; 3] = [1, 8, 64];
/// A line about the terms, the model as it is, and four changes.
pub const ROWS: u16 = 6;

/// What the sizes are for.
#[derive(Debug, Default)]
pub struct WhatIf {
    /// Tokens; `None`: what the model was made for.
    context: Option<u64>,
    dtype: Dtype,
    /// Index into [`BATCHES`].
    batch: usize,
}

impl WhatIf {
    fn terms(&self, model: &ModelInfo) -> Terms {
        let context = self.context.unwrap_or(model.context as u64);
        Terms { context, batch: BATCHES[self.batch], dtype: self.dtype }
    }

    /// True when the action was about this.
    pub fn act(&mut self, action: Action, model: &ModelInfo) -> bool {
        let context = self.terms(model).context;
        match action {
            Action::Faster => self.context = Some((2 * context.min(LONGEST)).clamp(SHORTEST, LONGEST)),
            Action::Slower => self.context = Some((context / 2).clamp(SHORTEST, LONGEST)),
            Action::ZoomReset => self.context = None,
            Action::Scale => self.dtype = self.dtype.next(),
            Action::Fold => self.batch = (self.batch + 1) % BATCHES.len(),
            _ => return false,
        }
        true
    }

    /// A line about the terms and one for each cache; nothing where there is no room for all. Returns the rows taken.
    pub fn draw(&self, buf: &mut Buffer, area: Rect, names: u16, seen: &Seen) -> u16 {
        let Some(model) = seen.model() else { return 0 };
        let (theme, terms) = (seen.theme, self.terms(model));
        let shape = KvShape::of_heads(model.kv_heads, model.head_dim, model.windows.iter().copied());
        let rows = what_if::rows(&shape);
        if area.height < ROWS {
            return 0;
        }
        put::at(buf, area, 0, 0, "what if", theme.soft());
        let codes = if terms.dtype.is_codes() { " codes alone" } else { "" };
        let words = format!("{} tokens × {} {}{codes}", units::count(terms.context), terms.batch, terms.dtype);
        put::at(buf, area, names, 0, &words, theme.accent());
        let all: Vec<Option<u64>> = rows.iter().map(|row| row.bytes(&terms)).collect();
        let most = all.iter().flatten().copied().max().unwrap_or(1);
        let whole = all.first().copied().flatten().unwrap_or(0);
        for (i, (row, bytes)) in rows.iter().zip(&all).enumerate().take(ROWS as usize - 1) {
            let y = i as u16 + 1;
            let Some(bytes) = *bytes else {
                put::at(buf, area, 0, y, &row.short, theme.base());
                put::at(buf, area, names, y, "no earlier layer of the kind to read", theme.faint());
                continue;
            };
            let remark = match i {
                0 => "derived".into(),
                _ => format!("{} of it", units::percent(bytes as f64 / whole.max(1) as f64)),
            };
            let fill = Style::new().fg(theme.lane(if i == 0 { 1 } else { 4 }));
            draw_entry(buf, area, y, names, seen, &Entry { name: &row.short, bytes, of: most, fill, remark: &remark });
        }
        ROWS
    }
}
