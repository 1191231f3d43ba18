//! What a lane's interventions do, in words.

use crate::engine::frame::{Effect, Frame};

use super::units;

/// Mean difference of −ln p to lane 0 over the steps in which both were fed lane 0's token after lane 0's text, nats, and
/// how many those are.
pub fn since<'a>(lane: usize, frames: impl Iterator<Item = &'a Frame>) -> Option<(f32, usize)> {
    let (mut sum, mut steps) = (0.0, 0);
    for frame in frames.filter(|frame| frame.partial.is_none()) {
        let (Some(ours), Some(theirs)) = (frame.lanes.get(lane), frame.lanes.first()) else { continue };
        let same = ours.against.is_some_and(|against| against.same_prefix);
        if let (true, Some(a), Some(b)) = (same, ours.nll, theirs.nll) {
            sum += f64::from(a - b);
            steps += 1;
        }
    }
    (steps > 0).then(|| ((sum / steps as f64) as f32, steps))
}

/// As much of it as fits `width`, the most telling first.
pub fn line(effect: &Effect, since: Option<(f32, usize)>, width: usize) -> String {
    let percent = |share: f32| format!("{:.0} %", 100.0 * share);
    let signed = |x: f32| format!("{}{}", if x < 0.0 { "−" } else { "+" }, units::number(x.abs()));
    let mut parts = vec![
        format!("prompt ΔNLL {}", signed(effect.nll - effect.nll_full)),
        format!("KL {}", units::number(effect.kl)),
        format!("sink rate {} → {}", percent(effect.sink_rate_full), percent(effect.sink_rate)),
        format!("top-1 flips {}", percent(effect.flips)),
    ];
    parts.extend(since.map(|(delta, steps)| format!("lane 0's {steps} next tokens ΔNLL {}", signed(delta))));
    parts.push(format!("(nats, last {} tokens)", effect.tokens));
    let mut out = String::new();
    for part in parts {
        let next = if out.is_empty() { part } else { format!("{out} · {part}") };
        if super::text::width(&next) > width && !out.is_empty() {
            break;
        }
        out = next;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_most_stays_where_there_is_little_room() {
        let effect =
            Effect { tokens: 64, nll: 5.5, nll_full: 3.0, kl: 2.25, flips: 0.5, sink_rate: 0.25, sink_rate_full: 0.75 };
        let whole = line(&effect, Some((-0.5, 3)), 200);
        assert!(whole.starts_with("prompt ΔNLL +2.5") && whole.contains("sink rate 75 % → 25 %"), "{whole}");
        assert!(whole.contains("3 next tokens ΔNLL −0.5") && whole.ends_with("(nats, last 64 tokens)"), "{whole}");
        let short = line(&effect, None, 30);
        assert!(short.contains("ΔNLL") && super::super::text::width(&short) <= 30, "{short}");
    }
}
