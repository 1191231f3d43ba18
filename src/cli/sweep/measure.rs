//! The measurements behind a sweep: as many knocked out at once as a pass has room for.

use std::sync::Arc;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use miette::Result;

use super::report::{Knocked, Report, SCHEMA};
use super::{Args, Over};
use crate::cli::exit::Usage;
use crate::cli::prompt::Prompt;
use crate::cli::session::Session;
use crate::engine::{Core, EngineError};
use crate::model::alteration::Alterations;

/// One place to knock out.
struct Place {
    spec: String,
    layer: usize,
    head: Option<usize>,
    by: Arc<Alterations>,
}

fn places(over: Over, layers: usize, heads: usize) -> Vec<Place> {
    let sublayers = |layer: usize| match over {
        Over::Attention => vec![2 * layer],
        Over::Mlp => vec![2 * layer + 1],
        Over::Layers | Over::Heads => vec![2 * layer, 2 * layer + 1],
    };
    let whole = |layer: usize| {
        let sublayers = sublayers(layer).into_iter().map(|sublayer| (sublayer, 0.0)).collect();
        let what = match over {
            Over::Attention => ",sublayer=attention",
            Over::Mlp => ",sublayer=mlp",
            Over::Layers | Over::Heads => "",
        };
        let by = Arc::new(Alterations { sublayers, ..Alterations::default() });
        Place { spec: format!("zerolayer:layer={layer}{what}"), layer, head: None, by }
    };
    let head = |layer: usize, head: usize| {
        let by = Arc::new(Alterations { heads: vec![(layer, head)], ..Alterations::default() });
        Place { spec: format!("zerohead:layer={layer},head={head}"), layer, head: Some(head), by }
    };
    match over {
        Over::Heads => (0..layers).flat_map(|layer| (0..heads).map(move |h| head(layer, h))).collect(),
        _ => (0..layers).map(whole).collect(),
    }
}

/// Draws nothing where nobody looks at standard error.
fn bar(places: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}");
    ProgressBar::new(places as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

pub fn measure(session: &mut Session, prompt: &Prompt, args: &Args) -> Result<Report> {
    let mut ids = prompt.encode(&session.model)?;
    ids.truncate(args.tokens as usize);
    session.check(&ids, 0)?;
    if ids.len() < 2 {
        return Err(Usage::new(
            "the prompt has one token only",
            "give a longer one: each token is judged by those before it",
        )
        .into());
    }
    let (layers, heads, hidden) =
        (session.core.config().layers.len(), session.core.config().heads, session.core.config().hidden);
    let judged = (ids.len() - 1) * hidden;
    let plain = session.core.trials(&ids, &[Arc::default()], None)?.remove(0);
    let before = session.core.logits_of(&plain.hidden[..judged])?;
    let nll = session.core.difference(&before, &plain.hidden[..judged], &ids[1..])?.nll_before;
    let places = places(args.over, layers, heads);
    let progress = bar(places.len()).with_message("knocking out");
    let (mut ranked, mut complete) = (Vec::with_capacity(places.len()), true);
    for some in places.chunks(session.core.trials_at_once(ids.len())) {
        let by: Vec<Arc<Alterations>> = some.iter().map(|place| place.by.clone()).collect();
        let mut one_pass = || -> Result<Vec<Knocked>, EngineError> {
            let trials = session.core.trials(&ids, &by, None)?;
            let pairs = some.iter().zip(trials);
            pairs
                .map(|(place, trial)| {
                    let difference = session.core.difference(&before, &trial.hidden[..judged], &ids[1..])?;
                    Ok(Knocked {
                        spec: place.spec.clone(),
                        layer: place.layer,
                        head: place.head,
                        delta_nll: difference.cost(),
                        sink_rate: trial.sink_rate(),
                        difference,
                    })
                })
                .collect()
        };
        match one_pass() {
            Ok(knocked) => ranked.extend(knocked),
            Err(error) if Core::is_interrupted(&error) => complete = false,
            Err(error) => return Err(error.into()),
        }
        progress.inc(some.len() as u64);
        if !complete || session.interrupt.check().is_err() {
            complete &= ranked.len() == places.len();
            break;
        }
    }
    progress.finish_and_clear();
    ranked.sort_by(|a, b| b.delta_nll.total_cmp(&a.delta_nll));
    let info = &session.info;
    Ok(Report {
        schema: SCHEMA,
        model: info.id.clone(),
        device: info.device.clone(),
        precision: info.precision.clone(),
        over: args.over.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned()),
        ids,
        complete,
        of: places.len(),
        nll,
        sink_rate: plain.sink_rate(),
        ranked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    #[test]
    fn every_place_is_a_lane_that_does_the_same() {
        assert_eq!(
            [Over::Heads, Over::Layers, Over::Attention, Over::Mlp].map(|over| places(over, 3, 4).len()),
            [12, 3, 3, 3]
        );
        for over in [Over::Heads, Over::Layers, Over::Attention, Over::Mlp] {
            for place in places(over, 2, 2) {
                let policy = Policy::parse(&place.spec).unwrap();
                assert!(policy.intervenes(), "{}", place.spec);
            }
        }
        assert_eq!(places(Over::Attention, 2, 2)[1].by.sublayers, [(2, 0.0)]);
        assert_eq!(places(Over::Layers, 2, 2)[1].by.sublayers, [(2, 0.0), (3, 0.0)]);
        assert_eq!(places(Over::Heads, 2, 2)[3].by.heads, [(1, 1)]);
    }
}
