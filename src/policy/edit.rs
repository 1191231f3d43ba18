//! Small changes to a spec while it runs: more or less budget, protected entries in or out.

use super::amount::Amount;
use super::protect;
use super::spec::{PartSpec, Spec};

impl Amount {
    /// Five percent points, or a tenth of the tokens, more or less; never nothing.
    pub fn nudged(self, more: bool) -> Self {
        match self {
            Self::Tokens(n) => {
                let step = (n / 10).max(1);
                Self::Tokens(if more { n.saturating_add(step) } else { n.saturating_sub(step).max(1) })
            }
            share => {
                let percent = share.of(100) as u32;
                let exact = share == Self::percent(percent);
                Self::percent(match more {
                    true => (percent / 5 * 5 + 5).min(100),
                    // 52% goes to 50%, not to 45%
                    false => (percent.next_multiple_of(5) + 5 * (!exact) as u32).saturating_sub(5).clamp(1, 100),
                })
            }
        }
    }
}

impl Spec {
    /// With more or less budget wherever a part has one; `None` where no part has.
    pub fn nudged(&self, more: bool) -> Option<Self> {
        let mut any = false;
        let part = |part: &PartSpec| match part.budget() {
            Some(budget) => {
                any = true;
                part.with_budget(budget.nudged(more))
            }
            None => part.clone(),
        };
        let parts = self.parts().iter().map(part).collect();
        any.then(|| Self::of(parts))
    }

    /// With the first and the newest entries protected where they were not, and the other way round. What a policy
    /// protects by itself it goes on protecting.
    pub fn protection_toggled(&self) -> Self {
        let is = |part: &&PartSpec| part.policy().name == protect::POLICY.name;
        let mut parts: Vec<PartSpec> = self.parts().iter().filter(|part| !is(part)).cloned().collect();
        if parts.len() == self.parts().len() {
            parts.insert(0, PartSpec::defaults(&protect::POLICY));
        }
        Self::of(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_move_by_five_points_or_a_tenth() {
        let nudged = |spec: &str, more| Spec::parse(spec).unwrap().nudged(more).map(|spec| spec.to_string());
        assert_eq!(nudged("adakv+snapkv@50%:kernel=7", true).unwrap(), "adakv+snapkv@55%:kernel=7");
        assert_eq!(nudged("h2o@100%", true).unwrap(), "h2o@100%");
        assert_eq!(nudged("h2o@5%", false).unwrap(), "h2o@1%");
        assert_eq!(nudged("h2o@52%", false).unwrap(), "h2o@50%");
        assert_eq!(nudged("h2o@52%", true).unwrap(), "h2o@55%");
        assert_eq!(nudged("knorm@256", false).unwrap(), "knorm@231");
        assert_eq!(nudged("knorm@3", true).unwrap(), "knorm@4");
        assert_eq!(nudged("full", true), None);
    }

    #[test]
    fn protection_goes_in_and_out() {
        let toggled = |spec: &str| Spec::parse(spec).unwrap().protection_toggled().to_string();
        assert_eq!(toggled("adakv+knorm@50%"), "protect+adakv+knorm@50%");
        assert_eq!(toggled("adakv+protect:sinks=2+knorm@50%"), "adakv+knorm@50%");
    }
}
