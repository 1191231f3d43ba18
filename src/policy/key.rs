//! Keys of a policy: name, meaning, what values are allowed, default. One declaration serves parsing, help and table.

use std::path::PathBuf;

use super::amount::Amount;
use super::error::printable;
use super::part::Schedule;

/// A set of allowed values and their spelling. `read(show(v)) == v` for every allowed v.
pub trait Domain: Sync {
    type Value: Clone + Send + Sync;
    fn read(&self, text: &str) -> Option<Self::Value>;
    fn show(&self, value: Self::Value) -> String;
    /// In words, to stand behind "allowed:".
    fn allowed(&self) -> String;
}

/// A key with its typed default.
pub struct Key<D: Domain> {
    name: &'static str,
    meaning: &'static str,
    domain: D,
    default: D::Value,
    spelled_out: bool,
}

impl<D: Domain> Key<D> {
    pub const fn new(name: &'static str, meaning: &'static str, domain: D, default: D::Value) -> Self {
        Self { name, meaning, domain, default, spelled_out: false }
    }

    /// The normal form of a spec names this key even where the user left it out (seeds).
    pub const fn spelled_out(mut self) -> Self {
        self.spelled_out = true;
        self
    }

    /// The value that `text` spells, or the default where there is none.
    pub fn value(&self, text: Option<&str>) -> D::Value {
        text.and_then(|text| self.domain.read(text)).unwrap_or_else(|| self.default.clone())
    }
}

/// A key without its type: what the parser, the help and the tables need.
pub trait AnyKey: Sync {
    fn name(&self) -> &'static str;
    fn meaning(&self) -> &'static str;
    fn default(&self) -> String;
    fn allowed(&self) -> String;
    fn is_spelled_out(&self) -> bool;
    /// The normal spelling of a value; `None` if it is not allowed.
    fn normal(&self, text: &str) -> Option<String>;
}

impl<D: Domain> AnyKey for Key<D> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn meaning(&self) -> &'static str {
        self.meaning
    }
    fn default(&self) -> String {
        self.domain.show(self.default.clone())
    }
    fn allowed(&self) -> String {
        self.domain.allowed()
    }
    fn is_spelled_out(&self) -> bool {
        self.spelled_out
    }
    fn normal(&self, text: &str) -> Option<String> {
        self.domain.read(text).map(|value| self.domain.show(value))
    }
}

/// Whole numbers from `.0` to `.1`.
pub struct Count(pub u64, pub u64);

impl Domain for Count {
    type Value = u64;
    fn read(&self, text: &str) -> Option<u64> {
        text.parse().ok().filter(|n| (self.0..=self.1).contains(n))
    }
    fn show(&self, value: u64) -> String {
        value.to_string()
    }
    fn allowed(&self) -> String {
        match self.1 {
            u64::MAX => format!("whole number from {}", self.0),
            max => format!("{} to {max}", self.0),
        }
    }
}

/// Odd numbers from `.0` to `.1`: kernels with a centre.
pub struct Odd(pub u64, pub u64);

impl Domain for Odd {
    type Value = u64;
    fn read(&self, text: &str) -> Option<u64> {
        Count(self.0, self.1).read(text).filter(|n| n % 2 == 1)
    }
    fn show(&self, value: u64) -> String {
        value.to_string()
    }
    fn allowed(&self) -> String {
        format!("odd, {} to {}", self.0, self.1)
    }
}

/// Numbers from `.0` to `.1`, decimals allowed.
pub struct Real(pub f64, pub f64);

impl Domain for Real {
    type Value = f64;
    fn read(&self, text: &str) -> Option<f64> {
        // −0 is 0
        text.parse().ok().filter(|x| (self.0..=self.1).contains(x)).map(|x: f64| x + 0.0)
    }
    fn show(&self, value: f64) -> String {
        match value.abs() {
            tiny if tiny > 0.0 && tiny < 1e-6 => format!("{value:e}"),
            _ => value.to_string(),
        }
    }
    fn allowed(&self) -> String {
        format!("{} to {}", self.0, self.1)
    }
}

/// `auto` (chosen from the prompt, as `.1` says) or a value of the inner domain.
pub struct Auto<D: Domain>(pub D, pub &'static str);

impl<D: Domain> Domain for Auto<D> {
    type Value = Option<D::Value>;
    fn read(&self, text: &str) -> Option<Self::Value> {
        match text {
            "auto" => Some(None),
            text => self.0.read(text).map(Some),
        }
    }
    fn show(&self, value: Self::Value) -> String {
        value.map_or_else(|| "auto".into(), |value| self.0.show(value))
    }
    fn allowed(&self) -> String {
        format!("{}, or auto ({})", self.0.allowed(), self.1)
    }
}

/// `N%` of the budget or `N` tokens, none included.
pub struct OfBudget;

impl Domain for OfBudget {
    type Value = Amount;
    fn read(&self, text: &str) -> Option<Amount> {
        text.parse().ok()
    }
    fn show(&self, value: Amount) -> String {
        value.to_string()
    }
    fn allowed(&self) -> String {
        "0% to 100% of the budget, or a number of tokens".into()
    }
}

/// The path of a file; it is not looked for before the policy is built. No `+` or `,`: they end a value.
pub struct File;

impl Domain for File {
    type Value = PathBuf;
    fn read(&self, text: &str) -> Option<PathBuf> {
        (!text.is_empty() && printable(text) == text).then(|| text.into())
    }
    fn show(&self, value: PathBuf) -> String {
        value.display().to_string()
    }
    fn allowed(&self) -> String {
        "path of a file, without `+` and `,`".into()
    }
}

/// `on` or `off`.
pub const SWITCH: Choice<bool> = Choice(&[("on", true), ("off", false)]);

/// One of a few words.
pub struct Choice<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Copy + PartialEq + Send + Sync> Domain for Choice<T> {
    type Value = T;
    fn read(&self, text: &str) -> Option<T> {
        self.0.iter().find(|(word, _)| *word == text).map(|&(_, value)| value)
    }
    fn show(&self, value: T) -> String {
        self.0.iter().find(|&&(_, v)| v == value).map_or_else(String::new, |(word, _)| (*word).into())
    }
    fn allowed(&self) -> String {
        self.0.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(" | ")
    }
}

/// `every=prefill|step`: when the policy acts.
pub const fn every(default: Schedule) -> Key<Choice<Schedule>> {
    const WORDS: &[(&str, Schedule)] = &[("prefill", Schedule::AfterPrefill), ("step", Schedule::EveryStep)];
    Key::new("every", "when entries leave: once, after the prompt, or after every step too", Choice(WORDS), default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_outside_their_domain_are_refused() {
        assert_eq!(Count(1, 9).read("0"), None);
        assert_eq!(Count(1, 9).read("10"), None);
        assert_eq!(Count(0, u64::MAX).read("18446744073709551616"), None);
        assert_eq!(Odd(1, 9).read("4"), None);
        assert_eq!(Auto(Count(1, 9), "").read("Auto"), None);
        assert!(["1.1", "-0.1", "nan", "inf", "", "50%"].iter().all(|text| Real(0.0, 1.0).read(text).is_none()));
        assert_eq!(File.read("a\x1b[2Jb"), None);
        assert_eq!(every(Schedule::EveryStep).normal("steps"), None);
    }

    #[test]
    fn values_are_normalised() {
        assert_eq!(Key::new("a", "", Count(0, 9), 1).normal("007").as_deref(), Some("7"));
        assert_eq!(Key::new("a", "", OfBudget, Amount::percent(50)).normal("12.50%").as_deref(), Some("12.5%"));
        assert_eq!(Key::new("a", "", Auto(Count(1, 9), ""), None).normal("auto").as_deref(), Some("auto"));
        assert_eq!(every(Schedule::AfterPrefill).default(), "prefill");
        let real = Key::new("a", "", Real(0.0, 1.0), 1e-4);
        assert_eq!(
            (real.default(), real.normal("1e-3"), real.normal("-0")),
            ("0.0001".into(), Some("0.001".into()), Some("0".into()))
        );
        assert_eq!(real.normal("1e-9"), Some("1e-9".into()));
        assert_eq!(Key::new("a", "", Auto(File, ""), None).normal("./f:1/é q").as_deref(), Some("./f:1/é q"));
        assert_eq!(Key::new("a", "", SWITCH, true).default(), "on");
    }

    #[test]
    fn a_missing_value_is_the_default() {
        let key = Key::new("a", "", Count(0, 9), 4);
        assert_eq!(key.value(None), 4);
        assert_eq!(key.value(Some("8")), 8);
    }
}
