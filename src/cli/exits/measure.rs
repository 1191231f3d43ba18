//! The measurements behind `exits`.

use miette::Result;
use rayon::prelude::*;

use super::Args;
use super::ask::DraftAsk;
use super::report::{Chance, Confidence, Depth, Draft, Report, Run, SCHEMA, Token};
use crate::cli::exit::Interrupted;
use crate::cli::prompt::{Prompt, spell};
use crate::cli::session::{Session, tell, told};
use crate::engine::{Pause, Speculated, Speculation};
use crate::probe::distribution::{Distribution, kl};
use crate::probe::draft::{acceptance, probabilities, speedup, tokens_per_look};
use crate::probe::exit::{Foresight, confident_exit, exit_depth};
use crate::probe::influence::Influence;

const CONFIDENCE: [f32; 3] = [0.5, 0.8, 0.95];

/// A draft on its way.
struct Trial {
    spec: String,
    skip: Vec<bool>,
    cost: f32,
    acceptance: Vec<f32>,
    agreement: Vec<bool>,
    kl: Vec<f32>,
    spoken: Option<Speculated>,
}

/// What each step has shown.
#[derive(Default)]
struct Steps {
    /// [steps][L + 1]
    seen: Vec<Vec<Foresight>>,
    acceptance: Vec<Vec<f32>>,
    fed: Vec<u32>,
}

pub fn measure(session: &mut Session, prompt: &Prompt, args: &Args) -> Result<Report> {
    let ids = prompt.encode(&session.model)?;
    // Drafts run ahead of the text.
    session.check(&ids, args.steps + args.gamma + 1)?;
    session.core.probes.timings = false;
    let influence = read(session, &ids)?;
    let by_sublayer = influence.influence();
    let mixed = !session.info.depth.edges.is_empty();
    let asked = match args.drafts.is_empty() {
        true => DraftAsk::usual(session.info.layers, mixed),
        false => args.drafts.clone(),
    };
    let mut trials = Vec::new();
    for ask in &asked {
        let skip = ask.skip(&by_sublayer)?;
        let cost = session.core.draft_cost(&skip);
        let (acceptance, agreement, kl) = (Vec::new(), Vec::new(), Vec::new());
        trials.push(Trial { spec: ask.to_string(), skip, cost, acceptance, agreement, kl, spoken: None });
    }
    let plain = speak(session, args, &[], 0)?;
    for trial in &mut trials {
        trial.spoken = Some(speak(session, args, &trial.skip, args.gamma)?);
    }
    let warm = if args.temperature == 0.0 { 1.0 } else { args.temperature };
    let steps = decode(session, args, warm, &mut trials)?;
    told();
    let tokens = tokens(session, &steps, ids.len());
    Ok(Report {
        schema: SCHEMA,
        model: session.info.id.clone(),
        device: session.info.device.clone(),
        precision: session.info.precision.clone(),
        prompt_tokens: ids.len(),
        gamma: args.gamma,
        temperature: args.temperature,
        acceptance_temperature: warm,
        layers: depths(session, args, &steps, &tokens),
        confidence: confidence(args, &steps, session.info.layers),
        tokens,
        influence: by_sublayer,
        alike_spans: influence.alike_spans(),
        drafts: trials.into_iter().map(|trial| trial.finish(args, &plain)).collect(),
        plain_tokens_per_s: per_second(&plain),
    })
}

/// Reads the prompt and looks at what each sublayer changes.
fn read(session: &mut Session, ids: &[u32]) -> Result<Influence> {
    let (layers, hidden) = (session.info.layers, session.info.hidden);
    let mut influence = Influence::new(layers);
    let interrupt = session.interrupt.clone();
    session.core.backend().save_all_points(true);
    let mut seen = 0;
    let frame = session.core.read_prompt(ids, |core, read| {
        seen += 1;
        // The last layer of a chunk: all points of its rows are there.
        if seen % layers == 0 {
            tell(&format!("reading the prompt: {read} of {} tokens", ids.len()));
            let backend = core.backend();
            let points: Vec<&[f32]> = (0..=2 * layers).map(|point| backend.residual(point)).collect();
            influence.add(&points, hidden);
        }
        if interrupt.check().is_err() { Pause::Stop } else { Pause::Continue }
    })?;
    session.core.backend().save_all_points(false);
    frame.ok_or(Interrupted)?;
    Ok(influence)
}

/// Decodes with `gamma` tokens drafted without the sublayers `skip` before each look.
fn speak(session: &mut Session, args: &Args, skip: &[bool], gamma: u32) -> Result<Speculated> {
    let interrupt = session.interrupt.clone();
    let how = Speculation { gamma, temperature: args.temperature, seed: args.seed, tokens: args.steps as usize + 1 };
    tell("decoding with drafts");
    let mut between = || if interrupt.check().is_err() { Pause::Stop } else { Pause::Continue };
    Ok(session.core.speculate(skip, how, &mut between)?.ok_or(Interrupted)?)
}

/// Steps lane 0, comparing what each depth and each draft says with what the model does.
fn decode(session: &mut Session, args: &Args, temperature: f32, trials: &mut [Trial]) -> Result<Steps> {
    let vocab = session.info.vocab;
    let mut steps = Steps::default();
    for step in 1..=args.steps {
        session.interrupt.check()?;
        tell(&format!("step {step} of {}", args.steps));
        let core = &mut session.core;
        let drafted = trials.iter().map(|trial| core.draft(&trial.skip)).collect::<Result<Vec<_>, _>>()?;
        let frame = core.step()?;
        steps.fed.extend(&*frame.lanes[0].fed);
        let logits = core.logits_by_layer()?;
        let Some(last) = logits.chunks_exact(vocab).next_back() else { continue };
        let (p, best) = (probabilities(last, temperature), Distribution::of(last).argmax);
        let accepted = |logits: &[f32]| acceptance(&p, &probabilities(logits, temperature));
        steps.seen.push(logits.par_chunks_exact(vocab).map(|layer| Foresight::of(layer, last)).collect());
        steps.acceptance.push(logits.par_chunks_exact(vocab).map(accepted).collect());
        for (trial, said) in trials.iter_mut().zip(&drafted) {
            trial.acceptance.push(accepted(said));
            trial.agreement.push(Distribution::of(said).argmax == best);
            trial.kl.push(kl(last, said));
        }
    }
    Ok(steps)
}

fn tokens(session: &Session, steps: &Steps, prompt: usize) -> Vec<Token> {
    let one = |(step, seen): (usize, &Vec<Foresight>)| {
        let best: Vec<u32> = seen.iter().map(|layer| layer.best).collect();
        let next = best.last().copied().unwrap_or_default();
        Token {
            position: prompt + step,
            fed: steps.fed[step],
            next,
            text: spell(&session.model, &[next]),
            exit_depth: exit_depth(&best),
            probability: seen.iter().map(|layer| layer.token_prob).collect(),
            rank: seen.iter().map(|layer| layer.token_rank).collect(),
            entropy: seen.iter().map(|layer| layer.entropy).collect(),
            kl: seen.iter().map(|layer| layer.kl).collect(),
        }
    };
    steps.seen.iter().enumerate().map(one).collect()
}

fn depths(session: &Session, args: &Args, steps: &Steps, tokens: &[Token]) -> Vec<Depth> {
    let layers = session.info.layers;
    let of = |depth: usize| {
        let at = |value: fn(&Foresight) -> f32| mean(steps.seen.iter().map(|seen| value(&seen[depth])));
        let mut ranks: Vec<u32> = steps.seen.iter().map(|seen| seen[depth].token_rank).collect();
        ranks.sort_unstable();
        let skip: Vec<bool> = (0..2 * layers).map(|i| i >= 2 * depth).collect();
        Depth {
            layers: depth,
            exits: share(tokens.iter().map(|token| token.exit_depth == depth)),
            agreement: share(steps.seen.iter().map(|seen| seen[depth].best == seen[layers].best)),
            probability: at(|layer| layer.token_prob),
            rank: ranks.get(ranks.len() / 2).copied().unwrap_or_default(),
            entropy: at(|layer| layer.entropy),
            kl: at(|layer| layer.kl),
            draft: Chance::new(
                mean(steps.acceptance.iter().map(|step| step[depth])),
                session.core.draft_cost(&skip),
                args.gamma,
            ),
        }
    };
    (0..=layers).map(of).collect()
}

fn confidence(args: &Args, steps: &Steps, layers: usize) -> Vec<Confidence> {
    let from = args.from.unwrap_or(layers / 2);
    let asked = if args.confidence.is_empty() { &CONFIDENCE[..] } else { &args.confidence };
    let one = |&at_least: &f32| {
        let exits: Vec<usize> = steps.seen.iter().map(|seen| confident_exit(seen, from, at_least)).collect();
        let agrees = |(seen, &exit): (&Vec<Foresight>, &usize)| seen[exit].best == seen[layers].best;
        Confidence {
            at_least,
            from,
            agreement: share(steps.seen.iter().zip(&exits).map(agrees)),
            layers_saved: mean(exits.iter().map(|exit| (layers - exit) as f32)),
            exits: (0..=layers).map(|depth| share(exits.iter().map(|&exit| exit == depth))).collect(),
        }
    };
    asked.iter().map(one).collect()
}

impl Trial {
    fn finish(self, args: &Args, plain: &Speculated) -> Draft {
        let spoken = self.spoken.as_ref().unwrap_or(plain);
        let wanted = args.steps as usize + 1;
        let same = spoken.tokens[..wanted] == plain.tokens[..wanted];
        Draft {
            spec: self.spec,
            skipped: (0..self.skip.len()).filter(|&i| self.skip[i]).collect(),
            agreement: share(self.agreement.into_iter()),
            kl: mean(self.kl.into_iter()),
            chance: Chance::new(mean(self.acceptance.into_iter()), self.cost, args.gamma),
            run: Run {
                tokens: spoken.tokens.len() - 1,
                looks: spoken.looks,
                drafted: spoken.drafted,
                accepted: spoken.accepted,
                tokens_per_look: (spoken.tokens.len() - 1) as f32 / spoken.looks.max(1) as f32,
                tokens_per_s: per_second(spoken),
                speedup: per_second(spoken) / per_second(plain),
                same_tokens: (args.temperature == 0.0).then_some(same),
            },
        }
    }
}

impl Chance {
    fn new(acceptance: f32, cost: f32, gamma: u32) -> Self {
        let (tokens_per_look, speedup) = (tokens_per_look(acceptance, gamma), speedup(acceptance, gamma, cost));
        Self { acceptance, cost, tokens_per_look, speedup }
    }
}

fn per_second(spoken: &Speculated) -> f64 {
    (spoken.tokens.len() - 1) as f64 / spoken.spent.as_secs_f64().max(1e-9)
}

fn mean(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = values.len().max(1);
    (values.map(f64::from).sum::<f64>() / count as f64) as f32
}

fn share(values: impl ExactSizeIterator<Item = bool>) -> f32 {
    mean(values.map(|value| value as u8 as f32))
}
