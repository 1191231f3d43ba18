//! The measurements behind `order`.

use std::ops::Range;

use miette::Result;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::arrange::{Arranged, arrange};
use super::report::{Order, Part, Place, Report, SCHEMA};
use super::{Args, By};
use crate::cli::args::no_tokenizer;
use crate::cli::exit::Usage;
use crate::cli::prompt::{Prompt, spell};
use crate::cli::session::{Session, tell, told};
use crate::engine::frame::{Frame, PromptSpan};
use crate::probe::prompt_span::Unit;

pub fn measure(session: &mut Session, prompt: &Prompt, args: &Args) -> Result<Report> {
    let ids = prompt.encode(&session.model)?;
    let answer = args.answer.clone().or_else(|| prompt.sample().and_then(|s| s.header.answer.clone()));
    let right = answer.as_deref().map(|answer| continuation(session, &ids, answer)).transpose()?.unwrap_or_default();
    session.check(&ids, args.steps.max(right.len() as u32))?;
    session.core.probes.timings = false;
    let spans = parts(session, &ids, args)?;
    let places: Vec<Range<usize>> = spans.iter().map(|s| s.from as usize..s.to as usize).collect();
    let mut orders: Vec<Order> = Vec::new();
    let asked = orders_of(places.len(), args);
    for (i, order) in asked.iter().enumerate() {
        tell(&format!("order {i} of {}", asked.len() - 1));
        let arranged = arrange(&ids, &places, order);
        let mut one = answered(session, &arranged, order.clone(), &right, args.steps)?;
        one.found = answer.as_ref().map(|answer| one.text.contains(answer.as_str()));
        let own = orders.first().map_or(&one.ids, |own| &own.ids);
        one.same_tokens = one.ids.iter().zip(own).take_while(|(a, b)| a == b).count();
        orders.push(one);
    }
    told();
    let needle = prompt.sample().and_then(|sample| sample.header.needle.clone()).or_else(|| answer.clone());
    let parts: Vec<Part> =
        spans.iter().enumerate().map(|(i, span)| part(session, &ids, span, i, &needle, &orders)).collect();
    Ok(Report {
        schema: SCHEMA,
        model: session.info.id.clone(),
        device: session.info.device.clone(),
        precision: session.info.precision.clone(),
        prompt_tokens: ids.len(),
        seed: args.seed,
        answer,
        places: by_place(&parts, &orders),
        parts,
        orders,
    })
}

/// The tokens that `answer` adds behind the prompt: with a blank before it where the prompt ends in a word.
fn continuation(session: &Session, ids: &[u32], answer: &str) -> Result<Vec<u32>> {
    let tokenizer = session.model.tokenizer.as_ref().ok_or_else(no_tokenizer)?;
    let text = spell(&session.model, ids);
    let joined = text.ends_with(char::is_whitespace) || answer.starts_with(char::is_whitespace);
    let answer = if joined { answer.to_owned() } else { format!(" {answer}") };
    Ok(tokenizer.encode(&answer, false)?)
}

/// What changes places, in the order of the prompt.
fn parts(session: &Session, ids: &[u32], args: &Args) -> Result<Vec<PromptSpan>> {
    let mut spans = match args.spans.is_empty() {
        true => session.core.document_parts(
            ids,
            match args.by {
                By::Paragraphs => Unit::Paragraph,
                By::Lines => Unit::Line,
            },
        ),
        false => session.core.find_asked(&args.spans, ids)?,
    };
    spans.sort_by_key(|span| span.from);
    if let Some(pair) = spans.windows(2).find(|pair| pair[1].from < pair[0].to) {
        let what = format!("the spans {:?} and {:?} overlap", pair[0].name, pair[1].name);
        return Err(Usage::new(what, "name parts that do not share a token").into());
    }
    if spans.len() < 2 {
        let what = format!("there is nothing to shuffle: {} part(s)", spans.len());
        return Err(Usage::new(what, "name two or more with --span, or try --by lines").into());
    }
    Ok(spans)
}

/// The prompt's own order, then shuffled ones.
fn orders_of(parts: usize, args: &Args) -> Vec<Vec<usize>> {
    let mut random = ChaCha8Rng::seed_from_u64(args.seed);
    let own: Vec<usize> = (0..parts).collect();
    let shuffled = |_| {
        let mut order = own.clone();
        order.shuffle(&mut random);
        order
    };
    let others: Vec<Vec<usize>> = (0..args.shuffles).map(shuffled).collect();
    std::iter::once(own.clone()).chain(others).collect()
}

fn answered(session: &mut Session, arranged: &Arranged, order: Vec<usize>, right: &[u32], steps: u32) -> Result<Order> {
    let first = session.read(&arranged.ids, |_| {})?;
    let mut looks = Looks::new(arranged);
    looks.add(&first);
    let core = &mut session.core;
    let mut ids = Vec::new();
    // Where the right answer is known, it is its queries that look.
    let own = right.is_empty();
    for step in 1..=steps {
        session.interrupt.check()?;
        let frame = core.step()?;
        ids.extend(&*frame.lanes[0].fed);
        if own && step < steps {
            looks.add(&frame);
        }
    }
    let mut nll = None;
    if !own {
        core.rewind(0)?;
        let mut sum = 0.0f64;
        for (i, &token) in right.iter().enumerate() {
            sum += core.nll(0, token)? as f64;
            if i + 1 < right.len() {
                core.force(0, token)?;
                looks.add(&core.step()?);
            }
        }
        nll = Some((sum / right.len() as f64) as f32);
    }
    let (mass, sink, rest) = looks.means();
    let text = spell(&session.model, &ids);
    Ok(Order { order, ids, text, found: None, same_tokens: 0, nll, mass, sink, rest })
}

/// Attention of some queries on the parts.
struct Looks<'a> {
    parts: &'a [Range<usize>],
    mass: Vec<f64>,
    sink: f64,
    all: f64,
    queries: usize,
}

impl<'a> Looks<'a> {
    fn new(arranged: &'a Arranged) -> Self {
        Self { parts: &arranged.parts, mass: vec![0.0; arranged.parts.len()], sink: 0.0, all: 0.0, queries: 0 }
    }

    /// The newest query of a frame.
    fn add(&mut self, frame: &Frame) {
        let row = &frame.lanes[0].row;
        let sum = |range: Range<usize>| row[range].iter().map(|&p| p as f64).sum::<f64>();
        self.mass.iter_mut().zip(self.parts).for_each(|(mass, part)| *mass += sum(part.start.max(1)..part.end.max(1)));
        self.sink += sum(0..1);
        self.all += sum(0..row.len());
        self.queries += 1;
    }

    /// On each part without position 0, on that, on the rest.
    fn means(&self) -> (Vec<f32>, f32, f32) {
        let mean = |x: f64| (x / self.queries.max(1) as f64) as f32;
        let rest = self.all - self.mass.iter().sum::<f64>() - self.sink;
        (self.mass.iter().map(|&x| mean(x)).collect(), mean(self.sink), mean(rest))
    }
}

fn part(
    session: &Session,
    ids: &[u32],
    span: &PromptSpan,
    i: usize,
    needle: &Option<String>,
    orders: &[Order],
) -> Part {
    let (from, to) = (span.from as usize, span.to as usize);
    let text = spell(&session.model, &ids[from..to]);
    let masses = || orders.iter().map(|order| order.mass[i]);
    Part {
        name: span.name.to_string(),
        from,
        to,
        needed: needle.as_ref().is_some_and(|needle| text.contains(needle.as_str())),
        text,
        mass: mean(masses()),
        least: masses().fold(f32::INFINITY, f32::min),
        most: masses().fold(0.0, f32::max),
    }
}

fn by_place(parts: &[Part], orders: &[Order]) -> Vec<Place> {
    let of = |place: usize| {
        let here: Vec<&Order> = orders.iter().filter(|order| parts[order.order[place]].needed).collect();
        let nll: Vec<f32> = here.iter().filter_map(|order| order.nll).collect();
        Place {
            mass: mean(orders.iter().map(|order| order.mass[order.order[place]])),
            needed: here.len(),
            nll: (!nll.is_empty()).then(|| mean(nll.iter().copied())),
            found: here.iter().filter(|order| order.found == Some(true)).count(),
        }
    };
    (0..parts.len()).map(of).collect()
}

fn mean(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = values.fold((0.0f64, 0usize), |(sum, count), x| (sum + x as f64, count + 1));
    (sum / count.max(1) as f64) as f32
}
