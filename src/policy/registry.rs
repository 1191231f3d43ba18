//! All policies, one line each.

use super::budget::{adakv, perlayer, pyramid};
use super::descriptor::Descriptor;
use super::{
    block, blockwise, cap, chunk, chunkkv, compactor, criticalkv, cur, decoding, dropkv, duo, echoatt, entropychunkkv,
    expected, fair, finch, full, h2o, keydiff, keyformer, knorm, kvcompose, kvsharer, kvzip, lagkv, laq, leverage,
    merge, noncausal, observed, oracle, protect, qfilter, random, rerotate, sharedattention, simlayer, snapkv,
    streaming, tie, tova, vatp, window,
};

/// In the order in which tables show them: the yardstick, recency, attention, keys, control; then what
/// acts on those: budgets, wrappers; then layers that share.
pub static POLICIES: &[&Descriptor] = &[
    &full::POLICY,
    &window::POLICY,
    &streaming::POLICY,
    &h2o::POLICY,
    &observed::POLICY,
    &vatp::POLICY,
    &keyformer::POLICY,
    &tova::POLICY,
    &snapkv::POLICY,
    &finch::POLICY,
    &dropkv::POLICY,
    &expected::POLICY,
    &cap::POLICY,
    &noncausal::POLICY,
    &compactor::POLICY,
    &kvzip::POLICY,
    &kvcompose::POLICY,
    &laq::POLICY,
    &oracle::POLICY,
    &knorm::POLICY,
    &keydiff::POLICY,
    &qfilter::POLICY,
    &lagkv::POLICY,
    &cur::POLICY,
    &leverage::POLICY,
    &random::POLICY,
    &adakv::POLICY,
    &pyramid::POLICY,
    &perlayer::POLICY,
    &simlayer::POLICY,
    &duo::POLICY,
    &criticalkv::POLICY,
    &chunkkv::POLICY,
    &entropychunkkv::POLICY,
    &chunk::POLICY,
    &block::POLICY,
    &blockwise::POLICY,
    &fair::POLICY,
    &protect::POLICY,
    &decoding::POLICY,
    &merge::POLICY,
    &rerotate::POLICY,
    &tie::POLICY,
    &kvsharer::POLICY,
    &sharedattention::POLICY,
    &echoatt::POLICY,
];

pub fn find(name: &str) -> Option<&'static Descriptor> {
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
    fn every_policy_runs_from_its_name_alone_and_accepts_its_own_defaults() {
        for policy in POLICIES {
            // a wrapper has nothing to act on alone, and nobody has a file by default
            let (whole, refused) = match (policy.build)(&PartSpec::defaults(policy)) {
                Part::Full | Part::Scorer(_) => (policy.name.to_owned(), false),
                Part::Missing(_) => (policy.name.to_owned(), true),
                _ => (format!("{}+knorm@50%", policy.name), false),
            };
            match Policy::parse(&whole) {
                Ok(built) => assert_eq!(built.evicts(), policy.family != Family::Reference),
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
