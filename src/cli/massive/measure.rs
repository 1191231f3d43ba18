//! The measurements behind it: every text is read once to find its massive elements, and once more with them set.

use std::collections::BTreeMap;
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use miette::Result;

use super::Args;
use super::report::{Channel, Intervention, Onset, Report, Run, SCHEMA};
use crate::backend::alter::Short;
use crate::cli::args::no_tokenizer;
use crate::cli::exit::Usage;
use crate::cli::prompt::file;
use crate::cli::session::Session;
use crate::engine::Trial;
use crate::model::alteration::{Alterations, SetChannel, Tokens};
use crate::probe::massive::{self, Element, F16_DANGER, Magnitudes, Massive, Tally};
use crate::probe::sink;

/// The default source, behind the header of each sample.
const TEXTS: [&str; 8] = [
    include_str!("../eval/task/prose.txt"),
    include_str!("../../../sample-prompts/essay.md"),
    include_str!("../../../sample-prompts/needle.md"),
    include_str!("../../../sample-prompts/multikey.md"),
    include_str!("../../../sample-prompts/sink.md"),
    include_str!("../../../sample-prompts/code.md"),
    include_str!("../../../sample-prompts/instructions.md"),
    include_str!("../../../sample-prompts/induction.md"),
];

pub fn measure(session: &mut Session, args: &Args) -> Result<Report> {
    let length = args.length as usize;
    let (source, ids) = source(session, args)?;
    let bos = session.core.config().bos;
    let mut runs = Vec::new();
    let mut read = 0;
    for bos in bos.map(Some).into_iter().chain([None]) {
        let body = length - bos.is_some() as usize;
        let starts = starts(ids.len(), body, args.texts as usize);
        let text = |&start: &usize| bos.into_iter().chain(ids[start..start + body].iter().copied()).collect();
        let texts: Vec<Vec<u32>> = starts.iter().map(text).collect();
        if texts.is_empty() {
            let what = format!("{source} has {} tokens: too few for one text of {length}", ids.len());
            return Err(Usage::new(what, "give a longer --file, or a smaller --length").into());
        }
        read = texts.len();
        runs.push(run(session, &texts, bos.is_some())?);
    }
    let info = &session.info;
    Ok(Report {
        schema: SCHEMA,
        model: info.id.clone(),
        device: info.device.clone(),
        precision: info.precision.clone(),
        source,
        texts: read,
        length,
        runs,
    })
}

/// What the texts are cut from: its name, and its tokens without a BOS.
fn source(session: &Session, args: &Args) -> Result<(String, Vec<u32>)> {
    let tokenizer = session.model.tokenizer.as_ref().ok_or_else(no_tokenizer)?;
    let (name, text) = match &args.file {
        Some(path) => (path.display().to_string(), file(path)?),
        None => {
            let plain = |file: &'static str| file.split_once("\n+++\n").map_or(file, |(_, text)| text).trim();
            ("the prose and prompts that come along".to_owned(), TEXTS.map(plain).join("\n\n"))
        }
    };
    Ok((name, tokenizer.encode(&text, false)?))
}

/// Where `count` texts of `length` tokens begin, evenly from the first token to the last of `tokens`; they overlap where
/// there is too little for them to stand apart.
fn starts(tokens: usize, length: usize, count: usize) -> Vec<usize> {
    match tokens.checked_sub(length) {
        None => Vec::new(),
        Some(room) if room + 1 < count => (0..=room).collect(),
        Some(room) => (0..count).map(|i| if count > 1 { i * room / (count - 1) } else { 0 }).collect(),
    }
}

/// One text, read as it is.
struct Found {
    point: Option<usize>,
    elements: Vec<Element>,
}

fn bar(what: &str, texts: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
    ProgressBar::new(texts as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what.to_owned())
}

fn run(session: &mut Session, texts: &[Vec<u32>], bos: bool) -> Result<Run> {
    let (hidden, sublayers) = (session.core.config().hidden, 2 * session.core.config().layers.len());
    let mut all: Vec<Tally> = (0..=sublayers).map(|_| Tally::default()).collect();
    let mut found = Vec::new();
    let progress = bar(if bos { "with BOS: looking" } else { "looking" }, texts.len());
    for text in texts {
        session.interrupt.check()?;
        let mut own: Vec<Tally> = (0..=sublayers).map(|_| Tally::default()).collect();
        let mut look = |point: usize, first: u32, rows: &[f32]| {
            own[point].add(first, rows, hidden);
            all[point].add(first, rows, hidden);
        };
        session.core.trials(text, &[Arc::default()], Some(&mut look))?;
        let points: Vec<Magnitudes> = own.iter().map(Tally::finish).collect();
        let point = massive::onset(&points);
        let elements = point.map_or_else(Vec::new, |point| points[point].massive().copied().collect());
        found.push(Found { point, elements });
        progress.inc(1);
    }
    progress.finish_and_clear();
    let points: Vec<Magnitudes> = all.iter().map(Tally::finish).collect();
    let channels = channels(&found);
    let altered = altered(session, texts, &found, &channels, bos)?;
    let outputs = |layer: &usize| points[2 * layer + 2].top.iter().any(|e| e.massive == Some(Massive::Yes));
    let layers: Vec<usize> = (0..sublayers / 2).filter(outputs).collect();
    let most = points.iter().flat_map(|point| &point.top).fold(0.0f32, |most, e| most.max(e.value.abs()));
    let onset = usual_onset(&found);
    Ok(Run {
        bos,
        layers: layers.first().zip(layers.last()).map(|(&first, &last)| [first, last]),
        onset: onset.map(|(point, texts)| Onset { point, writer: massive::writer(point), texts, channels }),
        points,
        most,
        f16_overflow: most > F16_DANGER,
        ..altered
    })
}

/// Where most texts have their first massive elements, the earlier of equals, and in how many it is there.
fn usual_onset(found: &[Found]) -> Option<(usize, usize)> {
    let mut texts: BTreeMap<usize, usize> = BTreeMap::new();
    found.iter().filter_map(|text| text.point).for_each(|point| *texts.entry(point).or_default() += 1);
    texts.into_iter().max_by_key(|&(point, texts)| (texts, std::cmp::Reverse(point)))
}

/// Of every channel in which elements are massive.
fn channels(found: &[Found]) -> Vec<Channel> {
    let mut values: BTreeMap<u32, [Vec<f32>; 2]> = BTreeMap::new();
    for element in found.iter().flat_map(|text| &text.elements) {
        values.entry(element.channel).or_default()[(element.position > 0) as usize].push(element.value);
    }
    let mean = |values: &[f32]| {
        let sum: f64 = values.iter().map(|&x| x as f64).sum();
        (!values.is_empty()).then(|| (sum / values.len() as f64) as f32)
    };
    let channel = |(channel, [first, later]): (u32, [Vec<f32>; 2])| Channel {
        channel,
        first: first.len(),
        later: later.len(),
        first_mean: mean(&first),
        later_mean: mean(&later),
    };
    values.into_iter().map(channel).collect()
}

/// The elements of a text, set to zero or to the mean of their kind.
fn set(found: &Found, channels: &[Channel], to_mean: bool) -> Arc<Alterations> {
    let Some(point) = found.point else { return Arc::default() };
    let set = |element: &Element| {
        let of = channels.iter().find(|of| of.channel == element.channel);
        let mean = of.and_then(|of| if element.position == 0 { of.first_mean } else { of.later_mean });
        let value = if to_mean { mean.unwrap_or(element.value) } else { 0.0 };
        let tokens = Tokens::At(vec![element.position]);
        SetChannel { point, channel: element.channel as usize, value, tokens }
    };
    Arc::new(Alterations { channels: found.elements.iter().map(set).collect(), ..Alterations::default() })
}

/// Sums over texts of one way of reading them.
#[derive(Default)]
struct Sums {
    nll: f64,
    before: f64,
    kl: f64,
    flips: f64,
    sink_rate: f64,
}

/// All texts with their massive elements as they are, set to zero, set to their mean, and with the stream in bf16 and
/// f16; the rest of the report stays empty.
fn altered(session: &mut Session, texts: &[Vec<u32>], found: &[Found], channels: &[Channel], bos: bool) -> Result<Run> {
    let any = found.iter().any(|text| text.point.is_some());
    let cast = |short| Arc::new(Alterations { cast: Some(short), ..Alterations::default() });
    let names: Vec<&'static str> = if any {
        vec!["massive to zero", "massive to mean", "stream in bf16", "stream in f16"]
    } else {
        vec!["stream in bf16", "stream in f16"]
    };
    let mut sums: Vec<Sums> = names.iter().map(|_| Sums::default()).collect();
    let (mut rate, mut drains, mut phis) = (0.0, Vec::new(), [[0usize; 2]; 2]);
    let (hidden, layers) = (session.core.config().hidden, session.core.config().layers.len());
    let d_sink: Vec<u32> = channels.iter().map(|channel| channel.channel).collect();
    let progress = bar(if bos { "with BOS: setting" } else { "setting" }, texts.len());
    for (text, found) in texts.iter().zip(found) {
        session.interrupt.check()?;
        let mut by = vec![Arc::<Alterations>::default()];
        if any {
            by.extend([set(found, channels, false), set(found, channels, true)]);
        }
        by.extend([cast(Short::Bf16), cast(Short::F16)]);
        let mut look = |point: usize, first: u32, rows: &[f32]| {
            // after the middle layer's MLP
            if point == layers / 2 * 2 {
                for (position, row) in (first..).zip(rows.chunks_exact(hidden)) {
                    let [count, passed] = &mut phis[(position > 0) as usize];
                    *count += 1;
                    *passed += (sink::phi(row, &d_sink) >= sink::TAU) as usize;
                }
            }
        };
        let trials = session.core.trials(text, &by, Some(&mut look))?;
        let width = (text.len() - 1) * hidden;
        let before = session.core.logits_of(&trials[0].hidden[..width])?;
        rate += trials[0].sink_rate() as f64 / texts.len() as f64;
        drains.extend(drained(&trials[0], session));
        for (sums, trial) in sums.iter_mut().zip(&trials[1..]) {
            let difference = session.core.difference(&before, &trial.hidden[..width], &text[1..])?;
            let share = 1.0 / texts.len() as f64;
            sums.nll += difference.nll as f64 * share;
            sums.before += difference.nll_before as f64 * share;
            sums.kl += difference.kl as f64 * share;
            sums.flips += difference.flips as f64 * share;
            sums.sink_rate += trial.sink_rate() as f64 * share;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    let intervention = |(name, sums): (&'static str, &Sums)| Intervention {
        name,
        nll: sums.nll as f32,
        perplexity: sums.nll.exp() as f32,
        kl: sums.kl as f32,
        flips: sums.flips as f32,
        sink_rate: sums.sink_rate as f32,
    };
    let nll = sums.first().map_or(f64::NAN, |sums| sums.before);
    drains.sort_by(|a: &(bool, f32), b| a.1.total_cmp(&b.1));
    let share = |[count, passed]: [usize; 2]| passed as f32 / count.max(1) as f32;
    Ok(Run {
        bos,
        points: Vec::new(),
        layers: None,
        onset: None,
        most: 0.0,
        f16_overflow: false,
        sink_rate: rate as f32,
        drained: drains.iter().filter(|drain| drain.0).count() as f32 / drains.len().max(1) as f32,
        value_ratio: drains.get(drains.len() / 2).map_or(f32::NAN, |drain| drain.1),
        generic_sinks: phis.map(share),
        nll: nll as f32,
        perplexity: nll.exp() as f32,
        interventions: names.into_iter().zip(&sums).map(intervention).collect(),
    })
}

/// Of each kv head with a query head that looks at the first token: whether its value is drained, and ‖v_0‖ / median ‖v‖.
fn drained(trial: &Trial, session: &Session) -> Vec<(bool, f32)> {
    let group = session.core.config().heads / session.core.config().kv_heads;
    let heads = trial.alphas.chunks_exact(group).zip(&trial.value_norms);
    let looked_at = heads.filter(|(alphas, _)| alphas.iter().any(|alpha| *alpha > sink::DRAIN_ALPHA));
    looked_at.filter_map(|(_, norms)| sink::drain(norms, 0)).map(|d| (d.drained, d.norm / d.median)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_reach_from_the_first_token_to_the_last() {
        assert_eq!(starts(100, 10, 4), [0, 30, 60, 90]);
        assert_eq!(starts(12, 10, 9), [0, 1, 2]);
        assert_eq!(starts(100, 10, 1), [0]);
        assert!(starts(9, 10, 4).is_empty());
    }

    #[test]
    fn an_element_becomes_the_mean_of_its_kind() {
        let element =
            |position, value| Element { position, channel: 3, value, ratio: 1e4, massive: Some(Massive::Yes) };
        let of = |elements: Vec<Element>| Found { point: Some(6), elements };
        assert_eq!(usual_onset(&[4, 6, 6].map(|point| Found { point: Some(point), elements: vec![] })), Some((6, 2)));
        assert_eq!(usual_onset(&[Found { point: None, elements: vec![] }]), None);
        let found = [of(vec![element(0, 900.0), element(5, -80.0)]), of(vec![element(0, 1100.0)])];
        let channels = channels(&found);
        assert_eq!((channels[0].first, channels[0].later, channels[0].first_mean), (2, 1, Some(1000.0)));
        let values =
            |to_mean| set(&found[0], &channels, to_mean).channels.iter().map(|set| set.value).collect::<Vec<_>>();
        assert_eq!((values(true), values(false)), (vec![1000.0, -80.0], vec![0.0, 0.0]));
    }
}
