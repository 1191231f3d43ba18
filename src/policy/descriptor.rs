//! What a policy file tells about itself: feeds the parser, `attnscope policies`, the screen and the tests.

use std::fmt;

use super::amount::Amount;
use super::key::AnyKey;
use super::part::{Part, Schedule};
use super::spec::PartSpec;

/// One policy as the registry knows it.
pub struct Descriptor {
    /// Name in specs, lower case.
    pub name: &'static str,
    pub family: Family,
    /// The idea in one line.
    pub idea: &'static str,
    pub paper: Option<Paper>,
    /// Budget where the spec gives none; `None` if the policy takes no budget.
    pub budget: Option<Amount>,
    pub keys: &'static [&'static dyn AnyKey],
    pub build: fn(&PartSpec) -> Part,
}

pub struct Paper {
    pub title: &'static str,
    /// arXiv identifier.
    pub arxiv: &'static str,
}

/// What a policy changes about a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// Nothing: the yardstick.
    Reference,
    /// Scores entries; the lowest leave.
    Scorer,
    /// Divides a budget among layers and heads.
    Budget,
    /// Changes how or when what stands behind it acts.
    Wrapper,
    /// Stores entries in fewer bits.
    Quantizer,
    /// Stores fewer channels of entries.
    Channels,
    /// Selects at attention time: nothing leaves, a part is read.
    Reader,
    /// Layers use each other's caches or maps.
    Sharing,
    /// Changes what the model computes.
    Intervention,
}

impl Family {
    pub const fn letter(self) -> char {
        match self {
            Self::Reference => '-',
            Self::Scorer => 'S',
            Self::Budget => 'B',
            Self::Wrapper => 'W',
            Self::Quantizer => 'Q',
            Self::Channels => 'C',
            Self::Reader => 'A',
            Self::Sharing => 'X',
            Self::Intervention => 'I',
        }
    }

    pub const fn label(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Scorer => "scorer",
            Self::Budget => "budget",
            Self::Wrapper => "wrapper",
            Self::Quantizer => "quantizer",
            Self::Channels => "channels",
            Self::Reader => "reader",
            Self::Sharing => "sharing",
            Self::Intervention => "intervention",
        }
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Descriptor({})", self.name)
    }
}

impl Descriptor {
    /// When the policy acts if no key says otherwise; "every step" begins after the prompt, too.
    pub fn acts(&'static self) -> &'static str {
        match (self.build)(&PartSpec::defaults(self)) {
            Part::Full => "never",
            Part::Scorer(scorer) => scorer.schedule().words(),
            Part::Schedule(schedule) => schedule.words(),
            Part::Storage(storage) if storage.acts_in_decode() => Schedule::EveryStep.words(),
            Part::Storage(_) => Schedule::AfterPrefill.words(),
            Part::Reader(_) => "reads, every step",
            Part::Prefill(_) => "while the prompt is read",
            Part::Sharing(_) | Part::Intervention(_) => "from the prompt on",
            Part::Allocator(_) | Part::Refiner(_) | Part::Chooser(_) | Part::Rewriter(_) | Part::Around(_) => {
                "with what it wraps"
            }
            Part::Missing(_) => Schedule::AfterPrefill.words(),
        }
    }

    /// Nothing has to be given beside the name (and what it acts on): no file.
    pub fn runs_by_its_name(&'static self) -> bool {
        !matches!((self.build)(&PartSpec::defaults(self)), Part::Missing(_))
    }

    pub(super) fn key(&self, name: &str) -> Option<&'static dyn AnyKey> {
        self.keys.iter().copied().find(|key| key.name() == name)
    }
}
