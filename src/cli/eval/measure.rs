//! One prompt through all lanes at once.

use std::ops::Range;

use miette::Result;

use super::record::{Asked, Mode, Outcome, mean};
use super::task::Item;
use crate::cli::session::Session;
use crate::engine::frame::{Frame, LaneFrame};
use crate::probe::survival::survival;

/// How each lane did. The answer is fed whatever a lane would have said (teacher forcing), which gives both numbers at
/// once: greedy decoding says the answer exactly if every one of its tokens is the most probable one after those before.
pub fn measure(session: &mut Session, item: &Item, mode: Mode, judged: bool) -> Result<Vec<Outcome>> {
    let full_layers: Vec<usize> = (0..session.info.layers).filter(|l| session.info.windows[*l].is_none()).collect();
    // What each question began with: the same reading for all where policies do not see it.
    let mut readings: Vec<Frame> = Vec::new();
    let mut asked: Vec<Vec<Asked>> = Vec::new();
    for (i, ask) in item.asks.iter().enumerate() {
        let mut fed = ask.lead.clone();
        match mode {
            Mode::Hidden => {
                fed = [&ask.question[..], &fed].concat();
                match i {
                    0 => readings.push(session.read(&item.context, |_| {})?),
                    _ => session.core.rewind(0)?,
                }
            }
            Mode::Visible => readings.push(session.read(&[&item.context[..], &ask.question].concat(), |_| {})?),
        }
        let lanes = &readings[readings.len() - 1].lanes;
        let answers = answer(session, &fed, &ask.answer)?;
        asked.resize(lanes.len(), Vec::new());
        for ((asked, lane), (found, nll)) in asked.iter_mut().zip(lanes).zip(answers) {
            let held = |span: &Range<u32>| {
                survival(&lane.kept, span.clone(), full_layers.iter().copied()).map(|left| left.share)
            };
            let nll = Some(nll).filter(|nll| nll.is_finite());
            asked.push(Asked { found: judged.then_some(found), nll, span_kept: ask.span.as_ref().and_then(held) });
        }
    }
    let shares = |of: &dyn Fn(&LaneFrame, &LaneFrame) -> f32, lane: usize| {
        mean(readings.iter().map(|frame| of(&frame.lanes[lane], &frame.lanes[0]))).unwrap_or(1.0)
    };
    let entries = |lane: &LaneFrame| full_layers.iter().map(|l| u64::from(lane.kv.slots_per_layer[*l])).sum::<u64>();
    let outcome = |(lane, asks): (usize, Vec<Asked>)| Outcome {
        asks,
        kept: shares(&|own, full| entries(own) as f32 / entries(full).max(1) as f32, lane),
        kv_share: shares(&|own, full| own.kv.held as f32 / full.kv.held.max(1) as f32, lane),
    };
    Ok(asked.into_iter().enumerate().map(outcome).collect())
}

/// Feeds `fed` and then `answer` to every lane; for each, whether the answer is what it would have said, and the mean
/// −ln p of its tokens.
fn answer(session: &mut Session, fed: &[u32], answer: &[u32]) -> Result<Vec<(bool, f32)>> {
    let lanes = session.core.lanes().len();
    let mut found = vec![true; lanes];
    let mut nll = vec![0.0f64; lanes];
    for (i, &token) in fed.iter().chain(answer).enumerate() {
        if let Some(&target) = i.checked_sub(fed.len()).and_then(|at| answer.get(at)) {
            for (lane, (found, nll)) in found.iter_mut().zip(&mut nll).enumerate() {
                *found &= session.core.lanes()[lane].outlook.all.argmax == target;
                *nll += f64::from(session.core.nll(lane, target)?);
            }
        }
        if i + 1 == fed.len() + answer.len() {
            break;
        }
        session.interrupt.check()?;
        for lane in 0..lanes as u32 {
            session.core.force(lane, token)?;
        }
        session.core.step()?;
    }
    let tokens = answer.len().max(1) as f64;
    Ok(found.into_iter().zip(nll).map(|(found, nll)| (found, (nll / tokens) as f32)).collect())
}
