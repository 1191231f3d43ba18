//! How far quantised weights with 8-bit activations are from the same weights in f32, on a built-in text.

use std::fmt;

use miette::Result;
use serde::Serialize;

use super::Args;
use super::speed::{lanes, prefill};
use crate::cli::prompt::encode;
use crate::cli::sample;
use crate::cli::session::{Session, tell};
use crate::engine::Precision;
use crate::model::source::Model;
use crate::probe::distribution::{Distribution, kl};

const SAMPLE: &str = "essay";
/// Rows of one head product.
const ROWS: usize = 16;

/// Over all positions of the text whose next token is known.
#[derive(Debug, Serialize)]
pub struct Drift {
    pub sample: &'static str,
    pub tokens: usize,
    pub nll: f64,
    pub nll_f32: f64,
    /// Mean of |−ln p − (−ln p of f32)|, nats.
    pub nll_mean_abs_difference: f64,
    /// Share of positions at which both prefer the same token.
    pub top1_agree: f64,
    /// KL(f32 ‖ native), nats.
    pub kl_mean: f64,
    pub kl_max: f64,
}

impl Drift {
    /// `None` for a model without a tokenizer.
    pub fn measure(native: &mut Session, args: &Args) -> Result<Option<Self>> {
        if native.model.tokenizer.is_none() {
            return Ok(None);
        }
        tell("drift against f32");
        let sample = sample::find(SAMPLE)?;
        let mut ids = encode(&native.model, sample.text, false)?;
        ids.truncate(native.info.context.saturating_sub(1));
        let mut options = args.model.options(lanes(&["full"])?);
        options.precision = Precision::F32;
        options.kv = None;
        let model = Model::open(&native.model.path)?;
        let mut exact = Session::with(model, &options, native.interrupt.clone())?;
        let interrupt = native.interrupt.clone();
        prefill(&mut native.core, &ids, &interrupt)?;
        prefill(&mut exact.core, &ids, &interrupt)?;
        let mut drift = Self {
            sample: SAMPLE,
            tokens: ids.len() - 1,
            nll: 0.0,
            nll_f32: 0.0,
            nll_mean_abs_difference: 0.0,
            top1_agree: 0.0,
            kl_mean: 0.0,
            kl_max: 0.0,
        };
        for from in (0..drift.tokens).step_by(ROWS) {
            interrupt.check()?;
            let rows = from..(from + ROWS).min(drift.tokens);
            let reference = exact.core.prompt_logits(rows.clone())?.to_vec();
            let vocab = native.core.config().vocab;
            let fast = native.core.prompt_logits(rows)?;
            let pairs = reference.chunks_exact(vocab).zip(fast.chunks_exact(vocab));
            for ((p, q), &next) in pairs.zip(&ids[from + 1..]) {
                drift.add(p, q, next);
            }
        }
        let n = drift.tokens.max(1) as f64;
        for sum in [
            &mut drift.nll,
            &mut drift.nll_f32,
            &mut drift.nll_mean_abs_difference,
            &mut drift.top1_agree,
            &mut drift.kl_mean,
        ] {
            *sum /= n;
        }
        Ok(Some(drift))
    }

    /// Adds one position: logits of f32 and native [V], and the token that follows.
    fn add(&mut self, exact: &[f32], native: &[f32], next: u32) {
        let (p, q) = (Distribution::of(exact), Distribution::of(native));
        let (a, b) = (f64::from(p.nll(exact, next)), f64::from(q.nll(native, next)));
        self.nll_f32 += a;
        self.nll += b;
        self.nll_mean_abs_difference += (a - b).abs();
        self.top1_agree += f64::from(p.argmax == q.argmax);
        let divergence = f64::from(kl(exact, native));
        self.kl_mean += divergence;
        self.kl_max = self.kl_max.max(divergence);
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "|ΔNLL| {:.4} nats (NLL {:.4}, f32 {:.4}), same top-1 {:.1} %, KL mean {:.5}, max {:.4} over {} tokens",
            self.nll_mean_abs_difference,
            self.nll,
            self.nll_f32,
            100.0 * self.top1_agree,
            self.kl_mean,
            self.kl_max,
            self.tokens
        )
    }
}
