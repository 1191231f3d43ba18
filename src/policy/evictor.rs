//! One scorer and all that acts on it: from what a lane holds to what each layer keeps.

use std::sync::{Arc, Mutex, PoisonError};

use super::amount::Amount;
use super::chain::Decision;
use super::error::Problem;
use super::part::{
    Allocator, Ask, Chooser, Divide, LaneView, LayerView, Moment, Part, Refiner, Rewriter, Schedule, Scorer, Scores,
    Sizes,
};
use super::select::select;
use super::watch::Watch;

#[derive(Clone)]
pub(super) struct Evictor {
    scorer: Arc<dyn Scorer>,
    /// `None`: the scorer itself says how much stays.
    amount: Option<Amount>,
    schedule: Schedule,
    /// Layers before heads.
    allocators: Vec<Arc<dyn Allocator>>,
    refiner: Option<Arc<dyn Refiner>>,
    chooser: Option<Arc<dyn Chooser>>,
    rewriter: Option<Arc<dyn Rewriter>>,
}

/// A part that acts on the scorer behind it, its name, and the byte of the spec where it stands.
pub(super) struct Wrapper {
    pub part: Part,
    pub name: &'static str,
    pub at: usize,
}

const ROTATES_ONCE: &str =
    "keys are turned once, after the prompt; `streaming:positions=cache` turns them at every step";
const ONLY_AFTER_PROMPT: &str =
    "it needs rows of several queries, or to read on, which is possible after the prompt only";

/// What is wrong, the byte where and its length, and what would be right.
type Wrong = (Problem, usize, usize, String);

impl Evictor {
    /// `own`: name of the scorer; `wrappers`: as written, the outermost first.
    pub fn new(
        own: &'static str,
        scorer: Arc<dyn Scorer>,
        amount: Option<Amount>,
        wrappers: Vec<Wrapper>,
    ) -> Result<Self, Wrong> {
        let amount = amount.filter(|_| !scorer.sizes_itself());
        let schedule = scorer.schedule();
        let rewriter = scorer.rewriter();
        // what was claimed: layers, heads, refining, choosing, the schedule, rewriting
        let mut claims: [Option<&'static str>; 6] = [None; 6];
        claims[5] = rewriter.is_some().then_some(own);
        let mut evictor =
            Self { scorer, amount, schedule, allocators: Vec::new(), refiner: None, chooser: None, rewriter };
        for Wrapper { part, name, at } in wrappers.into_iter().rev() {
            let mut claim = |role: usize| match claims[role].replace(name) {
                None => Ok(()),
                Some(second) => {
                    let help = "keep one of the two, or run them as two lanes to compare them".into();
                    Err((Problem::BothDecide { first: name, second }, at, name.len(), help))
                }
            };
            if amount.is_none() && !matches!(part, Part::Around(_) | Part::Rewriter(_)) {
                let help = "what stands behind it says itself how much stays; leave this part away".into();
                return Err((Problem::OwnSize(name), at, name.len(), help));
            }
            match part {
                Part::Allocator(allocator) => {
                    claim(allocator.level() as usize)?;
                    if evictor.always_cache_positions() {
                        let help = "one position serves all heads, so they must keep the same number".into();
                        return Err((Problem::BothDecide { first: name, second: own }, at, name.len(), help));
                    }
                    if evictor.scorer.shares() {
                        let help = format!("`{own}` divides its budget among all layers and heads itself");
                        return Err((Problem::BothDecide { first: name, second: own }, at, name.len(), help));
                    }
                    if evictor.schedule.acts_in_decode() && !allocator.decodes() {
                        return Err((Problem::OnlyAfterPrompt(name), at, name.len(), ONLY_AFTER_PROMPT.into()));
                    }
                    evictor.allocators.push(allocator);
                }
                Part::Refiner(refiner) => {
                    claim(2)?;
                    evictor.refiner = Some(refiner);
                }
                Part::Chooser(chooser) => {
                    claim(3)?;
                    evictor.chooser = Some(chooser);
                }
                Part::Schedule(schedule) => {
                    claim(4)?;
                    if schedule.acts_in_decode() && !evictor.decodes() {
                        return Err((Problem::NotInDecode(name), at, name.len(), ONLY_AFTER_PROMPT.into()));
                    }
                    evictor.schedule = schedule;
                    evictor.turns_in_time().ok_or((
                        Problem::OnlyAfterPrompt(claims[5].unwrap_or(own)),
                        at,
                        name.len(),
                        ROTATES_ONCE.into(),
                    ))?;
                }
                Part::Rewriter(rewriter) => {
                    claim(5)?;
                    evictor.rewriter = Some(rewriter);
                    evictor.turns_in_time().ok_or((
                        Problem::OnlyAfterPrompt(name),
                        at,
                        name.len(),
                        ROTATES_ONCE.into(),
                    ))?;
                }
                Part::Around(around) => evictor.scorer = around(evictor.scorer),
                Part::Full
                | Part::Scorer(_)
                | Part::Storage(_)
                | Part::Reader(_)
                | Part::Prefill(_)
                | Part::Sharing(_)
                | Part::Intervention(_)
                | Part::Missing(_) => {}
            }
        }
        evictor.allocators.sort_by_key(|allocator| allocator.level());
        Ok(evictor)
    }

    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// `None` where keys should lie elsewhere after the prompt, but nothing is decided then, or several times before.
    fn turns_in_time(&self) -> Option<()> {
        let in_time = self.schedule.acts(0) || self.always_cache_positions();
        (!self.cache_positions() || in_time && self.schedule.block().is_none()).then_some(())
    }

    /// All its parts can act after a step.
    fn decodes(&self) -> bool {
        self.scorer.decodes() && self.allocators.iter().all(|allocator| allocator.decodes())
    }

    pub fn window(&self, prompt: usize) -> usize {
        let scorers = self.scorer.window(prompt);
        let choosers = self.chooser.as_ref().map_or(scorers, |chooser| chooser.window(prompt, scorers));
        self.allocators.iter().map(|allocator| allocator.window(prompt)).fold(choosers, usize::max)
    }

    pub fn cache_positions(&self) -> bool {
        self.rewriter.as_ref().is_some_and(|rewriter| rewriter.cache_positions())
    }

    pub fn always_cache_positions(&self) -> bool {
        self.rewriter.as_ref().is_some_and(|rewriter| rewriter.always_cache_positions())
    }

    /// Keys or values that stay may change after steps.
    pub fn rewrites_in_decode(&self) -> bool {
        self.rewriter.is_some() && self.schedule.acts_in_decode()
    }

    pub fn needs_received(&self) -> bool {
        self.scorer.needs_received() || self.rewriter.as_ref().is_some_and(|rewriter| rewriter.needs_received())
    }

    pub fn watch(&self) -> Option<Arc<dyn Watch>> {
        self.scorer.watch()
    }

    pub fn needs_inputs(&self) -> bool {
        self.scorer.needs_inputs()
    }

    pub fn recent_inputs(&self) -> usize {
        self.scorer.recent_inputs()
    }

    pub fn history(&self) -> usize {
        self.scorer.history()
    }

    pub fn needs_cosines(&self) -> bool {
        self.allocators.iter().any(|allocator| allocator.needs_cosines())
    }

    pub fn fits(&self, model: Sizes) -> Result<(), String> {
        self.allocators.iter().try_for_each(|allocator| allocator.fits(model))?;
        self.scorer.fits(model)
    }

    /// Entries per kv head, on average; `None`: no limit.
    pub fn budget(&self, at: Moment) -> Option<usize> {
        let amount = self.amount.filter(|amount| !amount.is_everything())?;
        Some(amount.of(self.schedule.whole(at)).max(1))
    }

    /// `None`: not the moment, or all is within the budget.
    pub fn decide(&self, at: Moment, lane: &dyn LaneView) -> Option<Vec<Option<Decision>>> {
        let budget = self.budget(at);
        if !self.schedule.acts(at.step) || (budget.is_none() && self.amount.is_some()) {
            return None;
        }
        let surveyed = self.survey(at, budget, lane);
        let scorer = &**surveyed.as_ref().unwrap_or(&self.scorer);
        // Where budgets differ, one layer's lack is another's excess.
        let apart = self.allocators.is_empty() && !self.scorer.shares();
        let layers: Vec<Mutex<Layer>> = (0..at.layers).map(|_| Mutex::default()).collect();
        lane.layers(at.layers, &|layer, view| {
            let own: Vec<usize> = (0..view.kv_heads()).map(|head| view.positions(head).len()).collect();
            let most = own.iter().copied().max().unwrap_or(0);
            let mut rated = Layer {
                held: own.iter().sum(),
                allowed: budget.unwrap_or(most).saturating_mul(own.len()),
                ..Layer::default()
            };
            if !apart || budget.is_none_or(|budget| most > budget) {
                let (at, budget) = (Moment { layer, ..at }, budget.unwrap_or(most));
                rated.scores = scorer.score(at, budget, view);
                if let Some(scores) = &rated.scores {
                    rated.budget = scores.own.clone().unwrap_or_else(|| vec![budget; own.len()]);
                }
                if apart && let Some(scores) = rated.scores.take() {
                    rated.decision = self.keep(at, scorer, scores, std::mem::take(&mut rated.budget), view);
                }
            }
            *layers[layer].lock().unwrap_or_else(PoisonError::into_inner) = rated;
        });
        let layers: Vec<Layer> =
            layers.into_iter().map(|layer| layer.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
        if apart {
            return Some(layers.into_iter().map(|layer| layer.decision).collect());
        }
        let sum = |of: fn(&Layer) -> usize| layers.iter().map(of).fold(0, usize::saturating_add);
        if sum(|layer| layer.held) <= sum(|layer| layer.allowed) {
            return None;
        }
        let mean = self.mean(at);
        let (mut scores, mut budgets): (Vec<_>, Vec<_>) =
            layers.into_iter().map(|layer| (layer.scores, layer.budget)).unzip();
        for allocator in &self.allocators {
            allocator.allocate(Divide { at, mean, lane }, &mut scores, &mut budgets);
        }
        let mut decisions = Vec::new();
        for (layer, (scores, budget)) in scores.into_iter().zip(budgets).enumerate() {
            let mut decision = None;
            if let Some(scores) = scores {
                let (at, mut rated) = (Moment { layer, ..at }, Some((scores, budget)));
                lane.layer(layer, &mut |view| {
                    if let Some((scores, budget)) = rated.take() {
                        decision = self.keep(at, scorer, scores, budget, view);
                    }
                });
            }
            decisions.push(decision);
        }
        Some(decisions)
    }

    /// Entries per kv head, on average, before rounding down; 0 where the scorer says itself how much stays.
    fn mean(&self, at: Moment) -> f64 {
        self.amount.map_or(0.0, |amount| amount.mean(self.schedule.whole(at)).max(1.0))
    }

    /// The scorer's look at the whole lane, where it wants one and something may have to leave.
    fn survey(&self, at: Moment, budget: Option<usize>, lane: &dyn LaneView) -> Option<Arc<dyn Scorer>> {
        if !self.scorer.surveys() {
            return None;
        }
        let (mut over, budget) = (false, budget.unwrap_or(0));
        for layer in 0..at.layers {
            lane.layer(layer, &mut |view| {
                over |= (0..view.kv_heads()).any(|head| view.positions(head).len() > budget);
            });
        }
        if over { self.scorer.survey(at, self.mean(at), lane) } else { None }
    }

    /// What one layer keeps of the entries that were scored; `None`: all of them.
    fn keep(
        &self,
        at: Moment,
        scorer: &dyn Scorer,
        mut scores: Scores,
        budget: Vec<usize>,
        view: &dyn LayerView,
    ) -> Option<Decision> {
        if let Some(refiner) = &self.refiner {
            scores = refiner.refine(at, &budget, scores, view);
        }
        let kept = match self.chooser.as_ref().zip(self.amount) {
            Some((chooser, amount)) => {
                chooser.choose(Ask { at, scorer, scores: &scores, budgets: &budget, amount }, view)
            }
            None => {
                let heads = scores.values.iter().zip(&scores.forced).zip(&budget);
                heads.map(|((values, forced), &budget)| select(values, forced, budget)).collect()
            }
        };
        let all = kept.iter().zip(&scores.values).all(|(kept, values)| kept.len() == values.len());
        if all {
            return None;
        }
        let rewritten = self.rewriter.as_ref().map(|rewriter| rewriter.rewrite(at, &kept, view)).unwrap_or_default();
        Some(Decision { kept, scores, budget, rewritten })
    }
}

/// What is found out about one layer.
#[derive(Default)]
struct Layer {
    held: usize,
    allowed: usize,
    scores: Option<Scores>,
    /// [kv heads]
    budget: Vec<usize>,
    /// Where nothing has to be divided among layers and heads first.
    decision: Option<Decision>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;
    use crate::policy::testing::{Lane, moment, random_layer};

    fn refused(spec: &str) -> (Problem, usize) {
        let error = Policy::parse(spec).unwrap_err();
        (error.problem().clone(), error.position())
    }

    #[test]
    fn a_role_is_taken_once() {
        let twice = |first, second| Problem::BothDecide { first, second };
        assert_eq!(refused("adakv+adakv:alpha=0.5+knorm"), (twice("adakv", "adakv"), 0));
        assert_eq!(refused("protect+pyramid+perlayer:keep=2/1+knorm"), (twice("pyramid", "perlayer"), 8));
        assert_eq!(refused("chunk+block+knorm"), (twice("chunk", "block"), 0));
        assert!(Policy::parse("pyramid+adakv+criticalkv+fair+protect+protect:sinks=0,recent=9+snapkv").is_ok());
    }

    #[test]
    fn what_sizes_itself_takes_no_budget_from_others() {
        assert_eq!(refused("protect+adakv+simlayer"), (Problem::OwnSize("adakv"), 8));
        assert!(Policy::parse("protect+simlayer").is_ok());
    }

    /// Layers first, then heads, in whichever order they are written.
    #[test]
    fn layers_are_divided_before_heads() {
        let layers: Vec<_> = (0..4).map(|seed| random_layer(seed, (3, 1), 4, 40)).collect();
        let at = Moment { layers: 4, ..moment(40, 0) };
        let decide = |spec: &str| Policy::parse(spec).unwrap().decide(0, at, &Lane(&layers));
        let decisions = decide("pyramid+adakv+knorm@50%");
        assert_eq!(decisions, decide("adakv+pyramid+knorm@50%"));
        // of 20 the last gets 1 and the first 39, for each of three heads
        let sums = decisions.iter().flatten().map(|decision| decision.budget.iter().sum::<usize>());
        assert_eq!(sums.collect::<Vec<_>>(), [39 * 3, 26 * 3, 14 * 3, 3]);
        assert!(decisions[1].as_ref().is_some_and(|d| d.budget[0] != d.budget[1] || d.budget[1] != d.budget[2]));
    }

    #[test]
    fn shares_of_a_part_are_exact() {
        struct Nothing;
        impl Scorer for Nothing {
            fn schedule(&self) -> Schedule {
                Schedule::AfterPrefill
            }
            fn score(&self, _: Moment, _: usize, _: &dyn LayerView) -> Option<Scores> {
                None
            }
        }
        let share = |amount: &str, budget, held, some| {
            let (amount, scores) = (amount.parse().unwrap(), Scores::default());
            Ask { at: moment(held, 0), scorer: &Nothing, scores: &scores, budgets: &[budget], amount }
                .share(0, held, some)
        };
        // 24 chunks of a prompt of 465: half of them, although 24 · 232 / 465 is 11.97
        assert_eq!(share("50%", 232, 465, 24), 12);
        assert_eq!(share("232", 232, 465, 24), 11);
        // an allocator gave this head more than half
        assert_eq!(share("50%", 310, 465, 24), 16);
        assert_eq!(share("900", 900, 465, 24), 24);
    }
}
