//! Results against budgets: one plot for each task, drawn on a terminal or as SVG.

mod svg;
mod terminal;

use super::report::{Report, Row, Spread};
use super::table::by_task;

pub use svg::svg;
pub use terminal::draw;

/// One task.
#[derive(Debug, PartialEq)]
pub struct Plot {
    pub title: String,
    /// Values are shares from 0 to 1; otherwise nats.
    pub shares: bool,
    /// Lowest and highest of the axis.
    pub range: (f32, f32),
    /// The full cache's value.
    pub full: Option<f32>,
    /// All plots of a report have the same series, in the same order.
    pub series: Vec<Series>,
}

/// One policy.
#[derive(Debug, PartialEq)]
pub struct Series {
    pub name: String,
    /// By budget, in the order of the report.
    pub points: Vec<Point>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// What the policy was given; "own" where it came with its budget.
    pub budget: String,
    /// Share of the entries that it held.
    pub kept: f32,
    pub value: Spread,
}

pub fn plots(report: &Report) -> Vec<Plot> {
    by_task(report).iter().filter_map(|(task, rows)| plot(task, rows)).collect()
}

/// `None` where nothing was measured. Accuracy where answers are right or wrong, otherwise NLL.
fn plot(task: &str, rows: &[&Row]) -> Option<Plot> {
    let shares = rows.iter().any(|row| row.accuracy.is_some());
    let value = |row: &Row| if shares { row.accuracy } else { row.nll };
    let mut series: Vec<Series> = Vec::new();
    for row in rows.iter().filter(|row| row.policy != "full") {
        let Some(value) = value(row) else { continue };
        let point = Point { budget: row.budget.clone().unwrap_or_else(|| "own".into()), kept: row.kept, value };
        match series.iter_mut().find(|one| one.name == row.policy) {
            Some(one) => one.points.push(point),
            None => series.push(Series { name: row.policy.clone(), points: vec![point] }),
        }
    }
    let full = rows.iter().find(|row| row.policy == "full").and_then(|row| value(row)).map(|value| value.mean);
    let all = || series.iter().flat_map(|one| &one.points).map(|point| point.value.mean).chain(full);
    let range = match shares {
        true => (0.0, 1.0),
        false => {
            let (low, high) = (all().reduce(f32::min)?, all().reduce(f32::max)?);
            (low, if high - low < 1e-6 { low + 1.0 } else { high })
        }
    };
    all().next()?;
    let what = if shares { "answers found" } else { "NLL, nats per token" };
    Some(Plot { title: format!("{task}: {what}"), shares, range, full, series })
}

impl Plot {
    /// Where in the range a value lies, 0 = lowest, 1 = highest.
    pub fn height(&self, value: f32) -> f32 {
        ((value - self.range.0) / (self.range.1 - self.range.0)).clamp(0.0, 1.0)
    }

    /// What stands at the axis at this height.
    pub fn label(&self, height: f32) -> String {
        let value = self.range.0 + height * (self.range.1 - self.range.0);
        if self.shares { format!("{:.0} %", 100.0 * value) } else { format!("{value:.2}") }
    }

    /// Of all series, each once.
    pub fn budgets(&self) -> Vec<&str> {
        let mut all: Vec<&str> = Vec::new();
        for point in self.series.iter().flat_map(|one| &one.points) {
            if !all.contains(&point.budget.as_str()) {
                all.push(&point.budget);
            }
        }
        all
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn example() -> Plot {
        let spread = |mean: f32| Spread { mean, sd: Some(0.1), seeds: 2 };
        let point = |budget: &str, kept, mean| Point { budget: budget.into(), kept, value: spread(mean) };
        let series =
            |name: &str, a, b| Series { name: name.into(), points: vec![point("25%", 0.25, a), point("50%", 0.5, b)] };
        Plot {
            title: "needle: answers found".into(),
            shares: true,
            range: (0.0, 1.0),
            full: Some(1.0),
            series: vec![series("knorm", 0.0, 1.0), series("h2o<&>", 0.0, 0.5)],
        }
    }

    #[test]
    fn values_lie_in_the_range() {
        let plot = Plot { shares: false, range: (2.0, 4.0), ..example() };
        assert_eq!((plot.height(3.0), plot.height(9.0), plot.label(0.5)), (0.5, 1.0, "3.00".into()));
        assert_eq!(example().budgets(), ["25%", "50%"]);
    }
}
