//! Colours and styles of the screen, for what the terminal can show.

use ratatui::style::{Color, Modifier, Style};

use super::ramp::{RampName, Rgb};

/// How many colours the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    True,
    Ansi256,
    Ansi16,
    Mono,
}

impl Depth {
    /// From the environment: NO_COLOR (any text), COLORTERM=truecolor|24bit, TERM.
    pub fn detect(var: impl Fn(&str) -> Option<String>) -> Depth {
        let term = var("TERM").unwrap_or_default();
        if var("NO_COLOR").is_some_and(|v| !v.is_empty()) || term == "dumb" {
            return Depth::Mono;
        }
        if matches!(var("COLORTERM").as_deref(), Some("truecolor" | "24bit")) || term.contains("direct") {
            return Depth::True;
        }
        if term.contains("256color") || ["kitty", "alacritty", "ghostty", "foot"].iter().any(|t| term.contains(t)) {
            return Depth::Ansi256;
        }
        Depth::Ansi16
    }

    fn colour(self, rgb: Rgb, plain: Color) -> Color {
        match self {
            Depth::True => Color::Rgb(rgb.0, rgb.1, rgb.2),
            Depth::Ansi256 => Color::Indexed(rgb.xterm()),
            Depth::Ansi16 => plain,
            Depth::Mono => Color::Reset,
        }
    }
}

/// Steps in a ramp's table.
const STEPS: usize = 256;

/// One ramp for one terminal: colours by value, each also dimmed (for what is evicted or not chosen).
#[derive(Debug, Clone)]
pub struct Ramp {
    full: Vec<Color>,
    dim: Vec<Color>,
    /// Black or white, whichever reads on the colour.
    ink: Vec<Color>,
}

impl Ramp {
    fn new(name: RampName, depth: Depth, ground: Rgb) -> Self {
        // Sixteen colours have no even lightness: only their order is used.
        let sixteen = [Color::Black, Color::Blue, Color::Cyan, Color::Green, Color::LightYellow, Color::White];
        let signed = [Color::LightBlue, Color::Blue, Color::Black, Color::Red, Color::LightRed];
        let plain = |i: usize| match name {
            RampName::Berlin => signed[i * signed.len() / STEPS],
            _ => sixteen[i * sixteen.len() / STEPS],
        };
        let table = name.table(STEPS);
        Self {
            full: table.iter().enumerate().map(|(i, &c)| depth.colour(c, plain(i))).collect(),
            dim: table
                .iter()
                .enumerate()
                .map(|(i, &c)| {
                    let grey = Rgb::from_oklab([c.oklab()[0], 0.0, 0.0]);
                    depth.colour(ground.mix(grey, 0.4), if i < 128 { Color::Black } else { Color::DarkGray })
                })
                .collect(),
            ink: table
                .iter()
                .enumerate()
                .map(|(i, &c)| {
                    let dark = match depth {
                        Depth::Ansi16 => !matches!(plain(i), Color::Black | Color::Blue | Color::Red),
                        _ => c.contrast(DARK_INK) > c.contrast(LIGHT_INK),
                    };
                    if dark { depth.colour(DARK_INK, Color::Black) } else { depth.colour(LIGHT_INK, Color::White) }
                })
                .collect(),
        }
    }

    fn index(t: f32) -> usize {
        // NaN casts to 0.
        (t.clamp(0.0, 1.0) * (STEPS - 1) as f32 + 0.5) as usize
    }

    pub fn colour(&self, t: f32) -> Color {
        self.full[Self::index(t)]
    }

    pub fn dimmed(&self, t: f32) -> Color {
        self.dim[Self::index(t)]
    }

    pub fn ink(&self, t: f32) -> Color {
        self.ink[Self::index(t)]
    }
}

#[derive(Debug, Clone)]
pub struct Theme {
    pub depth: Depth,
    pub ground: Color,
    /// Behind bars, popups and the rows that are chosen.
    pub raised: Color,
    /// Where nothing is held any more.
    pub gone: Color,
    pub text: Color,
    pub soft: Color,
    pub faint: Color,
    pub accent: Color,
    pub good: Color,
    pub warn: Color,
    pub bad: Color,
    lanes: Vec<Color>,
    ramps: [Ramp; 4],
}

/// Lane colours: Okabe & Ito's set, lightened for dark ground.
pub const LANES: [Rgb; 7] = [
    Rgb(229, 233, 240),
    Rgb(230, 159, 0),
    Rgb(86, 180, 233),
    Rgb(0, 178, 128),
    Rgb(240, 228, 66),
    Rgb(221, 103, 26),
    Rgb(214, 138, 180),
];

const DARK_INK: Rgb = Rgb(8, 9, 13);
const LIGHT_INK: Rgb = Rgb(244, 246, 250);
const GROUND: Rgb = Rgb(14, 16, 22);

impl Theme {
    pub fn new(depth: Depth) -> Self {
        let c = |rgb: Rgb, plain: Color| depth.colour(rgb, plain);
        let plain_lanes = [
            Color::White,
            Color::Yellow,
            Color::LightBlue,
            Color::Green,
            Color::LightYellow,
            Color::Red,
            Color::LightMagenta,
        ];
        Self {
            depth,
            ground: c(GROUND, Color::Reset),
            raised: c(Rgb(30, 34, 46), Color::Reset),
            gone: c(Rgb(30, 34, 46), Color::DarkGray),
            text: c(Rgb(216, 222, 233), Color::Reset),
            soft: c(Rgb(143, 152, 172), Color::Gray),
            faint: c(Rgb(72, 80, 99), Color::DarkGray),
            accent: c(Rgb(122, 196, 255), Color::LightCyan),
            good: c(Rgb(92, 204, 150), Color::Green),
            warn: c(Rgb(240, 183, 74), Color::Yellow),
            bad: c(Rgb(244, 112, 103), Color::LightRed),
            lanes: LANES.iter().zip(plain_lanes).map(|(&rgb, plain)| c(rgb, plain)).collect(),
            ramps: RampName::ALL.map(|name| Ramp::new(name, depth, GROUND)),
        }
    }

    pub fn ramp(&self, name: RampName) -> &Ramp {
        let [viridis, magma, cividis, berlin] = &self.ramps;
        match name {
            RampName::Viridis => viridis,
            RampName::Magma => magma,
            RampName::Cividis => cividis,
            RampName::Berlin => berlin,
        }
    }

    pub fn lane(&self, lane: usize) -> Color {
        self.lanes[lane % self.lanes.len()]
    }

    pub fn base(&self) -> Style {
        Style::new().fg(self.text).bg(self.ground)
    }

    pub fn soft(&self) -> Style {
        Style::new().fg(self.soft)
    }

    pub fn faint(&self) -> Style {
        Style::new().fg(self.faint)
    }

    pub fn strong(&self) -> Style {
        Style::new().fg(self.text).add_modifier(Modifier::BOLD)
    }

    pub fn accent(&self) -> Style {
        Style::new().fg(self.accent)
    }

    /// The chosen thing, visible with any number of colours.
    pub fn chosen(&self) -> Style {
        match self.depth {
            Depth::Mono | Depth::Ansi16 => Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD),
            _ => Style::new().fg(self.ground).bg(self.accent).add_modifier(Modifier::BOLD),
        }
    }

    /// A row that is chosen, keeping its own colours.
    pub fn row(&self) -> Style {
        match self.depth {
            Depth::Mono | Depth::Ansi16 => Style::new().add_modifier(Modifier::REVERSED),
            _ => Style::new().bg(self.raised),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::vision::{Vision, seen_by};

    fn depth(vars: &[(&str, &str)]) -> Depth {
        Depth::detect(|k| vars.iter().find(|(name, _)| *name == k).map(|(_, v)| v.to_string()))
    }

    #[test]
    fn the_environment_decides_the_colours() {
        assert_eq!(depth(&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")]), Depth::True);
        assert_eq!(depth(&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor"), ("NO_COLOR", "1")]), Depth::Mono);
        assert_eq!(depth(&[("TERM", "xterm-256color"), ("NO_COLOR", "")]), Depth::Ansi256);
        assert_eq!(depth(&[("TERM", "linux")]), Depth::Ansi16);
        assert_eq!(depth(&[("TERM", "dumb")]), Depth::Mono);
    }

    #[test]
    fn lanes_can_be_told_apart_by_every_eye() {
        for vision in Vision::ALL {
            for (i, &a) in LANES.iter().enumerate() {
                for &b in &LANES[..i] {
                    let (x, y) = (seen_by(vision, a).oklab(), seen_by(vision, b).oklab());
                    let distance = (0..3).map(|k| (x[k] - y[k]).powi(2)).sum::<f32>().sqrt();
                    assert!(distance > 0.045, "{a:?} and {b:?} under {vision:?}: {distance}");
                }
            }
        }
    }

    #[test]
    fn ink_is_readable_on_every_step_of_every_ramp() {
        let theme = Theme::new(Depth::True);
        let rgb = |c: Color| match c {
            Color::Rgb(r, g, b) => Rgb(r, g, b),
            other => panic!("{other:?} in full colour"),
        };
        for name in RampName::ALL {
            let ramp = theme.ramp(name);
            for step in 0..=100 {
                let t = step as f32 / 100.0;
                let contrast = rgb(ramp.colour(t)).contrast(rgb(ramp.ink(t)));
                assert!(contrast >= 4.0, "{name:?} at {t}: {contrast}");
            }
        }
    }

    #[test]
    fn no_value_falls_off_a_ramp() {
        let theme = Theme::new(Depth::Ansi16);
        for t in [-1.0, 0.0, 0.5, 1.0, 7.0, f32::NAN, f32::INFINITY] {
            theme.ramp(RampName::Magma).colour(t);
        }
    }
}
