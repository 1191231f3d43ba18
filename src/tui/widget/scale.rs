//! From values to 0..=1, on a scale that has a name.

use crate::tui::panel::Choice;
use crate::tui::units;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Log,
    /// The share of values that are not larger.
    Percentile,
}

impl Choice for Scale {
    const ALL: &'static [Self] = &[Scale::Linear, Scale::Log, Scale::Percentile];

    fn name(self) -> &'static str {
        match self {
            Scale::Linear => "linear",
            Scale::Log => "log",
            Scale::Percentile => "percentile",
        }
    }
}

/// Decades that a log scale shows at most: what is smaller is drawn as its low end.
const DECADES: f32 = 4.0;

/// A scale fitted to values.
#[derive(Debug, Clone)]
pub struct Fitted {
    pub scale: Scale,
    pub low: f32,
    pub high: f32,
    /// For percentiles: all values, ascending.
    sorted: Vec<f32>,
}

impl Fitted {
    /// NaN and infinite values are left out of the fit. `None` where nothing is left.
    pub fn to(scale: Scale, values: impl Iterator<Item = f32>) -> Option<Self> {
        let mut usable: Vec<f32> = values.filter(|v| v.is_finite() && (scale != Scale::Log || *v > 0.0)).collect();
        let low = usable.iter().copied().reduce(f32::min)?;
        let high = usable.iter().copied().reduce(f32::max)?;
        match scale {
            Scale::Percentile => usable.sort_unstable_by(f32::total_cmp),
            _ => usable = Vec::new(),
        }
        let low = if scale == Scale::Log { low.max(high * 10f32.powf(-DECADES)) } else { low };
        Some(Self { scale, low, high, sorted: usable })
    }

    /// A linear scale between fixed ends.
    pub fn between(low: f32, high: f32) -> Self {
        Self { scale: Scale::Linear, low, high, sorted: Vec::new() }
    }

    /// Linear from zero to the largest value.
    pub fn from_zero(values: impl Iterator<Item = f32>) -> Option<Self> {
        Some(Self { low: 0.0, ..Self::to(Scale::Linear, values)? })
    }

    pub fn t(&self, value: f32) -> f32 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value / self.low).ln() / (self.high / self.low).ln(),
            Scale::Percentile => {
                let last = self.sorted.len().saturating_sub(1).max(1) as f32;
                self.sorted.partition_point(|v| *v < value) as f32 / last
            }
        };
        // All values equal: 0/0.
        if share.is_nan() && !value.is_nan() { 0.5 } else { share.clamp(0.0, 1.0) }
    }

    pub fn ends(&self) -> (String, String) {
        (units::number(self.low), units::number(self.high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scale_puts_its_middle_where_it_belongs() {
        let values = [1.0, 10.0, 100.0, f32::NAN];
        let t = |scale, v| Fitted::to(scale, values.into_iter()).unwrap().t(v);
        assert!((t(Scale::Linear, 50.5) - 0.5).abs() < 1e-6);
        assert!((t(Scale::Log, 10.0) - 0.5).abs() < 1e-6);
        assert!((t(Scale::Percentile, 10.0) - 0.5).abs() < 1e-6);
        assert_eq!((t(Scale::Log, 0.0), t(Scale::Log, 1e9)), (0.0, 1.0));
    }

    #[test]
    fn equal_values_sit_in_the_middle_and_no_values_have_no_scale() {
        assert_eq!(Fitted::to(Scale::Linear, [3.0, 3.0].into_iter()).unwrap().t(3.0), 0.5);
        assert!(Fitted::to(Scale::Log, [0.0, -1.0, f32::NAN].into_iter()).is_none());
    }

    #[test]
    fn a_log_scale_spans_four_decades_at_most() {
        let fitted = Fitted::to(Scale::Log, [1e-12, 1.0].into_iter()).unwrap();
        assert!((fitted.low - 1e-4).abs() < 1e-9);
    }
}
