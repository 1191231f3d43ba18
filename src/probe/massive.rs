//! Massive activations by their published definition (Sun et al. 2402.17762, kept by An et al. 2503.22329): an element
//! of a layer's output H [T, d] with |x| > 100 and |x| ≥ 1000 × median |H|, the median over all tokens and channels.
//! The absolute bound says nothing about models of small scale: what only passes the ratio is "relative only".

use serde::Serialize;

/// |x| above which an element is massive, where it is also far above the median.
pub const LEAST: f32 = 100.0;
/// How many times the median.
pub const RATIO: f32 = 1000.0;
/// Half of the largest f16: above it a stream in f16 is near its end.
pub const F16_DANGER: f32 = 0.5 * 65_504.0;
/// Elements kept of each point.
pub const TOP: usize = 3;

/// How an element passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Massive {
    Yes,
    /// By the ratio, not by the absolute bound.
    RelativeOnly,
}

/// Of an element where the median of |H| is `median`; nothing is massive beside a median of 0.
pub fn massive(x: f32, median: f32) -> Option<Massive> {
    let far = median > 0.0 && x.abs() >= RATIO * median;
    far.then_some(if x.abs() > LEAST { Massive::Yes } else { Massive::RelativeOnly })
}

/// One of the largest elements of a point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Element {
    pub position: u32,
    pub channel: u32,
    pub value: f32,
    /// |value| / median
    pub ratio: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub massive: Option<Massive>,
}

/// One point of the residual stream: its median and its largest elements, the largest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Magnitudes {
    pub median: f32,
    pub top: Vec<Element>,
}

/// Adds up a point's elements, rows as they come.
pub struct Tally {
    /// How many |x| share their upper 16 bits (8 of the exponent, 8 behind the point).
    counts: Vec<u64>,
    seen: u64,
    top: Vec<Element>,
}

/// Bits below those that are counted.
const SHIFT: u32 = 15;

impl Default for Tally {
    fn default() -> Self {
        Self { counts: vec![0; 1 << (31 - SHIFT)], seen: 0, top: Vec::new() }
    }
}

impl Tally {
    /// `rows` [n, width] of the tokens from position `first` on.
    pub fn add(&mut self, first: u32, rows: &[f32], width: usize) {
        for (position, row) in (first..).zip(rows.chunks_exact(width.max(1))) {
            for (channel, &value) in (0..).zip(row) {
                self.counts[(value.abs().to_bits() >> SHIFT) as usize] += 1;
                let least = self.top.get(TOP - 1).map_or(-1.0, |element| element.value.abs());
                if value.abs() > least {
                    let same = |e: &Element| (e.position, e.channel) == (position, channel);
                    // of several texts, the largest of a place stands for it
                    if let Some(known) = self.top.iter().position(same) {
                        if self.top[known].value.abs() >= value.abs() {
                            continue;
                        }
                        self.top.remove(known);
                    }
                    let at = self.top.partition_point(|element| element.value.abs() >= value.abs());
                    self.top.insert(at, Element { position, channel, value, ratio: 0.0, massive: None });
                    self.top.truncate(TOP);
                }
            }
        }
        self.seen += rows.len() as u64;
    }

    /// The median is read off the counts, between the ends of its class: right within 1/512 of itself.
    pub fn finish(&self) -> Magnitudes {
        let half = self.seen as f64 / 2.0;
        let mut below = 0;
        let mut median = 0.0;
        for (class, &count) in self.counts.iter().enumerate() {
            if count > 0 && (below + count) as f64 >= half {
                let ends = [class as u32, class as u32 + 1].map(|class| f32::from_bits(class << SHIFT) as f64);
                median = ends[0] + (ends[1] - ends[0]) * (half - below as f64) / count as f64;
                break;
            }
            below += count;
        }
        let median = median as f32;
        let judged = |e: &Element| {
            let ratio = if median > 0.0 { e.value.abs() / median } else { f32::INFINITY };
            Element { ratio, massive: massive(e.value, median), ..*e }
        };
        Magnitudes { median, top: self.top.iter().map(judged).collect() }
    }
}

impl Magnitudes {
    pub fn of(rows: &[f32], width: usize) -> Self {
        let mut tally = Tally::default();
        tally.add(0, rows, width);
        tally.finish()
    }

    /// The elements that pass, by both bounds or by the ratio alone.
    pub fn massive(&self) -> impl Iterator<Item = &Element> {
        self.top.iter().filter(|element| element.massive.is_some())
    }
}

/// The first of `points` (embedding, then after each sublayer) that has massive elements.
pub fn onset(points: &[Magnitudes]) -> Option<usize> {
    points.iter().position(|point| point.massive().next().is_some())
}

/// "attention of layer 3": what was added last before residual point `point`.
pub fn writer(point: usize) -> String {
    match point.checked_sub(1) {
        None => "embedding".into(),
        Some(sublayer) if sublayer.is_multiple_of(2) => format!("attention of layer {}", sublayer / 2),
        Some(sublayer) => format!("MLP of layer {}", sublayer / 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// About N(0, 1): the sum of 12 uniform numbers, less 6.
    fn normal(count: usize) -> Vec<f32> {
        let mut state = 7u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32
        };
        (0..count).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
    }

    fn hand_made() -> Vec<f32> {
        let mut rows = normal(64 * 128);
        rows[7] = 5000.0;
        rows
    }

    #[test]
    fn one_large_element_is_massive_with_its_ratio() {
        let point = Magnitudes::of(&hand_made(), 128);
        let found: Vec<&Element> = point.massive().collect();
        assert_eq!((found.len(), found[0].position, found[0].channel), (1, 0, 7));
        assert_eq!(found[0].massive, Some(Massive::Yes));
        // the median of |N(0, 1)| is 0.674
        assert!((found[0].ratio / (5000.0 / 0.6745) - 1.0).abs() < 0.03, "{}", found[0].ratio);
        assert_eq!(point.top.len(), TOP);
    }

    #[test]
    fn a_smaller_scale_leaves_the_ratio_alone() {
        let rows: Vec<f32> = hand_made().iter().map(|x| 0.01 * x).collect();
        let (scaled, whole) = (Magnitudes::of(&rows, 128), Magnitudes::of(&hand_made(), 128));
        assert_eq!(scaled.massive().map(|e| e.massive).collect::<Vec<_>>(), [Some(Massive::RelativeOnly)]);
        assert!((scaled.top[0].ratio / whole.top[0].ratio - 1.0).abs() < 0.005);
        assert_eq!(massive(1e4, 20.0), None);
        assert_eq!(massive(-2e4, 20.0), Some(Massive::Yes));
        assert_eq!(massive(1.0, 0.0), None);
    }

    #[test]
    fn the_median_is_that_of_the_sorted_elements_however_they_come() {
        let rows = normal(50 * 96);
        let mut sorted: Vec<f32> = rows.iter().map(|x| x.abs()).collect();
        sorted.sort_by(f32::total_cmp);
        let middle = (sorted[sorted.len() / 2 - 1] + sorted[sorted.len() / 2]) / 2.0;
        let whole = Magnitudes::of(&rows, 96);
        assert!((whole.median / middle - 1.0).abs() < 1.0 / 512.0, "{} {middle}", whole.median);
        let mut parts = Tally::default();
        parts.add(0, &rows[..17 * 96], 96);
        parts.add(17, &rows[17 * 96..], 96);
        assert_eq!(parts.finish(), whole);
    }

    #[test]
    fn what_wrote_it_is_the_sublayer_before_the_point() {
        assert_eq!(
            [0, 1, 2, 7].map(writer),
            ["embedding", "attention of layer 0", "MLP of layer 0", "attention of layer 3"]
        );
        let quiet = Magnitudes::of(&normal(640), 64);
        assert_eq!(onset(&[quiet.clone(), quiet.clone(), Magnitudes::of(&hand_made(), 128)]), Some(2));
        assert_eq!(onset(&[quiet]), None);
    }
}
