//! The plain summary of a run: what a screen would show, as text. The same run gives the same text: no times in it.

use std::fmt::Write;

use indicatif::HumanBytes;

use crate::engine::frame::{Finding, Frame};
use crate::engine::message::ModelInfo;
use crate::tui::text::{line, token};

/// Characters shown of the prompt, from each end.
const ENDS: usize = 120;
const FINDINGS: usize = 8;

/// What one lane did.
#[derive(Default)]
struct Lane {
    spec: String,
    ids: Vec<u32>,
    held: u64,
    full: u64,
    /// Each part of the prompt, and the share that is held after it.
    left: Vec<(String, f32)>,
    /// KL against lane 0 after each step that both took on the same tokens.
    kl: Vec<f32>,
    left_at: Option<u32>,
    /// The draw of least margin: the step after which, winner, runner-up, nats.
    closest: Option<(u32, u32, u32, f32)>,
    /// Bytes of logits that steps did not keep, and how many steps.
    dropped: (u64, u32),
}

/// What is known of the prompt beside its ids.
#[derive(Debug, Default)]
pub struct Asked<'a> {
    pub text: String,
    pub name: Option<&'a str>,
    /// What there is to see.
    pub look: Option<&'a str>,
    /// What a model that understood says.
    pub answer: Option<&'a str>,
}

#[derive(Default)]
pub struct Summary {
    lanes: Vec<Lane>,
    prompt: usize,
    findings: Vec<Finding>,
}

impl Summary {
    /// Frames in the order of their steps, the prompt's first.
    pub fn take(&mut self, frame: &Frame) {
        if frame.step == 0 {
            self.prompt = frame.lanes.first().map_or(0, |lane| lane.fed.len());
        }
        for (i, of) in frame.lanes.iter().enumerate() {
            if i == self.lanes.len() {
                let spec = line(&of.title());
                let left = frame.spans.iter().zip(&of.survival).map(|(span, left)| (line(&span.name), left.share));
                let left = left.collect();
                self.lanes.push(Lane { spec, held: of.kv.held, full: of.kv.full, left, ..Lane::default() });
            }
            let lane = &mut self.lanes[i];
            if let (Some(pick), Some(next)) = (of.pick, of.next) {
                lane.dropped.0 = lane.dropped.0.saturating_add(pick.dropped);
                lane.dropped.1 += u32::from(pick.dropped > 0);
                let closer = lane.closest.is_none_or(|(.., margin)| pick.margin < margin);
                if let Some(runner_up) = pick.runner_up.filter(|_| closer) {
                    lane.closest = Some((frame.step, next, runner_up, pick.margin));
                }
            }
            if frame.step == 0 {
                continue;
            }
            lane.ids.extend(of.fed.iter());
            match of.against {
                Some(against) if against.same_prefix => lane.kl.push(against.kl),
                Some(_) if lane.left_at.is_none() => lane.left_at = Some(frame.step),
                _ => {}
            }
        }
        self.findings.extend(frame.findings.iter().cloned());
    }

    pub fn text(&self, info: &ModelInfo, asked: &Asked, spell: impl Fn(&[u32]) -> String) -> String {
        let mut out = format!(
            "model   {}: {}, {} layers, {} heads on {} kv heads, {:.0} M parameters, {}\n",
            line(&info.id),
            line(&info.family),
            info.layers,
            info.heads,
            info.kv_heads,
            info.parameters as f64 / 1e6,
            line(&info.weight_types)
        );
        // Writing to a String cannot fail.
        let _ = writeln!(out, "runs on {}; {}, KV {}", line(&info.device), line(&info.precision), line(&info.kv_type));
        let name = asked.name.map_or(String::new(), |name| format!(" ({name})"));
        let _ = writeln!(out, "prompt  {} tokens{name}: {}", self.prompt, ends(&asked.text));
        if let Some(look) = asked.look {
            let _ = writeln!(out, "look    {look}");
        }
        for (i, lane) in self.lanes.iter().enumerate() {
            let _ = writeln!(out, "\nlane {i}  {}", lane.spec);
            let said = spell(&lane.ids);
            let _ = writeln!(out, "  text  {}", line(&said));
            if let Some((step, winner, runner_up, margin)) = lane.closest {
                let [winner, runner_up] = [winner, runner_up].map(|id| token(&spell(&[id])));
                let _ = writeln!(out, "  close {winner} before {runner_up} by {margin:.4} nats, after step {step}");
            }
            if lane.dropped.1 > 0 {
                let (bytes, steps) = lane.dropped;
                let _ = writeln!(out, "  logits of {steps} steps not kept: {}", HumanBytes(bytes));
            }
            let share = 100.0 * lane.held as f64 / lane.full.max(1) as f64;
            let _ = writeln!(out, "  KV    {} after the prompt ({share:.1} % of full)", HumanBytes(lane.held));
            if i > 0 {
                let left = lane.left.iter().map(|(span, share)| format!("{span} {:.1} %", 100.0 * share));
                let left: Vec<String> = left.collect();
                if !left.is_empty() {
                    let _ = writeln!(out, "  holds {}", left.join(", "));
                }
                let _ = writeln!(out, "  KL    {}", against(lane));
            }
            if let Some(answer) = asked.answer {
                let found = if said.contains(answer) { "found" } else { "not found" };
                let _ = writeln!(out, "  answer {} {found}", line(answer));
            }
        }
        if !self.findings.is_empty() {
            out.push_str("\nfindings\n");
        }
        for finding in self.findings.iter().take(FINDINGS) {
            let _ = writeln!(out, "  {}\n      {}", line(&finding.title), line(&finding.evidence));
        }
        if self.findings.len() > FINDINGS {
            let _ = writeln!(out, "  and {} more", self.findings.len() - FINDINGS);
        }
        out.truncate(out.trim_end().len());
        out
    }
}

fn against(lane: &Lane) -> String {
    let Some(first) = lane.kl.first() else { return "no step was taken".into() };
    let mean = lane.kl.iter().sum::<f32>() / lane.kl.len() as f32;
    let until = match lane.left_at {
        Some(step) => format!("leaves lane 0's text at step {step}"),
        None => "same text as lane 0".into(),
    };
    format!("{first:.6} nats at step 1, {mean:.6} mean while on the same text; {until}")
}

/// Both ends of a text, on one line.
fn ends(text: &str) -> String {
    let count = text.chars().count();
    if count <= 2 * ENDS {
        return line(text);
    }
    let head: String = text.chars().take(ENDS).collect();
    let tail: String = text.chars().skip(count - ENDS).collect();
    format!("{} … {}", line(&head), line(&tail))
}
