//! Plots as one SVG picture: a panel for each task, a line for each policy over the share of entries that it held, with
//! whiskers of one standard deviation over seeds, and the full cache as a dashed line.

use std::fmt::Write;

use super::{Plot, Point};

const WIDTH: f32 = 460.0;
const HEIGHT: f32 = 320.0;
/// Around the axes: left, right, top, bottom.
const MARGIN: (f32, f32, f32, f32) = (56.0, 16.0, 34.0, 44.0);
const LEGEND_ROW: f32 = 18.0;
/// Columns of the legend in a panel's width.
const LEGEND_COLUMNS: usize = 2;

/// Okabe and Ito's colours without the yellow, which is too light for a white ground.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];
/// Further policies take the colours again with other dashes.
const DASHES: [&str; 3] = ["none", "6 3", "2 3"];

pub fn svg(plots: &[Plot]) -> String {
    let names: Vec<&str> =
        plots.first().map_or(Vec::new(), |plot| plot.series.iter().map(|s| s.name.as_str()).collect());
    let columns = (LEGEND_COLUMNS * plots.len()).max(1);
    let legend = LEGEND_ROW * (names.len().div_ceil(columns) as f32 + 1.0);
    let (width, height) = (WIDTH * plots.len().max(1) as f32, HEIGHT + legend);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    for (i, plot) in plots.iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "<g transform=\"translate({} 0)\">\n{}</g>", WIDTH * i as f32, panel(plot));
    }
    for (i, name) in names.iter().enumerate() {
        let x = MARGIN.0 + (i % columns) as f32 * (width - MARGIN.0) / columns as f32;
        let y = HEIGHT + LEGEND_ROW * (i / columns) as f32 + 6.0;
        let _ = writeln!(
            out,
            "<line x1=\"{x}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\" {}/><text x=\"{}\" y=\"{}\">{}</text>",
            x + 24.0,
            stroke(i),
            x + 30.0,
            y + 4.0,
            escaped(name)
        );
    }
    out.push_str("</svg>\n");
    out
}

fn panel(plot: &Plot) -> String {
    let (left, right, top, bottom) = MARGIN;
    let points = || plot.series.iter().flat_map(|series| &series.points);
    let most = points().map(|point| point.kept).fold(0.0, f32::max).max(0.01) * 1.05;
    let x = |kept: f32| left + (WIDTH - left - right) * kept / most;
    let y = |value: f32| top + (HEIGHT - top - bottom) * (1.0 - plot.height(value));
    let mut out = format!("<text x=\"{left}\" y=\"20\" font-weight=\"bold\">{}</text>\n", escaped(&plot.title));
    let (floor, end) = (HEIGHT - bottom, WIDTH - right);
    for tick in 0..=4 {
        let share = tick as f32 / 4.0;
        let at = top + (HEIGHT - top - bottom) * (1.0 - share);
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" y1=\"{at}\" x2=\"{end}\" y2=\"{at}\" stroke=\"#dddddd\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            left - 6.0,
            at + 4.0,
            plot.label(share)
        );
        let kept = most * share;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{:.0} %</text>",
            x(kept),
            floor + 16.0,
            100.0 * kept
        );
    }
    let _ = writeln!(
        out,
        "<path d=\"M{left} {top}V{floor}H{end}\" fill=\"none\" stroke=\"#444444\"/>\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">entries held</text>",
        (left + end) / 2.0,
        floor + 34.0
    );
    if let Some(full) = plot.full {
        let at = y(full);
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" y1=\"{at}\" x2=\"{end}\" y2=\"{at}\" stroke=\"#444444\" stroke-dasharray=\"8 4\"/>\
             <text x=\"{end}\" y=\"{}\" text-anchor=\"end\" fill=\"#444444\">full</text>",
            at - 4.0
        );
    }
    for (i, series) in plot.series.iter().enumerate() {
        let mut sorted: Vec<&Point> = series.points.iter().collect();
        sorted.sort_by(|a, b| a.kept.total_cmp(&b.kept));
        let line: Vec<String> = sorted.iter().map(|p| format!("{:.1},{:.1}", x(p.kept), y(p.value.mean))).collect();
        let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" {}/>", line.join(" "), stroke(i));
        for point in sorted {
            let (x, at, colour) = (x(point.kept), y(point.value.mean), COLOURS[i % COLOURS.len()]);
            if let Some(sd) = point.value.sd {
                let (from, to) = (y(point.value.mean - sd), y(point.value.mean + sd));
                let _ = writeln!(out, "<path d=\"M{x:.1} {from:.1}V{to:.1}\" stroke=\"{colour}\" opacity=\"0.5\"/>");
            }
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{at:.1}\" r=\"3\" fill=\"{colour}\"><title>{} at {}: {}</title></circle>",
                escaped(&series.name),
                escaped(&point.budget),
                plot.label(plot.height(point.value.mean))
            );
        }
    }
    out
}

fn stroke(at: usize) -> String {
    let (colour, dashes) = (COLOURS[at % COLOURS.len()], DASHES[at / COLOURS.len() % DASHES.len()]);
    format!("stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"")
}

fn escaped(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".into(),
            '<' => "&lt;".into(),
            '>' => "&gt;".into(),
            '"' => "&quot;".into(),
            // Not allowed in XML, whatever is written instead.
            c if c.is_control() => "\u{fffd}".into(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn every_point_is_there_and_names_are_escaped() {
        let text = svg(&[example(), example()]);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert_eq!(text.matches("<circle ").count(), 8);
        assert_eq!(text.matches("<polyline ").count(), 4);
        assert!(text.contains("h2o&lt;&amp;&gt;") && !text.contains("h2o<"));
        // Found everything: at the top; found nothing: at the bottom.
        assert!(text.contains("cy=\"34.0\"") && text.contains("cy=\"276.0\""), "{text}");
        let opened = text.matches("<g ").count();
        assert_eq!((opened, text.matches("</g>").count()), (2, 2));
    }

    #[test]
    fn nothing_to_draw_is_a_picture_too() {
        assert!(svg(&[]).ends_with("</svg>\n"));
    }
}
