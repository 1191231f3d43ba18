//! As one picture: RMS of each stream over depth, logarithmic, with the edges of blocks.

use std::fmt::Write;

use super::measure::Growth;

const WIDTH: f32 = 760.0;
const HEIGHT: f32 = 360.0;
/// Left, right, top, bottom.
const MARGIN: (f32, f32, f32, f32) = (56.0, 16.0, 34.0, 44.0);
/// Okabe and Ito's colours without the yellow.
const COLOURS: [&str; 6] = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

fn escaped(text: &str) -> String {
    let safe = crate::tui::text::line(text);
    safe.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

pub fn picture(all: &[Growth]) -> String {
    let (left, right, top, bottom) = MARGIN;
    let rms = || all.iter().flat_map(|one| &one.stream).map(|p| p.rms).filter(|v| *v > 0.0);
    let (low, high) = (rms().fold(f32::MAX, f32::min).log10().floor(), rms().fold(1e-9, f32::max).log10().ceil());
    let points = all.iter().map(|one| one.stream.len()).max().unwrap_or(1).max(2);
    let x = |point: usize| left + (WIDTH - left - right) * point as f32 / (points - 1) as f32;
    let y =
        |value: f32| top + (HEIGHT - top - bottom) * (1.0 - (value.max(1e-9).log10() - low) / (high - low).max(1.0));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{left}\" y=\"20\" font-weight=\"bold\">RMS of the stream after each sublayer (median over tokens, log)</text>\n"
    );
    for decade in low as i32..=high as i32 {
        let at = y(10f32.powi(decade));
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" y1=\"{at}\" x2=\"{}\" y2=\"{at}\" stroke=\"#dddddd\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            WIDTH - right,
            left - 6.0,
            at + 4.0,
            10f32.powi(decade)
        );
    }
    for (i, one) in all.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        for &edge in one.edges.iter().filter(|_| one.edges.len() + 1 < one.stream.len()) {
            let at = x(edge as usize + 1);
            let _ = writeln!(
                out,
                "<line x1=\"{at}\" y1=\"{top}\" x2=\"{at}\" y2=\"{}\" stroke=\"{colour}\" stroke-dasharray=\"2 4\"/>",
                HEIGHT - bottom
            );
        }
        let line: Vec<String> =
            one.stream.iter().enumerate().map(|(p, at)| format!("{:.1},{:.1}", x(p), y(at.rms))).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" fill=\"{colour}\">{} ({})</text>",
            left + 8.0,
            top + 16.0 * (i as f32 + 1.0),
            escaped(&one.model),
            escaped(&one.residual)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">sublayers</text>\n</svg>",
        WIDTH / 2.0,
        HEIGHT - 12.0
    );
    out
}
