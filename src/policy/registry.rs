//! All policies, one line each.

use super::budget;
use super::descriptor::Descriptor;
use super::storage;

/// In the order in which tables show them: the yardstick, recency, attention, keys, control; then what
/// acts on those: budgets, wrappers; then readers, which evict nothing; then how what stays is stored; then layers that
/// share.
pub static POLICIES: &[&Descriptor] = &[
    &super::full::POLICY,
    &super::window::POLICY,
    &super::streaming::POLICY,
    &super::h2o::POLICY,
    &super::observed::POLICY,
    &super::scissorhands::POLICY,
    &super::vatp::POLICY,
    &super::keyformer::POLICY,
    &super::tova::POLICY,
    &super::snapkv::POLICY,
    &super::taskkv::POLICY,
    &super::finch::POLICY,
    &super::dropkv::POLICY,
    &super::expected::POLICY,
    &super::cap::POLICY,
    &super::noncausal::POLICY,
    &super::compactor::POLICY,
    &super::kvzip::POLICY,
    &super::kvzap::POLICY,
    &super::fastkvzip::POLICY,
    &super::attentiongate::POLICY,
    &super::kvcompose::POLICY,
    &super::laq::POLICY,
    &super::lookaheadkv::POLICY,
    &super::oracle::POLICY,
    &super::knorm::POLICY,
    &super::vnorm::POLICY,
    &super::keydiff::POLICY,
    &super::qfilter::POLICY,
    &super::lagkv::POLICY,
    &super::cur::POLICY,
    &super::leverage::POLICY,
    &super::random::POLICY,
    &super::scope::POLICY,
    &budget::adakv::POLICY,
    &budget::pyramid::POLICY,
    &budget::squeeze::POLICY,
    &budget::dynamickv::POLICY,
    &budget::zigzag::POLICY,
    &budget::headkv::POLICY,
    &budget::lukv::POLICY,
    &budget::perlayer::POLICY,
    &super::simlayer::POLICY,
    &super::fastgen::POLICY,
    &super::duo::POLICY,
    &super::razor::POLICY,
    &super::criticalkv::POLICY,
    &super::chunkkv::POLICY,
    &super::entropychunkkv::POLICY,
    &super::chunk::POLICY,
    &super::block::POLICY,
    &super::blockwise::POLICY,
    &super::kvcrush::POLICY,
    &super::fair::POLICY,
    &super::protect::POLICY,
    &super::decoding::POLICY,
    &super::merge::POLICY,
    &super::cam::POLICY,
    &super::rerotate::POLICY,
    &super::quest::POLICY,
    &super::tidal::POLICY,
    &super::magicpig::POLICY,
    &super::actqkv::POLICY,
    &super::predictor::POLICY,
    &super::delta::POLICY,
    &storage::kivi::POLICY,
    &storage::zipcache::POLICY,
    &storage::akvq::POLICY,
    &storage::wkvquant::POLICY,
    &storage::plain::INT8,
    &storage::plain::INT4,
    &storage::think::POLICY,
    &super::tie::POLICY,
    &super::kvsharer::POLICY,
    &super::sharedattention::POLICY,
    &super::echoatt::POLICY,
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
                Part::Full | Part::Scorer(_) | Part::Storage(_) | Part::Reader(_) | Part::Prefill(_) => {
                    (policy.name.to_owned(), false)
                }
                Part::Missing(_) => (policy.name.to_owned(), true),
                _ => (format!("{}+knorm@50%", policy.name), false),
            };
            match Policy::parse(&whole) {
                Ok(built) => {
                    let stores = matches!(policy.family, Family::Quantizer | Family::Channels);
                    let reads = policy.family == Family::Reader;
                    assert_eq!(built.evicts(), policy.family != Family::Reference && !stores && !reads);
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
