//! A table with a row for each step and lane (RFC 4180; an empty field is a number that there is not).

use std::io::Write;

use super::{Failed, frames};
use crate::trace::Trace;

const COLUMNS: &str = "step,lane,spec,position,tokens,fed,fed_text,next,next_text,runner_up,runner_up_text,margin,\
    argmax,entropy,nll,kl,top1_agrees,same_prefix,kv_bytes,kv_bytes_full,kv_entries,residual_l2_last,\
    residual_absmax,attention_entropy_mean,attention_first_mean,wall_ns,ops_ns,findings";

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

fn field<T: ToString>(value: Option<T>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

fn finite(value: f32) -> Option<f32> {
    Some(value).filter(|v| v.is_finite())
}

/// Mean over what has been measured.
fn mean(values: &[f32]) -> Option<f32> {
    let (sum, n) = values.iter().filter(|v| v.is_finite()).fold((0.0, 0), |(sum, n), v| (sum + v, n + 1));
    (n > 0).then(|| sum / n as f32)
}

/// `shown` makes a text from the trace fit to stand in a table. `fed` is the last token fed in the step; residual and attention
/// are those of all rows of the step (in step 0, of the whole prompt), `residual_l2_last` of the last row after the
/// last layer. Nats, bytes, nanoseconds.
pub fn csv(trace: &mut Trace, shown: &dyn Fn(&str) -> String, out: &mut impl Write) -> Result<(), Failed> {
    write!(out, "{COLUMNS}\r\n")?;
    let speller = trace.speller();
    let token = |id: u32| quoted(&shown(&(speller.0)(id)));
    frames(trace, |frame| {
        let ops: u64 = frame.ops.iter().fold(0, |sum, op| sum.saturating_add(op.total_ns));
        for (i, lane) in frame.lanes.iter().enumerate() {
            let fed = lane.fed.last().copied();
            let against = lane.against;
            let runner_up = lane.pick.and_then(|pick| pick.runner_up);
            let findings = frame.findings.iter().filter(|f| f.lane as usize == i).count();
            let row = [
                frame.step.to_string(),
                i.to_string(),
                quoted(&shown(&lane.spec)),
                (lane.pos as usize + lane.fed.len()).saturating_sub(1).to_string(),
                lane.fed.len().to_string(),
                field(fed),
                field(fed.map(&token)),
                field(lane.next),
                field(lane.next.map(&token)),
                field(runner_up),
                field(runner_up.map(&token)),
                field(lane.pick.and_then(|pick| finite(pick.margin))),
                field(lane.candidates.first().map(|c| c.id)),
                field(finite(lane.entropy)),
                field(lane.nll.and_then(finite)),
                field(against.and_then(|a| finite(a.kl))),
                field(against.map(|a| a.top1_agrees)),
                field(against.map(|a| a.same_prefix)),
                lane.kv.held.to_string(),
                lane.kv.full.to_string(),
                lane.kv.slots_per_layer.iter().map(|n| u64::from(*n)).sum::<u64>().to_string(),
                field(lane.residual.l2.last().copied().and_then(finite)),
                field(lane.residual.absmax.iter().copied().filter(|v| v.is_finite()).reduce(f32::max)),
                field(mean(&lane.attention.entropy)),
                field(mean(&lane.attention.first)),
                frame.wall_ns.to_string(),
                ops.to_string(),
                findings.to_string(),
            ];
            write!(out, "{}\r\n", row.join(","))?;
        }
        Ok(())
    })
}
