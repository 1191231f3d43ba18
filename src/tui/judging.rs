//! What a lane has left of each part of the prompt, and how well it chose, in words.

use crate::engine::frame::{Frame, PromptSpan, Recall, Survival};
use crate::tui::{text, units};

/// Of one lane at one moment.
#[derive(Debug, Default)]
pub struct Judging {
    /// Safe names.
    spans: Vec<(String, Survival)>,
    /// Mean over the steps so far.
    covered: Option<f32>,
    /// The same of the oracle that the lane is compared with.
    by_oracle: Option<f32>,
    recall: Option<Recall>,
}

/// A piece of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Words,
    Number,
    /// Nothing is left.
    Gone,
}

type Piece = (String, Tone);

/// What the line begins with where there is room.
const HOLDS: &str = "holds ";

fn percent(share: f32) -> String {
    units::percent(f64::from(share))
}

/// `document`, and what is left of it.
pub fn left(spans: &[PromptSpan], survival: &[Survival], position: usize) -> Option<(String, f32)> {
    let at = spans.iter().position(|span| span.contains(position as u32))?;
    Some((text::line(&spans[at].name), survival.get(at)?.share))
}

impl Judging {
    /// Of lane `lane` at the end of `frames`, the steps so far.
    pub fn of<'a>(lane: usize, frames: impl DoubleEndedIterator<Item = &'a Frame> + Clone) -> Self {
        let Some(frame) = frames.clone().next_back() else { return Self::default() };
        let Some(now) = frame.lanes.get(lane) else { return Self::default() };
        let mean = |lane: usize| {
            let steps = frames.clone().filter_map(|frame| frame.lanes.get(lane)?.covered);
            let (sum, n) = steps.fold((0.0f64, 0u32), |(sum, n), mass| (sum + f64::from(mass), n + 1));
            (n > 0).then(|| (sum / f64::from(n)) as f32)
        };
        Self {
            spans: frame.spans.iter().zip(&now.survival).map(|(span, &left)| (text::line(&span.name), left)).collect(),
            covered: mean(lane),
            by_oracle: now.recall.and_then(|recall| mean(recall.oracle as usize)),
            recall: now.recall,
        }
    }

    /// `holds needle 0 % · document 43 % · question 100 % · covers 93 % (oracle 97 %) · recall 71 % of lane 3`: as much of
    /// it as `width` columns hold.
    pub fn line(&self, width: usize) -> Vec<Piece> {
        let long = |recall: &Recall| format!(" of lane {}", recall.oracle);
        let oracle = || self.by_oracle.map(|mass| format!(" (oracle {})", percent(mass))).unwrap_or_default();
        let spans = |worst: bool| self.spans.iter().map(move |span| held(span, worst));
        let covers = |more: String| self.covered.map(|mass| vec![words("covers "), number(mass), words(&more)]);
        let recall = |more: &dyn Fn(&Recall) -> String| {
            self.recall.as_ref().map(|r| vec![words("recall "), number(r.share), words(&more(r))])
        };
        let short = |_: &Recall| String::new();
        let longest_first: [(&str, Vec<Vec<Piece>>); 7] = [
            (HOLDS, spans(true).chain(covers(oracle())).chain(recall(&long)).collect()),
            (HOLDS, spans(false).chain(covers(oracle())).chain(recall(&long)).collect()),
            (HOLDS, spans(false).chain(covers(oracle())).chain(recall(&short)).collect()),
            (HOLDS, spans(false).chain(covers(String::new())).chain(recall(&short)).collect()),
            ("", spans(false).chain(covers(String::new())).chain(recall(&short)).collect()),
            ("", spans(false).chain(covers(String::new())).collect()),
            ("", spans(false).collect()),
        ];
        let fits = |pieces: &Vec<Piece>| pieces.iter().map(|(words, _)| text::width(words)).sum::<usize>() <= width;
        let mut lines = longest_first.into_iter().map(|(first, parts)| joined(first, parts));
        lines.find(fits).unwrap_or_else(|| joined("", spans(false).take(1).collect()))
    }
}

fn words(text: &str) -> Piece {
    (text.into(), Tone::Words)
}

fn number(share: f32) -> Piece {
    (percent(share), Tone::Number)
}

fn held((name, left): &(String, Survival), worst: bool) -> Vec<Piece> {
    let tone = if left.share == 0.0 { Tone::Gone } else { Tone::Number };
    let mut pieces = vec![words(&format!("{name} ")), (percent(left.share), tone)];
    if worst && percent(left.least) != percent(left.share) {
        pieces.push(words(&format!(" ({} in L{} h{})", percent(left.least), left.layer, left.kv_head)));
    }
    pieces
}

fn joined(first: &str, parts: Vec<Vec<Piece>>) -> Vec<Piece> {
    let mut line = Vec::new();
    for part in parts {
        line.push(words(if line.is_empty() { first } else { " · " }));
        line.extend(part);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judging() -> Judging {
        let left = |share, least| Survival { share, least, layer: 3, kv_head: 1 };
        Judging {
            spans: vec![("needle".into(), left(0.0, 0.0)), ("document".into(), left(0.43, 0.2))],
            covered: Some(0.93),
            by_oracle: Some(0.97),
            recall: Some(Recall { oracle: 3, share: 0.71 }),
        }
    }

    fn text(width: usize) -> String {
        judging().line(width).into_iter().map(|(words, _)| words).collect()
    }

    #[test]
    fn the_line_says_what_fits() {
        let whole =
            "holds needle 0 % · document 43 % (20 % in L3 h1) · covers 93 % (oracle 97 %) · recall 71 % of lane 3";
        assert_eq!(text(100), whole);
        assert_eq!(text(84), "holds needle 0 % · document 43 % · covers 93 % (oracle 97 %) · recall 71 % of lane 3");
        assert_eq!(text(75), "holds needle 0 % · document 43 % · covers 93 % (oracle 97 %) · recall 71 %");
        assert_eq!(text(60), "holds needle 0 % · document 43 % · covers 93 % · recall 71 %");
        assert_eq!(text(56), "needle 0 % · document 43 % · covers 93 % · recall 71 %");
        assert_eq!(text(50), "needle 0 % · document 43 % · covers 93 %");
        assert_eq!(text(30), "needle 0 % · document 43 %");
        assert_eq!(text(5), "needle 0 %");
    }

    #[test]
    fn what_is_gone_is_told_apart() {
        let line = judging().line(100);
        assert!(line.contains(&("0 %".into(), Tone::Gone)) && line.contains(&("43 %".into(), Tone::Number)));
        assert_eq!(Judging::default().line(100), []);
    }
}
