//! A policy that the engine can ask: the parts of a spec, put together.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::amount::Amount;
use super::delta::Sparse;
use super::descriptor::Family;
use super::error::{Problem, SpecError};
use super::evictor::{Evictor, Wrapper};
use super::intervene::{Intervention, Plan, Survey};
use super::part::{LaneView, Moment, Part, Rewritten, Schedule, Scores, Sizes, Storage};
use super::reader::{Reader, Readers, Setting};
use super::select::ties;
use super::sharing::Sharing;
use super::spec::Spec;
use super::watch::Watches;

/// What a lane's cache holds. Cheap to clone.
#[derive(Clone)]
pub struct Policy {
    spec: Spec,
    /// One after the other: the second sees what the first left.
    evictors: Vec<Evictor>,
    sharing: Option<Arc<dyn Sharing>>,
    storage: Option<Arc<dyn Storage>>,
    /// Reads a part of what is left, so many entries at most.
    reader: Option<(Arc<dyn Reader>, Option<Amount>)>,
    /// Reads the prompt on its own.
    sparse: Option<Sparse>,
    /// Acting together.
    interventions: Vec<Arc<dyn Intervention>>,
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
    /// New contents of what stays [kv heads]; empty where nothing changes.
    pub rewritten: Vec<Rewritten>,
}

impl Policy {
    /// `Policy::parse("snapkv@50%:window=32")`.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        Self::new(Spec::parse(text)?)
    }

    /// Fails where a part has nothing to act on, or two parts of one evictor claim the same role.
    pub fn new(spec: Spec) -> Result<Self, SpecError> {
        let whole = spec.to_string();
        let (mut evictors, mut reader, mut sparse) = (Vec::new(), None, None);
        let mut wrappers: Vec<Wrapper> = Vec::new();
        let mut interventions: Vec<Arc<dyn Intervention>> = Vec::new();
        let mut sharing: Option<(Arc<dyn Sharing>, &'static str)> = None;
        let mut storage: Option<(&'static str, usize, Arc<dyn Storage>)> = None;
        let (mut at, parts) = (0, spec.parts());
        for part in parts {
            let name = part.policy().name;
            let refuse = |problem, help: String| Err(SpecError::new(&whole, (at, name.len()), problem, help));
            match (part.policy().build)(part) {
                Part::Full if parts.len() > 1 => {
                    let help = "`full` stands alone: it is the yardstick".into();
                    return refuse(Problem::Alone(name), help);
                }
                Part::Full => {}
                Part::Storage(stores) => {
                    if let Some((first, ..)) = storage.replace((name, at, stores)) {
                        let help = "keep one of the two, or run them as two lanes to compare them".into();
                        return refuse(Problem::BothStore { first, second: name }, help);
                    }
                }
                Part::Prefill(_) if parts.len() > 1 => {
                    let help = format!("`{name}` stands alone: what others go by, rows of the prompt, is not its own");
                    return refuse(Problem::Alone(name), help);
                }
                Part::Prefill(rule) => sparse = Some(rule),
                Part::Missing(what) => {
                    let help = format!("`attnscope policies` lists the keys of `{name}`");
                    return refuse(Problem::Missing { policy: name, what }, help);
                }
                Part::Intervention(intervention) => interventions.push(intervention),
                Part::Sharing(wires) => {
                    if let Some((_, first)) = sharing.replace((wires, name)) {
                        let help = "one part wires the layers; run the other as a lane of its own".into();
                        return refuse(Problem::BothDecide { first, second: name }, help);
                    }
                }
                Part::Scorer(scorer) => {
                    if let Some((first, at, _)) = storage {
                        let help = format!("write it last: `{name}+{first}`");
                        return Err(SpecError::new(&whole, (at, first.len()), Problem::NotLast(first), help));
                    }
                    let evictor = Evictor::new(name, scorer, part.budget(), std::mem::take(&mut wrappers))
                        .map_err(|(problem, at, len, help)| SpecError::new(&whole, (at, len), problem, help))?;
                    evictors.push(evictor);
                }
                Part::Reader(_) if reader.is_some() => {
                    return refuse(Problem::TwoReaders(name), "keep one of them".into());
                }
                Part::Reader(part_reader) if wrappers.is_empty() => reader = Some((part_reader, part.budget())),
                Part::Reader(_) => {
                    let help = "write the reader last, behind what evicts: `snapkv@50%+quest`".into();
                    return refuse(Problem::NothingBehind(wrappers[wrappers.len() - 1].name), help);
                }
                wrapper => wrappers.push(Wrapper { part: wrapper, name, at }),
            }
            at += part.to_string().len() + 1;
        }
        if evictors.len() > 1 && evictors.iter().any(Evictor::always_cache_positions) {
            let help = "it moves all keys to the numbers of their slots, which others do not expect".into();
            return Err(SpecError::new(&whole, (0, whole.len()), Problem::Alone("positions=cache"), help));
        }
        if let Some(Wrapper { name, at, .. }) = wrappers.first() {
            let help = format!("write what it acts on behind it, for example `{name}+snapkv@50%`");
            return Err(SpecError::new(&whole, (*at, name.len()), Problem::NothingBehind(name), help));
        }
        if let Some((name, at, _)) = &storage
            && evictors.iter().any(Evictor::rewrites_in_decode)
        {
            let help = "let what rewrites them act once, after the prompt: entries are packed after that".into();
            return Err(SpecError::new(&whole, (*at, name.len()), Problem::Rewritten(name), help));
        }
        if reader.is_some() && evictors.iter().any(Evictor::always_cache_positions) {
            let help = "it moves all keys in every step; what is known of them is known before that".into();
            return Err(SpecError::new(&whole, (0, whole.len()), Problem::Alone("positions=cache"), help));
        }
        if let Some((_, name)) = &sharing
            && (storage.is_some() || reader.is_some())
        {
            let help = "evictors may stand beside it; run what stores or reads otherwise as a lane of its own".into();
            return Err(SpecError::new(&whole, (0, whole.len()), Problem::Alone(name), help));
        }
        if let Some((_, name)) = &sharing
            && !interventions.is_empty()
        {
            let help = "run the intervention as a lane of its own".into();
            return Err(SpecError::new(&whole, (0, whole.len()), Problem::Alone(name), help));
        }
        let (storage, sharing) = (storage.map(|(_, _, storage)| storage), sharing.map(|(sharing, _)| sharing));
        Ok(Self { spec, evictors, sharing, storage, reader, sparse, interventions })
    }

    /// In normal form.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Of each part, in order.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        self.spec.parts().iter().map(|part| part.policy().family)
    }

    /// Evictors, one after the other; 0 = nothing ever leaves.
    pub fn stages(&self) -> usize {
        self.evictors.len()
    }

    /// Entries may leave the cache.
    pub fn evicts(&self) -> bool {
        !self.evictors.is_empty()
    }

    /// How what stays is stored; `None`: as the cache stores numbers.
    pub fn storage(&self) -> Option<&Arc<dyn Storage>> {
        self.storage.as_ref()
    }

    /// The lane reads the prompt on its own, sparsely.
    pub fn sparse(&self) -> Option<Sparse> {
        self.sparse
    }

    /// Steps read only a part of what is held.
    pub fn reads_a_part(&self) -> bool {
        self.reader.is_some()
    }

    /// What reads for each kv head after a prompt that left `lane`; `None`: all is read. The setting's budget is
    /// set here.
    pub fn readers(&self, setting: Setting, lane: &dyn LaneView) -> Option<Readers> {
        let (reader, amount) = self.reader.as_ref()?;
        let amount = amount.filter(|amount| !amount.is_everything());
        let budget = amount.map(|amount| amount.of(setting.prompt).max(1));
        Some(Readers::new(reader.start(Setting { budget, ..setting }, lane), setting.layers))
    }

    /// Queries at the end of a prompt of `prompt` tokens that reading starts with.
    pub fn reading_window(&self, prompt: usize) -> usize {
        self.reader.as_ref().map_or(0, |(reader, _)| reader.window(prompt))
    }

    /// When entries may leave at stage `stage`.
    pub fn schedule(&self, stage: usize) -> Schedule {
        self.evictors[stage].schedule()
    }

    /// Layers share: they are wired before the lane reads the prompt.
    pub fn sharing(&self) -> Option<&dyn Sharing> {
        self.sharing.as_deref()
    }

    /// What the model computes is changed: the lane reads the prompt on its own.
    pub fn intervenes(&self) -> bool {
        !self.interventions.is_empty()
    }

    /// What all interventions do to the prompt of `survey`; `None` without any.
    pub fn plan(&self, survey: &mut dyn Survey) -> Result<Option<Plan>, String> {
        let mut plan = Plan::default();
        self.interventions.iter().try_for_each(|intervention| intervention.plan(survey, &mut plan))?;
        Ok(self.intervenes().then_some(plan))
    }

    /// Tokens of the prompt after which the lane is cut while it reads.
    pub fn block(&self) -> Option<usize> {
        self.evictors.iter().filter_map(|e| e.schedule().block()).min()
    }

    /// Entries may leave or be packed after steps, not only after the prompt.
    pub fn acts_in_decode(&self) -> bool {
        let packs = self.storage.as_ref().is_some_and(|storage| storage.acts_in_decode());
        packs || self.evictors.iter().any(|e| e.schedule().acts_in_decode())
    }

    /// Entries that a kv head may hold, on average, after stage `stage` and a prompt of `prompt` tokens; `None` if
    /// there is no limit, or none that is known before.
    ///
    /// A share is of the prompt, at least one entry. 100% is no limit at all: what is generated stays too, so that
    /// such a lane equals `full` bit for bit.
    pub fn budget(&self, stage: usize, prompt: usize) -> Option<usize> {
        self.budget_at(stage, prompt, 0)
    }

    /// The same after step `step`: a share of all tokens seen (`decoding:of=seen`) grows with them.
    pub fn budget_at(&self, stage: usize, prompt: usize, step: u32) -> Option<usize> {
        self.evictors.get(stage)?.budget(Moment { step, prompt, layers: 0, layer: 0 })
    }

    /// Fails with the reason where a part's own data were made for another model.
    pub fn fits(&self, model: Sizes) -> Result<(), String> {
        self.interventions.iter().try_for_each(|i| i.fits(model))?;
        self.evictors.iter().try_for_each(|e| e.fits(model))
    }

    /// What stays after the prompt lies at positions 0, 1, 2, … and decoding goes on there.
    pub fn cache_positions(&self) -> bool {
        self.evictors.iter().any(|e| e.schedule().acts(0) && e.cache_positions())
    }

    /// So it does after every step: the next position is the number of entries that a kv head holds (the most).
    pub fn always_cache_positions(&self) -> bool {
        self.evictors.iter().any(|e| e.always_cache_positions())
    }

    /// Queries at the end of a prompt of `prompt` tokens that must stay available until the policy has decided.
    pub fn window(&self, prompt: usize) -> usize {
        let first = self.evictors.iter().filter(|e| e.schedule().acts(0));
        let stored = self.storage.as_ref().map_or(0, |storage| storage.window(prompt));
        first.map(|e| e.window(prompt)).fold(stored, usize::max)
    }

    /// The column sums of the attention must be taken.
    pub fn needs_received(&self) -> bool {
        let stored = self.storage.as_ref().is_some_and(|storage| storage.needs_received());
        stored || self.evictors.iter().any(|e| e.needs_received())
    }

    /// What has to look at the prompt's rows while it is read.
    pub fn watches(&self) -> Watches {
        let first = self.evictors.iter().filter(|e| e.schedule().acts(0));
        Watches::default().or(Watches(first.filter_map(|e| e.watch()).collect()))
    }

    /// What each attention was given must be kept while the prompt is read.
    pub fn needs_inputs(&self) -> bool {
        self.evictors.iter().any(|e| e.needs_inputs())
    }

    /// Newest positions of which it is asked after a step what each attention was given.
    pub fn recent_inputs(&self) -> usize {
        self.evictors.iter().map(|e| e.recent_inputs()).max().unwrap_or(0)
    }

    /// Rows of the past in which what each slot received must be remembered.
    pub fn history(&self) -> usize {
        self.evictors.iter().map(|e| e.history()).max().unwrap_or(0)
    }

    /// The residual stream must be compared before and after each attention while the prompt is read.
    pub fn needs_cosines(&self) -> bool {
        self.evictors.iter().any(|e| e.needs_cosines())
    }

    /// What each layer keeps after stage `stage`; `None` where it keeps all that it holds: not the moment, within
    /// the budget, or a layer left alone. Ask after the prompt and after every step, stage by stage.
    pub fn decide(&self, stage: usize, at: Moment, lane: &dyn LaneView) -> Vec<Option<Decision>> {
        self.evictors[stage].decide(at, lane).unwrap_or_else(|| vec![None; at.layers])
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
        assert!(!full.evicts() && full.stages() == 0 && full.budget(0, 100).is_none());
    }

    #[test]
    fn shares_are_of_the_prompt_and_tokens_are_tokens() {
        let budget = |spec: &str, prompt| Policy::parse(spec).unwrap().budget(0, prompt);
        assert_eq!(budget("knorm@50%", 465), Some(232));
        assert_eq!(budget("knorm@1%", 6), Some(1));
        assert_eq!(budget("h2o@256", 100), Some(256));
        assert_eq!(budget("h2o@100%", 100), None);
    }

    #[test]
    fn the_yardstick_stands_alone() {
        let error = Policy::parse("snapkv@50%:kernel=3+full").unwrap_err();
        assert_eq!(error.problem(), &Problem::Alone("full"));
        assert_eq!(error.position(), "snapkv@50%:kernel=3+".len());
        assert!(Policy::parse("full+full").is_err());
    }

    #[test]
    fn evictors_follow_each_other() {
        let policy = Policy::parse("tova@4+knorm@2").unwrap();
        assert_eq!((policy.stages(), policy.budget(0, 6), policy.budget(1, 6)), (2, Some(4), Some(2)));
        let mut layer = toy();
        for (stage, left) in [(0, 4), (1, 2)] {
            let decision = policy.decide(stage, moment(6, 0), &layer.alone()).remove(0).unwrap();
            layer.keep(&decision);
            assert_eq!(layer.held[0].len(), left);
        }
    }

    #[test]
    fn a_reader_stands_alone_or_beside_evictors_but_not_between_a_wrapper_and_its_scorer() {
        let policy = |spec| Policy::parse(spec).unwrap();
        assert!(policy("quest").reads_a_part() && !policy("quest").evicts());
        assert_eq!(policy("snapkv@50%+quest@64").stages(), 1);
        assert!(policy("snapkv@50%+quest@64").reads_a_part() && !policy("snapkv@50%").reads_a_part());
        let refused = |spec| {
            let error = Policy::parse(spec).unwrap_err();
            (error.problem().clone(), error.position())
        };
        assert_eq!(refused("quest+knorm+quest"), (Problem::TwoReaders("quest"), "quest@1024+knorm@50%+".len()));
        assert_eq!(refused("adakv+quest+knorm").0, Problem::NothingBehind("adakv"));
        assert_eq!(refused("adakv+quest").0, Problem::NothingBehind("adakv"));
        assert_eq!(refused("delta+knorm"), (Problem::Alone("delta"), 0));
    }

    #[test]
    fn the_engine_knows_beforehand_what_is_needed() {
        let policy = |spec| Policy::parse(spec).unwrap();
        assert!(policy("h2o").needs_received() && !policy("tova").needs_received());
        assert_eq!((policy("snapkv").window(465), policy("tova").window(465), policy("knorm").window(465)), (64, 1, 0));
        assert_eq!(policy("knorm:every=step").schedule(0), Schedule::EveryStep);
        assert_eq!(policy("knorm").schedule(0), Schedule::AfterPrefill);
        assert!(policy("knorm:every=step").acts_in_decode() && !policy("knorm").acts_in_decode());
    }

    #[test]
    fn nothing_is_decided_out_of_turn_or_within_the_budget() {
        let policy = Policy::parse("knorm@3").unwrap();
        let layer = toy();
        assert_eq!(policy.decide(0, moment(6, 1), &layer.alone()), [None]);
        assert_eq!(Policy::parse("knorm@6").unwrap().decide(0, moment(6, 0), &layer.alone()), [None]);
        let decision = policy.decide(0, moment(6, 0), &layer.alone()).remove(0).unwrap();
        assert_eq!((decision.budget, decision.scores.values[0].len()), (vec![3], 6));
    }

    #[test]
    fn storage_stands_last_and_alone_of_its_kind() {
        let refused = |spec: &str| {
            let error = Policy::parse(spec).unwrap_err();
            (error.problem().clone(), error.position())
        };
        assert_eq!(refused("kivi+int4"), (Problem::BothStore { first: "kivi", second: "int4" }, 5));
        assert_eq!(refused("snapkv@50%+think+kivi").1, 17);
        assert_eq!(refused("kivi+snapkv@50%"), (Problem::NotLast("kivi"), 0));
        assert_eq!(refused("adakv+kivi"), (Problem::NothingBehind("adakv"), 0));
        assert_eq!(refused("full+kivi").0, Problem::Alone("full"));
        assert_eq!(refused("merge+h2o@50%+kivi"), (Problem::Rewritten("kivi"), 14));
        assert!(matches!(refused("kivi:residual=100").0, Problem::Missing { policy: "kivi", .. }));
        let policy = |spec: &str| Policy::parse(spec).unwrap();
        assert!(policy("merge+snapkv@50%+kivi").storage().is_some() && policy("kivi").stages() == 0);
        assert!(policy("kivi").acts_in_decode() && !policy("think").acts_in_decode() && !policy("kivi").evicts());
        assert_eq!(
            (policy("think").window(465), policy("zipcache").window(465), policy("int4").window(465)),
            (32, 465, 0)
        );
        assert!(policy("akvq").needs_received() && !policy("kivi").needs_received());
    }
}
