//! The spec grammar: `part(+part)*`, part = `name[@budget][:key=value[,key=value]*]`.
//!
//! A [`Spec`] exists only checked and in normal form: known lower-case names, the budget spelled out, keys in the
//! order of the policy's own table, values in their normal spelling. Its display reads back as itself.

use std::fmt;

use super::amount::Amount;
use super::descriptor::Descriptor;
use super::error::{Problem, SpecError, nearest, printable};
use super::key::{AnyKey, Domain, Key};
use super::registry::{POLICIES, find};

/// Longest spec that is looked at, bytes.
const LIMIT: usize = 1024;

/// A checked chain of parts, in the order written: a wrapper stands before what it wraps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    parts: Vec<PartSpec>,
}

/// One part: a policy, its budget, and the keys that were given.
#[derive(Clone)]
pub struct PartSpec {
    policy: &'static Descriptor,
    budget: Option<Amount>,
    /// (name, value in its normal spelling), in the policy's own order.
    keys: Vec<(&'static str, String)>,
}

impl Spec {
    /// Errors say where and what would be right; any text is either read or refused.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        if text.len() > LIMIT {
            let head = text.chars().take(40).collect::<String>() + "...";
            let help = "see `attnscope policies`".into();
            return Err(SpecError::new(&head, (0, 0), Problem::TooLong { limit: LIMIT }, help));
        }
        let pieces = Piece::whole(text).split('+');
        Ok(Self { parts: pieces.into_iter().map(PartSpec::parse).collect::<Result<_, _>>()? })
    }

    pub fn parts(&self) -> &[PartSpec] {
        &self.parts
    }

    pub(super) fn of(parts: Vec<PartSpec>) -> Self {
        Self { parts }
    }
}

impl PartSpec {
    /// As if only the name had been written.
    pub(super) fn defaults(policy: &'static Descriptor) -> Self {
        let spelled = policy.keys.iter().filter(|key| key.is_spelled_out());
        let keys = spelled.map(|key| (key.name(), key.default())).collect();
        Self { policy, budget: policy.budget, keys }
    }

    pub fn policy(&self) -> &'static Descriptor {
        self.policy
    }

    pub fn budget(&self) -> Option<Amount> {
        self.budget
    }

    pub(super) fn with_budget(&self, budget: Amount) -> Self {
        Self { budget: Some(budget), ..self.clone() }
    }

    /// The value given for `key`, or its default.
    pub fn get<D: Domain>(&self, key: &'static Key<D>) -> D::Value {
        key.value(self.keys.iter().find(|(name, _)| *name == key.name()).map(|(_, text)| text.as_str()))
    }

    fn parse(piece: Piece) -> Result<Self, SpecError> {
        let (head, keys) = piece.split_once(':');
        let (name, budget) = head.split_once('@');
        let policy = known_policy(name)?;
        let mut part = Self::defaults(policy);
        if let Some(budget) = budget {
            part.budget = Some(read_budget(policy, budget)?);
        }
        if let Some(keys) = keys {
            let given = read_keys(policy, keys)?;
            part.keys = policy
                .keys
                .iter()
                .filter_map(|key| {
                    let given = given.iter().find(|(name, _)| *name == key.name()).map(|(_, value)| value.clone());
                    let spelled = key.is_spelled_out().then(|| key.default());
                    given.or(spelled).map(|value| (key.name(), value))
                })
                .collect();
        }
        Ok(part)
    }
}

fn known_policy(name: Piece) -> Result<&'static Descriptor, SpecError> {
    let names = || POLICIES.iter().map(|policy| policy.name);
    let all = format!("known: {}; `attnscope policies` explains them", names().collect::<Vec<_>>().join(", "));
    if name.text.is_empty() {
        return Err(name.error(Problem::NameMissing, all));
    }
    let lower = name.text.to_ascii_lowercase();
    find(&lower).ok_or_else(|| {
        name.error(Problem::UnknownPolicy(printable(name.text)), suggest(nearest(&lower, names()), &all))
    })
}

fn read_budget(policy: &'static Descriptor, text: Piece) -> Result<Amount, SpecError> {
    if policy.budget.is_none() {
        return Err(text.error(Problem::TakesNoBudget(policy.name), format!("write `{}`", policy.name)));
    }
    text.text.parse::<Amount>().ok().filter(|budget| !budget.is_zero()).ok_or_else(|| {
        let help = format!(
            "write what is kept: `{0}@50%` (of the prompt; above 0, at most 100, up to six decimals) or `{0}@256` (tokens)",
            policy.name
        );
        text.error(Problem::BadBudget(printable(text.text)), help)
    })
}

/// (name, normal spelling) of each key, in the order written.
fn read_keys(policy: &'static Descriptor, text: Piece) -> Result<Vec<(&'static str, String)>, SpecError> {
    let names = || policy.keys.iter().map(|key| key.name());
    let all = match policy.keys {
        [] => format!("`{}` has no keys", policy.name),
        _ => format!("keys of `{}`: {}", policy.name, names().collect::<Vec<_>>().join(", ")),
    };
    let mut given: Vec<(&'static str, String)> = Vec::new();
    for pair in text.split(',') {
        let (name, value) = pair.split_once('=');
        if name.text.is_empty() {
            return Err(pair.error(Problem::KeyMissing, all));
        }
        let Some(key) = policy.key(name.text) else {
            let problem = Problem::UnknownKey { policy: policy.name, key: printable(name.text) };
            return Err(name.error(problem, suggest(nearest(name.text, names()), &all)));
        };
        if given.iter().any(|(other, _)| *other == key.name()) {
            return Err(name.error(Problem::KeyTwice(key.name()), "give it once".into()));
        }
        let allowed = format!("allowed: {} (default {}): {}", key.allowed(), key.default(), key.meaning());
        let Some(value) = value.filter(|value| !value.text.is_empty()) else {
            return Err(pair.error(Problem::ValueMissing(key.name().into()), allowed));
        };
        let normal = key
            .normal(value.text)
            .ok_or_else(|| value.error(Problem::BadValue { key: key.name(), value: printable(value.text) }, allowed))?;
        given.push((key.name(), normal));
    }
    Ok(given)
}

fn suggest(nearest: Option<&str>, all: &str) -> String {
    nearest.map_or_else(|| all.into(), |word| format!("did you mean `{word}`? {all}"))
}

/// A piece of the spec that knows where it stands in the whole.
#[derive(Clone, Copy)]
struct Piece<'a> {
    whole: &'a str,
    text: &'a str,
    at: usize,
}

impl<'a> Piece<'a> {
    fn whole(whole: &'a str) -> Self {
        Self { whole, text: whole, at: 0 }
    }

    fn split(self, by: char) -> Vec<Self> {
        let mut at = self.at;
        let piece = |text: &'a str| {
            let piece = Self { text, at, ..self };
            at += text.len() + by.len_utf8();
            piece
        };
        self.text.split(by).map(piece).collect()
    }

    fn split_once(self, by: char) -> (Self, Option<Self>) {
        match self.text.split_once(by) {
            None => (self, None),
            Some((head, tail)) => (
                Self { text: head, ..self },
                Some(Self { text: tail, at: self.at + head.len() + by.len_utf8(), ..self }),
            ),
        }
    }

    fn error(self, problem: Problem, help: String) -> SpecError {
        SpecError::new(self.whole, (self.at, self.text.len()), problem, help)
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.parts.iter().enumerate() {
            write!(f, "{}{part}", if i > 0 { "+" } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for PartSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.policy.name)?;
        if let Some(budget) = self.budget {
            write!(f, "@{budget}")?;
        }
        for (i, (key, value)) in self.keys.iter().enumerate() {
            write!(f, "{}{key}={value}", if i > 0 { ',' } else { ':' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for PartSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl PartialEq for PartSpec {
    fn eq(&self, other: &Self) -> bool {
        self.policy.name == other.policy.name && self.budget == other.budget && self.keys == other.keys
    }
}

impl Eq for PartSpec {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(text: &str) -> String {
        Spec::parse(text).unwrap().to_string()
    }

    fn refused(text: &str) -> (Problem, usize, String) {
        let error = Spec::parse(text).unwrap_err();
        (error.problem().clone(), error.position(), error.help().to_owned())
    }

    #[test]
    fn specs_are_normalised() {
        assert_eq!(normal("full"), "full");
        assert_eq!(normal("SnapKV"), "snapkv@50%");
        assert_eq!(normal("snapkv@12.50%:kernel=07,window=auto"), "snapkv@12.5%:window=auto,kernel=7");
        assert_eq!(normal("h2o@0256:recent=25%"), "h2o@256:recent=25%");
        assert_eq!(normal("random@10:every=prefill"), "random@10:seed=0,every=prefill");
        assert_eq!(normal("knorm@50%+snapkv@25%:pool=max"), "knorm@50%+snapkv@25%:pool=max");
    }

    #[test]
    fn unknown_names_suggest_the_nearest() {
        let (problem, at, help) = refused("knorm@50%+snapkw@50%");
        assert_eq!((problem, at), (Problem::UnknownPolicy("snapkw".into()), 10));
        assert!(help.starts_with("did you mean `snapkv`?"), "{help}");
        let (problem, at, help) = refused("snapkv:pool=max,windw=3");
        assert_eq!((problem, at), (Problem::UnknownKey { policy: "snapkv", key: "windw".into() }, 16));
        assert_eq!(help, "did you mean `window`? keys of `snapkv`: window, kernel, pool");
        assert_eq!(refused("full:sinks=4").2, "`full` has no keys");
        let known = refused("quux").2;
        assert!(known.starts_with("known: full, ") && known.contains(", window"), "{known}");
    }

    #[test]
    fn errors_point_at_the_offending_text() {
        for (text, at) in [
            ("", 0),
            ("+", 0),
            ("snapkv+", 7),
            ("@50%", 0),
            ("snapkv@", 7),
            ("snapkv@0", 7),
            ("snapkv@0%", 7),
            ("snapkv@101%", 7),
            ("snapkv@50%@50%", 7),
            ("full@50%", 5),
            ("snapkv:", 7),
            ("snapkv:window", 7),
            ("snapkv:window=", 7),
            ("snapkv:=4", 7),
            ("snapkv:window=4,", 16),
            ("snapkv:window=4,window=4", 16),
            ("snapkv:kernel=4", 14),
            ("snapkv: window=4", 7),
            ("snapkv@50%:pool=mean", 16),
            ("é@50%", 0),
        ] {
            assert_eq!(refused(text).1, at, "{text}");
            assert!(!refused(text).2.is_empty(), "{text}");
        }
    }

    #[test]
    fn values_name_what_is_allowed() {
        let help = refused("snapkv:kernel=4").2;
        assert_eq!(help, "allowed: odd, 1 to 255 (default 5): width of the pooling along the prompt");
    }

    #[test]
    fn the_message_is_safe_and_counts_characters() {
        let error = Spec::parse("knörm\x1b]0;x\x07@5").unwrap_err();
        assert_eq!(error.to_string(), "policy `knörm?]0;x?@5`: there is no policy `knörm?]0;x?` (at character 1)");
        let error = Spec::parse("knorm+é").unwrap_err();
        assert!(error.to_string().ends_with("(at character 7)"), "{error}");
        assert_eq!(Spec::parse(&"a".repeat(5000)).unwrap_err().problem(), &Problem::TooLong { limit: LIMIT });
    }

    /// A part with a random budget and random keys, values from their own defaults.
    fn part() -> impl Strategy<Value = String> {
        let budget = prop_oneof![
            Just(String::new()),
            (1u64..=100_000_000).prop_map(|n| format!("@{}.{:06}%", n / 1_000_000, n % 1_000_000)),
            (1u32..).prop_map(|n| format!("@{n}")),
        ];
        (prop::sample::select(POLICIES.clone()), budget, any::<u8>(), any::<bool>()).prop_map(
            |(policy, budget, mask, flip)| {
                let budget = if policy.budget.is_some() { budget } else { String::new() };
                let chosen = policy.keys.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
                let mut keys: Vec<String> =
                    chosen.map(|(_, key)| format!("{}={}", key.name(), key.default())).collect();
                if flip {
                    keys.reverse();
                }
                let colon = if keys.is_empty() { "" } else { ":" };
                format!("{}{budget}{colon}{}", policy.name, keys.join(","))
            },
        )
    }

    proptest! {
        #[test]
        fn normal_form_reads_back_as_itself(parts in prop::collection::vec(part(), 1..5)) {
            let spec = Spec::parse(&parts.join("+")).unwrap();
            let text = spec.to_string();
            let again = Spec::parse(&text).unwrap();
            prop_assert_eq!(&again, &spec);
            prop_assert_eq!(again.to_string(), text);
        }

        #[test]
        fn any_text_is_read_or_refused(text in r"\PC{0,60}|[a-z0-9@%:=,+. \x00-\x1f]{0,60}") {
            match super::super::Policy::parse(&text) {
                Ok(policy) => prop_assert!(Spec::parse(&policy.spec().to_string()).is_ok()),
                Err(error) => {
                    let report = format!("{:?}", miette::Report::new(error));
                    let bell = report.contains('\u{7}');
                    prop_assert!(!bell);
                }
            }
        }

        #[test]
        fn damaged_specs_are_read_or_refused(parts in prop::collection::vec(part(), 1..3), at: prop::sample::Index, c: char) {
            let mut text: Vec<char> = parts.join("+").chars().collect();
            let at = at.index(text.len());
            text[at] = c;
            let text: String = text.into_iter().collect();
            if let Err(error) = super::super::Policy::parse(&text) {
                prop_assert!(error.position() <= text.len());
                prop_assert!(!error.to_string().chars().any(char::is_control));
            }
        }
    }
}
