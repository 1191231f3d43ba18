//! The measurements behind a comparison.

use std::collections::BTreeMap;

use miette::Result;

use super::damage::damage;
use super::hindsight::Hindsight;
use super::regret::Regrets;
use super::report::{LaneReport, Reads, SCHEMA, Scores, SpanLeft, Timings, Top};
use super::{Args, Report};
use crate::cli::prompt::{Prompt, spell};
use crate::cli::session::{Session, tell, told};
use crate::engine::frame::{Frame, Kept};
use crate::engine::is_oracle;
use crate::probe::coverage::mean_recall;
use crate::probe::damage::jaccard;

/// Reads the prompt, lets every lane go on for the steps asked for, and once more on lane 0's tokens where they did
/// not follow them anyway.
pub fn measure(session: &mut Session, prompt: &Prompt, args: &Args) -> Result<Report> {
    let ids = prompt.encode(&session.model)?;
    session.check(&ids, args.steps)?;
    args.judge.tell(&mut session.core, prompt, &ids)?;
    let frame = session.read(&ids, |read| tell(&format!("reading the prompt: {read} of {} tokens", ids.len())))?;
    let mut lanes = Vec::new();
    for lane in 0..frame.lanes.len() {
        lanes.push(after_prompt(session, &frame, lane, args.scores)?);
    }
    jaccards(&frame, &mut lanes);
    recalls(session, &mut lanes);
    let mut course = Course::new(&frame, args);
    course.follow(session, args, &mut lanes)?;
    let answer = args.answer.clone().or_else(|| prompt.sample().and_then(|s| s.header.answer.clone()));
    for lane in &mut lanes {
        lane.text = spell(&session.model, &lane.ids);
        lane.answer_found = answer.as_ref().map(|answer| lane.text.contains(answer.as_str()));
    }
    told();
    Ok(Report {
        schema: SCHEMA,
        model: session.info.id.clone(),
        model_sha256: session.model.sha256().map_err(crate::cli::exit::Io::while_("hash the model"))?.to_owned(),
        device: session.info.device.clone(),
        precision: session.info.precision.clone(),
        kv_type: session.info.kv_type.clone(),
        prompt_ids: ids,
        steps: args.steps,
        teacher_forced: args.teacher_forced,
        spans: frame.spans.to_vec(),
        lanes,
    })
}

/// Everything that is known before the first step.
fn after_prompt(session: &mut Session, frame: &Frame, lane: usize, scores: bool) -> Result<LaneReport> {
    let of = &frame.lanes[lane];
    let family = session.core.lanes()[lane].policy.families().next().map(|f| f.label().to_owned());
    let each = |kept: &Kept| {
        (0..kept.layers).map(|l| (0..kept.kv_heads).map(|g| kept.list(l, g)).collect()).collect::<Vec<Vec<_>>>()
    };
    let shared = session.core.lanes()[lane].shared.as_deref().cloned();
    let kept = each(&of.kept);
    let elements = 2 * session.core.config().head_dim * kept.iter().flatten().map(Vec::len).sum::<usize>();
    let first = |lane: usize| frame.lanes[lane].candidates.first().map(|c| c.id);
    Ok(LaneReport {
        spec: of.spec.to_string(),
        on_host: of.on_host,
        family: family.unwrap_or_default(),
        n_kept: kept.iter().map(|layer| layer.iter().map(Vec::len).collect()).collect(),
        kept,
        kv_bytes: of.kv.held,
        kv_bytes_full: of.kv.full,
        kv_bytes_end: of.kv.held,
        bits_per_element: 8.0 * of.kv.held as f32 / elements.max(1) as f32,
        first_token_equal: first(lane) == first(0),
        spans: frame.spans.iter().zip(&of.survival).map(|(span, &left)| SpanLeft::of(span, left)).collect(),
        damage: damage(&mut session.core, lane, &of.kept)?,
        scores: if scores { Some(raw_scores(session, lane)?) } else { None },
        sharing: shared,
        effect: of.effect,
        prompt_reads: of.reads.as_deref().map(Reads::of),
        timings: Timings { prompt_ns: frame.wall_ns, step_ns: Vec::new(), lanes_in_batch: frame.lanes.len() },
        ..LaneReport::default()
    })
}

fn raw_scores(session: &mut Session, lane: usize) -> Result<Scores> {
    let mut scores = Scores::default();
    for decision in session.core.prompt_decisions(lane)? {
        let decided = decision.map(|decision| decision.scores);
        let (values, forced) = decided.map_or_else(Default::default, |s| (s.values, s.forced));
        let places = |forced: &Vec<bool>| (0..).zip(forced).filter(|(_, f)| **f).map(|(p, _)| p).collect();
        scores.forced.push(forced.iter().map(places).collect());
        scores.values.push(values);
    }
    Ok(scores)
}

fn jaccards(frame: &Frame, lanes: &mut [LaneReport]) {
    for a in 0..lanes.len() {
        let mut to = BTreeMap::new();
        for b in (0..lanes.len()).filter(|b| *b != a) {
            let (ours, theirs) = (&lanes[a].kept, &lanes[b].kept);
            let all: Vec<f32> =
                ours.iter().flatten().zip(theirs.iter().flatten()).map(|(x, y)| jaccard(x, y)).collect();
            to.insert(frame.lanes[b].spec.to_string(), mean(&all).unwrap_or(1.0));
        }
        lanes[a].jaccard_to = to;
    }
}

/// Each lane against the oracles among the others.
fn recalls(session: &Session, lanes: &mut [LaneReport]) {
    let (core, prompt) = (&session.core, session.core.prompt_ids().len());
    for (report, lane) in lanes.iter_mut().zip(core.lanes()) {
        for oracle in core.lanes().iter().filter(|other| is_oracle(&other.policy)) {
            let recall = mean_recall(&lane.kept, &oracle.kept, prompt, core.evicting_layers());
            report.recall_of.extend(recall.map(|recall| (oracle.spec.to_string(), recall)));
        }
    }
}

/// The steps of all lanes, and what is gathered on the way.
struct Course {
    /// Lane 0's choices [N + 1].
    reference: Vec<u32>,
    /// Each lane's choice for its next step.
    next: Vec<u32>,
    regrets: Vec<Regrets>,
    agreed: Vec<u32>,
    hindsight: Hindsight,
}

impl Course {
    fn new(frame: &Frame, args: &Args) -> Self {
        let next: Vec<u32> = frame.lanes.iter().map(|lane| lane.next.unwrap_or(0)).collect();
        let lanes = frame.lanes.len();
        let regrets = (0..lanes).map(|_| Regrets::above(args.judge.regret_above)).collect();
        Self { reference: next[..1].to_vec(), next, regrets, agreed: vec![0; lanes], hindsight: Hindsight::default() }
    }

    fn follow(&mut self, session: &mut Session, args: &Args, lanes: &mut [LaneReport]) -> Result<()> {
        let count = lanes.len();
        for step in 1..=args.steps {
            session.interrupt.check()?;
            tell(&format!("step {step} of {}", args.steps));
            for (lane, next) in lanes.iter_mut().zip(&self.next) {
                lane.ids.push(*next);
            }
            if args.teacher_forced {
                force(session, count, self.next[0])?;
            }
            let held: Vec<_> = session.core.lanes().iter().map(|lane| lane.kept.clone()).collect();
            let frame = session.core.step()?;
            for (regrets, held) in self.regrets.iter_mut().zip(&held).skip(1) {
                regrets.look(&mut session.core, held, step);
            }
            self.hindsight.look(&mut session.core);
            self.take(&frame, lanes);
            if args.teacher_forced {
                forced(session, &frame, lanes)?;
            }
        }
        for (lane, regrets) in lanes.iter_mut().zip(std::mem::take(&mut self.regrets)) {
            lane.regret = regrets.strongest_first();
        }
        for lane in lanes.iter_mut() {
            lane.hindsight = self.hindsight.judge(&lane.kept);
        }
        if args.steps > 0 {
            for (lane, agreed) in lanes.iter_mut().zip(&self.agreed) {
                lane.top1_agree = Some(*agreed as f32 / args.steps as f32);
            }
        }
        if !args.teacher_forced {
            self.follow_reference(session, args.steps, lanes)?;
        }
        for lane in lanes.iter_mut() {
            lane.nll = mean(&lane.nll_steps);
        }
        let full = lanes.first().and_then(|lane| lane.nll);
        for lane in lanes.iter_mut().skip(1) {
            lane.delta_nll = lane.nll.zip(full).map(|(nll, full)| nll - full);
        }
        Ok(())
    }

    /// What one step of all lanes shows.
    fn take(&mut self, frame: &Frame, lanes: &mut [LaneReport]) {
        for (i, (lane, of)) in lanes.iter_mut().zip(&frame.lanes).enumerate() {
            let against = of.against;
            lane.kl.push(against.map_or(0.0, |a| a.kl));
            lane.same_prefix.push(against.is_none_or(|a| a.same_prefix));
            self.agreed[i] += against.is_none_or(|a| a.top1_agrees) as u32;
            lane.logits_top.push(of.candidates.iter().map(|c| Top { id: c.id, logit: c.logit }).collect());
            lane.kv_bytes_end = of.kv.held;
            if let Some(reads) = &of.reads {
                lane.reads.get_or_insert_default().add(reads);
            }
            lane.timings.step_ns.push(frame.wall_ns);
            self.next[i] = of.next.unwrap_or(0);
        }
        self.reference.push(self.next[0]);
    }

    /// Back to the prompt, and forward on lane 0's tokens.
    fn follow_reference(&mut self, session: &mut Session, steps: u32, lanes: &mut [LaneReport]) -> Result<()> {
        if steps == 0 {
            return Ok(());
        }
        session.core.rewind(0)?;
        for step in 1..=steps {
            session.interrupt.check()?;
            tell(&format!("step {step} of {steps} on lane 0's tokens"));
            force(session, lanes.len(), self.reference[step as usize - 1])?;
            let mut frame = session.core.step()?;
            // What lane 0 itself would draw does not matter here.
            frame.lanes[0].next = Some(self.reference[step as usize]);
            forced(session, &frame, lanes)?;
        }
        Ok(())
    }
}

fn force(session: &mut Session, lanes: usize, token: u32) -> Result<()> {
    for lane in 0..lanes as u32 {
        session.core.force(lane, token)?;
    }
    Ok(())
}

/// KL and NLL of a step in which all lanes were fed lane 0's token.
fn forced(session: &mut Session, frame: &Frame, lanes: &mut [LaneReport]) -> Result<()> {
    let target = frame.lanes[0].next.unwrap_or(0);
    for (lane, (report, of)) in lanes.iter_mut().zip(&frame.lanes).enumerate() {
        report.kl_teacher_forced.push(of.against.map_or(0.0, |a| a.kl));
        report.nll_steps.push(session.core.nll(lane, target)?);
        report.covered_mass.extend(of.covered);
    }
    Ok(())
}

pub fn mean(values: &[f32]) -> Option<f32> {
    let sum: f64 = values.iter().map(|&v| v as f64).sum();
    (!values.is_empty()).then(|| (sum / values.len() as f64) as f32)
}
