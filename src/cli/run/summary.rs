//! The plain summary: the same run without a screen. The same input gives the same text: no times in it.

use std::fmt::Write;

use indicatif::HumanBytes;
use miette::Result;

use super::Args;
use crate::cli::exit::Interrupted;
use crate::cli::output::print;
use crate::cli::prompt::{Prompt, spell};
use crate::cli::session::{Session, tell, told};
use crate::engine::Pause;
use crate::engine::frame::{Finding, Frame};
use crate::tui::text::line;

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
    /// KL against lane 0 after each step that both took on the same tokens.
    kl: Vec<f32>,
    left_at: Option<u32>,
}

pub fn run(args: &Args) -> Result<()> {
    let lanes = args.lanes.specs()?;
    let prompt = Prompt::read(&args.prompt)?;
    let mut session = Session::open(&args.model, &args.model.options(lanes))?;
    let ids = prompt.encode(&session.model)?;
    session.check(&ids, args.steps)?;
    let interrupt = session.interrupt.clone();
    session.core.probes.timings = false;
    let frame = session.core.read_prompt(&ids, |_, read| {
        tell(&format!("reading the prompt: {read} of {} tokens", ids.len()));
        if interrupt.check().is_err() { Pause::Stop } else { Pause::Continue }
    })?;
    let mut frame = frame.ok_or(Interrupted)?;
    let mut lanes: Vec<Lane> =
        frame.lanes.iter().map(|lane| Lane { spec: lane.spec.to_string(), ..Lane::default() }).collect();
    for (lane, of) in lanes.iter_mut().zip(&frame.lanes) {
        (lane.held, lane.full) = (of.kv.held, of.kv.full);
    }
    let mut findings = std::mem::take(&mut frame.findings);
    for step in 1..=args.steps {
        interrupt.check()?;
        tell(&format!("step {step} of {}", args.steps));
        frame = session.core.step()?;
        follow(&mut lanes, &frame);
        findings.append(&mut frame.findings);
    }
    told();
    print(&text(&session, &prompt, &ids, &lanes, &findings))?;
    Ok(())
}

fn follow(lanes: &mut [Lane], frame: &Frame) {
    for (lane, of) in lanes.iter_mut().zip(&frame.lanes) {
        lane.ids.extend(of.fed.iter());
        match of.against {
            Some(against) if against.same_prefix => lane.kl.push(against.kl),
            Some(_) if lane.left_at.is_none() => lane.left_at = Some(frame.step),
            _ => {}
        }
    }
}

fn text(session: &Session, prompt: &Prompt, ids: &[u32], lanes: &[Lane], findings: &[Finding]) -> String {
    let info = &session.info;
    let mut out = format!(
        "model   {}: {}, {} layers, {} heads on {} kv heads, {:.0} M parameters, {}\n",
        line(&info.id),
        info.family,
        info.layers,
        info.heads,
        info.kv_heads,
        info.parameters as f64 / 1e6,
        info.weight_types
    );
    // Writing to a String cannot fail.
    let _ = writeln!(out, "runs on {}; {}, KV {}", info.device, info.precision, info.kv_type);
    let shown = match prompt {
        Prompt::Ids(_) => spell(&session.model, ids),
        Prompt::Text { text, .. } => text.clone(),
    };
    let name = prompt.sample().map_or(String::new(), |sample| format!(" ({})", sample.name));
    let _ = writeln!(out, "prompt  {} tokens{name}: {}", ids.len(), ends(&shown));
    if let Some(sample) = prompt.sample() {
        let _ = writeln!(out, "look    {}", sample.header.look);
    }
    let answer = prompt.sample().and_then(|sample| sample.header.answer.as_ref());
    for (i, lane) in lanes.iter().enumerate() {
        let _ = writeln!(out, "\nlane {i}  {}", lane.spec);
        let said = spell(&session.model, &lane.ids);
        let _ = writeln!(out, "  text  {}", line(&said));
        let share = 100.0 * lane.held as f64 / lane.full.max(1) as f64;
        let _ = writeln!(out, "  KV    {} after the prompt ({share:.1} % of full)", HumanBytes(lane.held));
        if i > 0 {
            let _ = writeln!(out, "  KL    {}", against(lane));
        }
        if let Some(answer) = answer {
            let found = if said.contains(answer.as_str()) { "found" } else { "not found" };
            let _ = writeln!(out, "  answer {} {found}", line(answer));
        }
    }
    if !findings.is_empty() {
        out.push_str("\nfindings\n");
    }
    for finding in findings.iter().take(FINDINGS) {
        let _ = writeln!(out, "  {}\n      {}", line(&finding.title), line(&finding.evidence));
    }
    if findings.len() > FINDINGS {
        let _ = writeln!(out, "  and {} more", findings.len() - FINDINGS);
    }
    out.truncate(out.trim_end().len());
    out
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
