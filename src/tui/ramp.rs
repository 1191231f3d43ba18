//! Colour ramps: values 0..=1 to colours whose lightness grows evenly, so that equal steps look equal, also to
//! colour-blind eyes and in grey. Anchors are the published tables of viridis, magma and cividis (matplotlib)
//! and of berlin (Crameri); between them we go straight through Oklab (Ottosson 2020).

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rgb(pub u8, pub u8, pub u8);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RampName {
    Viridis,
    Magma,
    Cividis,
    /// Signed values: 0.5 is zero.
    Berlin,
}

impl RampName {
    pub const ALL: [RampName; 4] = [RampName::Viridis, RampName::Magma, RampName::Cividis, RampName::Berlin];

    fn anchors(self) -> &'static [u32] {
        match self {
            RampName::Viridis => {
                &[0x440154, 0x482878, 0x3e4989, 0x31688e, 0x26828e, 0x1f9e89, 0x35b779, 0x6ece58, 0xb5de2b, 0xfde725]
            }
            RampName::Magma => {
                &[0x000004, 0x180f3d, 0x440f76, 0x721f81, 0x9e2f7f, 0xcd4071, 0xf1605d, 0xfd9668, 0xfeca8d, 0xfcfdbf]
            }
            RampName::Cividis => {
                &[0x00224e, 0x123570, 0x3b496c, 0x575d6d, 0x707173, 0x8a8678, 0xa59c74, 0xc3b369, 0xe1cc55, 0xfee838]
            }
            RampName::Berlin => {
                &[0x9eb0ff, 0x5ba4db, 0x2d7597, 0x1a4256, 0x11191e, 0x280d01, 0x501803, 0x8a3f2a, 0xc4756a, 0xffadad]
            }
        }
    }

    /// `steps` colours from the lowest to the highest value.
    pub fn table(self, steps: usize) -> Vec<Rgb> {
        let anchors: Vec<[f32; 3]> =
            self.anchors().iter().map(|&c| Rgb((c >> 16) as u8, (c >> 8) as u8, c as u8).oklab()).collect();
        (0..steps)
            .map(|i| {
                let at = i as f32 / (steps.max(2) - 1) as f32 * (anchors.len() - 1) as f32;
                let low = (at as usize).min(anchors.len() - 2);
                let t = at - low as f32;
                let (a, b) = (anchors[low], anchors[low + 1]);
                Rgb::from_oklab(std::array::from_fn(|k| a[k] + (b[k] - a[k]) * t))
            })
            .collect()
    }
}

fn to_linear(c: u8) -> f32 {
    let c = c as f32 / 255.0;
    if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
}

fn to_byte(c: f32) -> u8 {
    let c = c.clamp(0.0, 1.0);
    let c = if c <= 0.003_130_8 { 12.92 * c } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 };
    (c * 255.0).round() as u8
}

impl Rgb {
    pub fn linear(self) -> [f32; 3] {
        [to_linear(self.0), to_linear(self.1), to_linear(self.2)]
    }

    pub fn from_linear(c: [f32; 3]) -> Self {
        Rgb(to_byte(c[0]), to_byte(c[1]), to_byte(c[2]))
    }

    /// Lightness, green–red, blue–yellow.
    pub fn oklab(self) -> [f32; 3] {
        let [r, g, b] = self.linear();
        let l = (0.412_221_47 * r + 0.536_332_54 * g + 0.051_445_993 * b).cbrt();
        let m = (0.211_903_5 * r + 0.680_699_5 * g + 0.107_396_96 * b).cbrt();
        let s = (0.088_302_46 * r + 0.281_718_84 * g + 0.629_978_7 * b).cbrt();
        [
            0.210_454_26 * l + 0.793_617_8 * m - 0.004_072_047 * s,
            1.977_998_5 * l - 2.428_592_2 * m + 0.450_593_7 * s,
            0.025_904_037 * l + 0.782_771_77 * m - 0.808_675_77 * s,
        ]
    }

    pub fn from_oklab([light, a, b]: [f32; 3]) -> Self {
        let l = (light + 0.396_337_78 * a + 0.215_803_76 * b).powi(3);
        let m = (light - 0.105_561_346 * a - 0.063_854_17 * b).powi(3);
        let s = (light - 0.089_484_18 * a - 1.291_485_5 * b).powi(3);
        Rgb::from_linear([
            4.076_741_7 * l - 3.307_711_6 * m + 0.230_969_94 * s,
            -1.268_438 * l + 2.609_757_4 * m - 0.341_319_38 * s,
            -0.004_196_086_3 * l - 0.703_418_6 * m + 1.707_614_7 * s,
        ])
    }

    /// `share` of `other` mixed in, in Oklab.
    pub fn mix(self, other: Rgb, share: f32) -> Rgb {
        let (a, b) = (self.oklab(), other.oklab());
        Rgb::from_oklab(std::array::from_fn(|k| a[k] + (b[k] - a[k]) * share))
    }

    /// Contrast of two colours, 1..=21 (WCAG 2).
    pub fn contrast(self, other: Rgb) -> f32 {
        let luminance = |c: Rgb| {
            let [r, g, b] = c.linear();
            0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05
        };
        let (a, b) = (luminance(self), luminance(other));
        a.max(b) / a.min(b)
    }

    /// Nearest of the 240 fixed colours of a 256-colour terminal (6×6×6 cube and 24 greys).
    pub fn xterm(self) -> u8 {
        let level = |c: u8| match c {
            0..=47 => 0u8,
            48..=114 => 1,
            _ => (c - 35) / 40,
        };
        let value = |l: u8| if l == 0 { 0 } else { 55 + 40 * l };
        let (r, g, b) = (level(self.0), level(self.1), level(self.2));
        let mean = (self.0 as u32 + self.1 as u32 + self.2 as u32) / 3;
        let grey = (mean.saturating_sub(3) / 10).min(23) as u8;
        let shade = 8 + 10 * grey;
        let far = |r: u8, g: u8, b: u8| {
            let d = |a: u8, b: u8| (a as i32 - b as i32).pow(2);
            d(self.0, r) + d(self.1, g) + d(self.2, b)
        };
        if far(shade, shade, shade) < far(value(r), value(g), value(b)) { 232 + grey } else { 16 + 36 * r + 6 * g + b }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::vision::{Vision, seen_by};

    #[test]
    fn oklab_and_back_is_the_same_colour() {
        for c in [Rgb(0, 0, 0), Rgb(255, 255, 255), Rgb(68, 1, 84), Rgb(253, 231, 37), Rgb(12, 200, 99)] {
            assert_eq!(Rgb::from_oklab(c.oklab()), c);
        }
    }

    #[test]
    fn tables_start_and_end_at_the_published_colours() {
        let viridis = RampName::Viridis.table(256);
        assert_eq!((viridis[0], viridis[255]), (Rgb(0x44, 0x01, 0x54), Rgb(0xfd, 0xe7, 0x25)));
        assert_eq!(RampName::Magma.table(10)[5], Rgb(0xcd, 0x40, 0x71));
    }

    #[test]
    fn more_is_always_lighter_for_every_kind_of_eye() {
        for ramp in [RampName::Viridis, RampName::Magma, RampName::Cividis] {
            for vision in Vision::ALL {
                let light: Vec<f32> = ramp.table(33).into_iter().map(|c| seen_by(vision, c).oklab()[0]).collect();
                assert!(light.windows(2).all(|w| w[1] > w[0]), "{ramp:?} under {vision:?}: {light:?}");
            }
        }
    }

    #[test]
    fn the_signed_ramp_is_darkest_at_zero_and_its_ends_differ_for_every_eye() {
        let table = RampName::Berlin.table(101);
        let darkest = (0..101).min_by(|&a, &b| table[a].oklab()[0].total_cmp(&table[b].oklab()[0]));
        assert!(darkest.is_some_and(|d| (42..=58).contains(&d)), "{darkest:?}");
        for vision in Vision::ALL {
            let (a, b) = (seen_by(vision, table[15]).oklab(), seen_by(vision, table[85]).oklab());
            let distance = (0..3).map(|k| (a[k] - b[k]).powi(2)).sum::<f32>().sqrt();
            assert!(distance > 0.08, "{vision:?}: {distance}");
        }
    }

    #[test]
    fn the_256_colour_fallback_hits_exact_entries() {
        assert_eq!(Rgb(255, 0, 0).xterm(), 196);
        assert_eq!(Rgb(0, 0, 0).xterm(), 16);
        assert_eq!(Rgb(128, 128, 128).xterm(), 244);
        assert_eq!(Rgb(95, 135, 175).xterm(), 67);
    }
}
