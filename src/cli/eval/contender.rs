//! What is compared: policies times budgets, each in normal form and once.

use miette::Result;

use crate::cli::exit::Usage;
use crate::policy::amount::Amount;
use crate::policy::{Policy, Spec};

/// One policy at one budget.
#[derive(Debug, Clone)]
pub struct Contender {
    /// The row it stands in: the policy as written, without the budget that it got here.
    pub row: String,
    /// The budget that it got here; `None` where it came with its own, or takes none.
    pub budget: Option<Amount>,
    pub policy: Policy,
}

impl Contender {
    /// In normal form.
    pub fn spec(&self) -> String {
        self.policy.spec().to_string()
    }

    /// Keeps everything: what the others are measured against.
    pub fn is_full(&self) -> bool {
        self.policy.spec().parts().iter().all(|part| part.policy().name == "full")
    }
}

/// The policies in `lists` at every budget, `full` before them. A policy with a budget of its own, or without any use
/// for one, stands there once.
pub fn contenders(lists: &[String], budgets: &[Amount]) -> Result<Vec<Contender>> {
    let full = Contender { row: "full".into(), budget: None, policy: Policy::parse("full")? };
    let mut all = vec![full];
    let mut add = |one: Contender| {
        if all.iter().all(|known| known.policy.spec() != one.policy.spec()) {
            all.push(one);
        }
    };
    for text in lists.iter().flat_map(|list| split(list)) {
        // Says what is wrong with the policy itself, before budgets are put into it.
        let spec = Spec::parse(&text)?;
        let row = text;
        if row.contains('@') || spec.parts().iter().all(|part| part.policy().budget.is_none()) {
            add(Contender { row, budget: None, policy: Policy::new(spec)? });
            continue;
        }
        for &budget in budgets {
            let policy = Policy::parse(&with_budget(&row, &spec, budget))?;
            add(Contender { row: row.clone(), budget: Some(budget), policy });
        }
    }
    if all.len() == 1 {
        let help = "give some, e.g. --policies snapkv,h2o,knorm; see `attnscope policies`";
        return Err(Usage::new("there is no policy to be judged", help).into());
    }
    Ok(all)
}

/// `adakv+snapkv:window=32` at 25% is `adakv+snapkv@25%:window=32`: a budget stands at every part that takes one.
fn with_budget(text: &str, spec: &Spec, budget: Amount) -> String {
    let with = |(piece, part): (&str, &crate::policy::spec::PartSpec)| {
        if part.policy().budget.is_none() {
            return piece.to_owned();
        }
        match piece.split_once(':') {
            Some((name, keys)) => format!("{name}@{budget}:{keys}"),
            None => format!("{piece}@{budget}"),
        }
    };
    text.split('+').zip(spec.parts()).map(with).collect::<Vec<_>>().join("+")
}

/// A list of specs: commas stand between policies as between the keys of one, and only keys have a `=` in their name's
/// place.
fn split(list: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for piece in list.split(',') {
        let head = piece.split([':', '@', '+']).next().unwrap_or_default();
        match all.last_mut() {
            Some(last) if head.contains('=') => {
                last.push(',');
                last.push_str(piece);
            }
            _ => all.push(piece.trim().to_owned()),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs(lists: &[&str], budgets: &[&str]) -> Vec<String> {
        let lists: Vec<String> = lists.iter().map(|s| s.to_string()).collect();
        let budgets: Vec<Amount> = budgets.iter().map(|b| b.parse().unwrap()).collect();
        contenders(&lists, &budgets).unwrap().iter().map(Contender::spec).collect()
    }

    #[test]
    fn budgets_stand_where_they_belong() {
        assert_eq!(
            specs(&["snapkv,adakv+snapkv:window=32,kernel=7"], &["25%", "64"]),
            [
                "full",
                "snapkv@25%",
                "snapkv@64",
                "adakv+snapkv@25%:window=32,kernel=7",
                "adakv+snapkv@64:window=32,kernel=7"
            ]
        );
        assert_eq!(
            specs(&["snapkv+decoding:every=8+knorm"], &["25%"]),
            ["full", "snapkv@25%+decoding:every=8+knorm@25%"]
        );
    }

    #[test]
    fn own_budgets_stay_and_nothing_stands_twice() {
        assert_eq!(
            specs(&["H2O@10%", "knorm,full", "knorm@50%", "h2o@10%"], &["50%"]),
            ["full", "h2o@10%", "knorm@50%"]
        );
    }

    #[test]
    fn what_is_wrong_is_said_about_the_policy_as_written() {
        let wrong = |list: &str| contenders(&[list.into()], &[Amount::percent(50)]).unwrap_err().to_string();
        assert!(wrong("snapkv,nonsense").contains("nonsense"));
        assert!(wrong("snapkv,").contains("a policy name is missing"));
        assert!(wrong("adakv").contains("adakv"));
        assert!(wrong("full").contains("no policy"));
    }
}
