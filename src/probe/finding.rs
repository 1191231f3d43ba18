//! Facts noticed by the program: massive activations, attention sinks, overflow, divergence.
//!
//! Definitions: `massive` and `sink` beside this file.

use crate::engine::frame::{Finding, FindingKind, Frame, LaneFrame, ResidualStats};
use crate::model::config::Config;
use crate::probe::massive::{self, F16_DANGER, LEAST, Massive, RATIO};
use crate::probe::sink::{self, EPSILON};

/// What is new in `frame`. `known` remembers what was said before.
pub fn notice(frame: &Frame, config: &Config, known: &mut Vec<Finding>) -> Vec<Finding> {
    let mut new = Vec::new();
    for (i, lane) in frame.lanes.iter().enumerate() {
        // Step 0 is the same pass for all lanes.
        if frame.step > 0 || i == 0 {
            massive(frame.step, i as u32, lane, &mut new);
            sinks(frame.step, i as u32, lane, &mut new);
        }
        diverged(frame, i, &mut new);
        ended(frame.step, i as u32, lane, config, &mut new);
    }
    new.retain(|f| !known.iter().any(|k| same(k, f)));
    known.extend(new.iter().cloned());
    new
}

/// The same fact, seen again later.
fn same(a: &Finding, b: &Finding) -> bool {
    (a.kind, a.lane, a.layer, a.head, a.position) == (b.kind, b.lane, b.layer, b.head, b.position)
}

fn middle(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// One finding per massive token: where it appears first, and how large it gets; and one per token near the end of f16.
fn massive(step: u32, lane: u32, frame: &LaneFrame, new: &mut Vec<Finding>) {
    let r: &ResidualStats = &frame.residual;
    // One sort per point, not per token.
    let medians: Vec<f32> = (0..r.points).map(|point| middle(&r.median[r.at(point, 0)..][..r.rows])).collect();
    for row in 0..r.rows {
        let position = frame.pos + row as u32;
        let (mut onset, mut peak) = (None, (0.0f32, 0usize));
        let mut largest = (0.0f32, 0usize);
        for (point, &median) in medians.iter().enumerate().skip(1) {
            let x = r.absmax[r.at(point, row)];
            largest = if x > largest.0 { (x, point) } else { largest };
            let Some(how) = massive::massive(x, median) else { continue };
            // what passes both bounds later counts from there
            if onset.is_none_or(|(_, _, _, first)| first == Massive::RelativeOnly && how == Massive::Yes) {
                onset = Some((point, x, median, how));
            }
            peak = if x > peak.0 { (x, point) } else { peak };
        }
        if let Some((point, x, median, how)) = onset {
            let channel = r.argmax[r.at(point, row)];
            let (kind, bound) = match how {
                Massive::Yes => ("Massive activation", format!("> {LEAST}")),
                Massive::RelativeOnly => ("Massive activation (relative only)", format!("not above {LEAST}")),
            };
            new.push(Finding {
                kind: FindingKind::MassiveActivation,
                lane,
                step,
                title: format!("{kind} at position {position}: {x:.0} in channel {channel}, written by the {}", massive::writer(point)),
                evidence: format!(
                    "|x| = {x:.1}, {bound}, and {:.0} × the median {median:.3} of |H| there (median over tokens of each token's median; \
                     the definition asks for {RATIO} ×); peak {:.1} after sublayer {}",
                    x / median, peak.0, peak.1
                ),
                advice: "See its channel over depth in the growth view; such tokens usually become attention sinks: look at \
                         their column in the map. Evicting them tends to break the model; `attnscope massive` sets them to \
                         zero and to their mean."
                    .into(),
                layer: Some((point as u32 - 1) / 2),
                head: None,
                position: Some(position),
            });
        }
        if largest.0 > F16_DANGER {
            new.push(Finding {
                kind: FindingKind::Overflow,
                lane,
                step,
                title: format!(
                    "The residual stream reaches {:.0} at position {position}: near the end of f16",
                    largest.0
                ),
                evidence: format!("|x| = {:.1} after sublayer {}; f16 ends at 65504", largest.0, largest.1),
                advice: "Run this model with bf16 or f32 activations; norms must be taken in f32.".into(),
                layer: Some(((largest.1.max(1) - 1) / 2) as u32),
                head: None,
                position: Some(position),
            });
        }
    }
}

/// The sink rate of position 0, once, after the prompt.
fn sinks(step: u32, lane: u32, frame: &LaneFrame, new: &mut Vec<Finding>) {
    let a = &frame.attention;
    if step > 0 || a.rows < 8 {
        return;
    }
    let mut heads: Vec<(f32, usize, usize)> = Vec::new();
    for layer in 0..a.layers {
        for head in 0..a.heads {
            let at = a.at(layer, head, 0);
            heads.push((sink::alpha(a.first[at..at + a.rows].iter().sum(), a.rows, 0), layer, head));
        }
    }
    let rate = 100.0 * sink::rate(&heads.iter().map(|head| head.0).collect::<Vec<f32>>(), EPSILON);
    heads.retain(|head| head.0 > EPSILON);
    let Some(&(alpha, layer, head)) = heads.iter().max_by(|x, y| x.0.total_cmp(&y.0)) else { return };
    new.push(Finding {
        kind: FindingKind::AttentionSink,
        lane,
        step,
        title: format!("Position 0 is an attention sink in {} of {} heads", heads.len(), a.layers * a.heads),
        evidence: format!(
            "sink rate {rate:.1} % at T = {} (heads whose mean attention on position 0 exceeds {EPSILON}); strongest: layer \
             {layer} head {head} with {:.1} %",
            a.rows, 100.0 * alpha
        ),
        advice: "Exclude the sink column in the map to see the rest. A policy that drops position 0 (window) will hurt: \
                 compare it with streaming."
            .into(),
        layer: Some(layer as u32),
        head: Some(head as u32),
        position: Some(0),
    });
}

/// The first step in which a lane is about to say something else than lane 0.
fn diverged(frame: &Frame, i: usize, new: &mut Vec<Finding>) {
    let (first, lane) = (&frame.lanes[0], &frame.lanes[i]);
    let Some(against) = lane.against.filter(|a| a.same_prefix) else { return };
    if lane.next == first.next {
        return;
    }
    new.push(Finding {
        kind: FindingKind::Divergence,
        lane: i as u32,
        step: frame.step,
        title: format!("Lane {i} ({}) leaves lane 0 after step {}", lane.spec, frame.step),
        evidence: format!("KL(lane 0 ‖ lane {i}) = {:.4} nats at this step; top-1 differs: {}", against.kl, !against.top1_agrees),
        advice: "Compare the candidates of both lanes here; the policies view shows which positions the lane no longer holds."
            .into(),
        layer: None,
        head: None,
        position: None,
    });
}

fn ended(step: u32, lane: u32, frame: &LaneFrame, config: &Config, new: &mut Vec<Finding>) {
    if frame.next.is_some_and(|id| config.eos.contains(&id)) {
        new.push(Finding {
            kind: FindingKind::EndOfText,
            lane,
            step,
            title: format!("Lane {lane} ends its text after step {step}"),
            evidence: "the sampled token is one of the model's end-of-text ids".into(),
            advice: "Stepping on is possible; what follows is not what the model was trained to say.".into(),
            layer: None,
            head: None,
            position: None,
        });
    }
}
