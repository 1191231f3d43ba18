//! All policies. Each puts itself here from its own file: nothing else has to name it.

use std::sync::LazyLock;

use linkme::distributed_slice;

use super::descriptor::Descriptor;

/// As the linker finds them.
#[distributed_slice]
pub static REGISTERED: [Descriptor];

/// By family, then by name: the yardstick first.
pub static POLICIES: LazyLock<Vec<&'static Descriptor>> = LazyLock::new(|| {
    let mut policies: Vec<&Descriptor> = REGISTERED.iter().collect();
    policies.sort_by_key(|policy| (policy.family, policy.name));
    policies
});

/// What a policy is also called, and its name.
const ALSO: [(&str, &str); 1] = [("lookahead", "lookaheadkv")];

pub fn find(name: &str) -> Option<&'static Descriptor> {
    let name = ALSO.iter().find(|(also, _)| *also == name).map_or(name, |(_, name)| name);
    POLICIES.iter().copied().find(|policy| policy.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::descriptor::Family;
    use crate::policy::error::Problem;
    use crate::policy::part::Part;
    use crate::policy::spec::PartSpec;
    use crate::policy::{Policy, Spec};

    #[test]
    fn names_and_keys_are_unique_and_can_be_written_in_a_spec() {
        let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        for (i, policy) in POLICIES.iter().enumerate() {
            assert!(word(policy.name), "{}", policy.name);
            assert!(POLICIES[..i].iter().all(|other| other.name != policy.name), "{} twice", policy.name);
            for (j, key) in policy.keys.iter().enumerate() {
                assert!(word(key.name()), "{}", key.name());
                assert!(policy.keys[..j].iter().all(|other| other.name() != key.name()), "{} twice", key.name());
            }
        }
    }

    #[test]
    fn a_second_name_leads_to_a_policy_and_is_nobodys_first() {
        for (also, name) in ALSO {
            assert_eq!(find(also).map(|policy| policy.name), Some(name));
            assert!(POLICIES.iter().all(|policy| policy.name != also));
        }
        assert_eq!(Spec::parse("lookahead@32").unwrap().to_string(), "lookaheadkv@32");
    }

    #[test]
    fn every_policy_runs_from_its_name_alone_and_accepts_its_own_defaults() {
        for policy in POLICIES.iter() {
            // a wrapper has nothing to act on alone, and nobody has a file by default
            let (whole, refused) = match (policy.build)(&PartSpec::defaults(policy)) {
                Part::Full
                | Part::Scorer(_)
                | Part::Storage(_)
                | Part::Reader(_)
                | Part::Prefill(_)
                | Part::Intervention(_) => (policy.name.to_owned(), false),
                Part::Missing(_) => (policy.name.to_owned(), true),
                _ => (format!("{}+knorm@50%", policy.name), false),
            };
            match Policy::parse(&whole) {
                Ok(built) => {
                    let stores = matches!(policy.family, Family::Quantizer | Family::Channels);
                    let reads = policy.family == Family::Reader;
                    let alone = matches!(policy.family, Family::Reference | Family::Intervention);
                    assert_eq!(built.evicts(), !(alone || stores || reads) || built.sharing().is_some());
                    assert_eq!(built.intervenes(), policy.family == Family::Intervention && built.sharing().is_none());
                    assert_eq!(built.storage().is_some(), stores);
                    assert_eq!(built.reads_a_part() || built.sparse().is_some(), reads);
                }
                Err(error) => assert!(refused && matches!(error.problem(), Problem::Missing { .. }), "{error}"),
            }
            for key in policy.keys {
                let default = key.default();
                assert_eq!(key.normal(&default).as_ref(), Some(&default), "{} {}", policy.name, key.name());
                assert!(Spec::parse(&format!("{}:{}={default}", policy.name, key.name())).is_ok());
                assert!(!key.allowed().is_empty() && !key.meaning().is_empty());
            }
        }
    }
}
