//! A policy that the engine can ask: the parts of a spec, put together.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::amount::Amount;
use super::descriptor::Family;
use super::error::{Problem, SpecError};
use super::part::{LayerView, Moment, Part, Schedule, Scorer, Scores};
use super::select::{select, ties};
use super::spec::Spec;

/// What a lane's cache holds, decided layer by layer. Cheap to clone.
#[derive(Clone)]
pub struct Policy {
    spec: Spec,
    evictor: Option<Evictor>,
}

/// A scorer and how much it leaves.
#[derive(Clone)]
struct Evictor {
    scorer: Arc<dyn Scorer>,
    budget: Amount,
}

/// What one layer keeps, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Slot indices into the view that was shown, ascending and unique [kv heads][kept].
    pub kept: Vec<Vec<u32>>,
    /// Of every slot in the view, in its order.
    pub scores: Scores,
    /// Entries that each kv head may hold [kv heads].
    pub budget: Vec<usize>,
}

impl Policy {
    /// `Policy::parse("snapkv@50%:window=32")`.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        Self::new(Spec::parse(text)?)
    }

    /// Fails where two parts of the chain claim the same role.
    pub fn new(spec: Spec) -> Result<Self, SpecError> {
        let mut decider: Option<&'static str> = None;
        let mut evictor = None;
        let mut at = 0;
        for part in spec.parts() {
            let name = part.policy().name;
            if let Some(first) = decider {
                let problem = Problem::BothDecide { first, second: name };
                let help =
                    format!("keep one of them in the chain; run `{first}` and `{name}` as two lanes to compare them");
                return Err(SpecError::new(&spec.to_string(), (at, name.len()), problem, help));
            }
            decider = Some(name);
            if let (Part::Scorer(scorer), Some(budget)) = ((part.policy().build)(part), part.budget()) {
                evictor = Some(Evictor { scorer, budget });
            }
            at += part.to_string().len() + 1;
        }
        Ok(Self { spec, evictor })
    }

    /// In normal form.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Of each part, in order.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.spec.parts().iter().map(|part| part.policy().family)
    }

    /// Entries may leave the cache.
    pub fn evicts(&self) -> bool {
        self.evictor.is_some()
    }

    /// When entries may leave; `None` if never.
    pub fn schedule(&self) -> Option<Schedule> {
        self.evictor.as_ref().map(|e| e.scorer.schedule())
    }

    /// Entries may leave after every step, not only after the prompt.
    pub fn acts_in_decode(&self) -> bool {
        self.schedule() == Some(Schedule::EveryStep)
    }

    /// Entries that a kv head may hold after a prompt of `prompt` tokens; `None` if there is no limit.
    ///
    /// A share is of the prompt, at least one entry. 100% is no limit at all: what is generated stays too, so that
    /// such a lane equals `full` bit for bit.
    pub fn budget(&self, prompt: usize) -> Option<usize> {
        let budget = self.evictor.as_ref()?.budget;
        (!budget.is_everything()).then(|| budget.of(prompt).max(1))
    }

    /// Queries at the end of a prompt of `prompt` tokens that must stay available until the policy has decided.
    pub fn window(&self, prompt: usize) -> usize {
        self.evictor.as_ref().map_or(0, |e| e.scorer.window(prompt))
    }

    /// The column sums of the attention must be taken.
    pub fn needs_received(&self) -> bool {
        self.evictor.as_ref().is_some_and(|e| e.scorer.needs_received())
    }

    /// What the layer `at.layer` keeps; `None` if it keeps all that it holds: not this policy's moment, within the
    /// budget, or a layer that the policy leaves alone. Ask after the prompt and after every step.
    pub fn decide(&self, at: Moment, view: &dyn LayerView) -> Option<Decision> {
        let Evictor { scorer, .. } = self.evictor.as_ref()?;
        if at.step > 0 && scorer.schedule() == Schedule::AfterPrefill {
            return None;
        }
        let budget = self.budget(at.prompt)?;
        if (0..view.kv_heads()).all(|kv_head| view.positions(kv_head).len() <= budget) {
            return None;
        }
        let scores = scorer.score(at, budget, view)?;
        let budget = vec![budget; view.kv_heads()];
        let heads = scores.values.iter().zip(&scores.forced).zip(&budget);
        let kept = heads.map(|((values, forced), &budget)| select(values, forced, budget)).collect();
        Some(Decision { kept, scores, budget })
    }
}

impl Decision {
    /// Dropped slots of `kv_head` that tie with the lowest kept one: there age alone decided.
    pub fn ties(&self, kv_head: usize) -> usize {
        ties(&self.scores.values[kv_head], &self.scores.forced[kv_head], &self.kept[kv_head])
    }
}

impl FromStr for Policy {
    type Err = SpecError;
    fn from_str(text: &str) -> Result<Self, SpecError> {
        Self::parse(text)
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Policy({})", self.spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{moment, toy};

    #[test]
    fn full_never_decides() {
        let full = Policy::parse("full").unwrap();
        assert!(!full.evicts() && full.schedule().is_none() && full.budget(100).is_none());
        assert!(full.decide(moment(6, 0), &toy()).is_none());
    }

    #[test]
    fn shares_are_of_the_prompt_and_tokens_are_tokens() {
        let budget = |spec: &str, prompt| Policy::parse(spec).unwrap().budget(prompt);
        assert_eq!(budget("knorm@50%", 465), Some(232));
        assert_eq!(budget("knorm@1%", 6), Some(1));
        assert_eq!(budget("h2o@256", 100), Some(256));
        assert_eq!(budget("h2o@100%", 100), None);
    }

    #[test]
    fn two_deciders_clash_where_the_second_stands() {
        let error = Policy::parse("snapkv@50%:kernel=3+knorm").unwrap_err();
        assert_eq!(error.problem(), &Problem::BothDecide { first: "snapkv", second: "knorm" });
        assert_eq!(error.position(), "snapkv@50%:kernel=3+".len());
        assert!(Policy::parse("full+full").is_err());
    }

    #[test]
    fn the_engine_knows_beforehand_what_is_needed() {
        let policy = |spec| Policy::parse(spec).unwrap();
        assert!(policy("h2o").needs_received() && !policy("tova").needs_received());
        assert_eq!((policy("snapkv").window(465), policy("tova").window(465), policy("knorm").window(465)), (64, 1, 0));
        assert_eq!(policy("knorm:every=step").schedule(), Some(Schedule::EveryStep));
        assert_eq!(policy("knorm").schedule(), Some(Schedule::AfterPrefill));
    }

    #[test]
    fn nothing_is_decided_out_of_turn_or_within_the_budget() {
        let policy = Policy::parse("knorm@3").unwrap();
        assert!(policy.decide(moment(6, 1), &toy()).is_none());
        assert!(Policy::parse("knorm@6").unwrap().decide(moment(6, 0), &toy()).is_none());
        let decision = policy.decide(moment(6, 0), &toy()).unwrap();
        assert_eq!((decision.budget, decision.scores.values[0].len()), (vec![3], 6));
    }
}
