//! All policies, one line each.

use super::budget::{adakv, dynamickv, headkv, lukv, perlayer, pyramid, squeeze, zigzag};
use super::descriptor::Descriptor;
use super::storage::{akvq, kivi, plain, think, wkvquant, zipcache};
use super::{
    actqkv, block, blockwise, cam, cap, chunk, chunkkv, compactor, criticalkv, cur, decoding, delta, dropkv, duo,
    echoatt, entropychunkkv, expected, fair, fastgen, finch, full, h2o, keydiff, keyformer, knorm, kvcompose, kvcrush,
    kvsharer, kvzap, kvzip, lagkv, laq, leverage, magicpig, merge, noncausal, observed, oracle, predictor, protect,
    qfilter, quest, random, razor, rerotate, scissorhands, scope, sharedattention, simlayer, snapkv, streaming, taskkv,
    tidal, tie, tova, vatp, window,
};

/// In the order in which tables show them: the yardstick, recency, attention, keys, control; then what
/// acts on those: budgets, wrappers; then readers, which evict nothing; then how what stays is stored; then layers that
/// share.
pub static POLICIES: &[&Descriptor] = &[
    &full::POLICY,
    &window::POLICY,
    &streaming::POLICY,
    &h2o::POLICY,
    &observed::POLICY,
    &scissorhands::POLICY,
    &vatp::POLICY,
    &keyformer::POLICY,
    &tova::POLICY,
    &snapkv::POLICY,
    &taskkv::POLICY,
    &finch::POLICY,
    &dropkv::POLICY,
    &expected::POLICY,
    &cap::POLICY,
    &noncausal::POLICY,
    &compactor::POLICY,
    &kvzip::POLICY,
    &kvzap::POLICY,
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
    &scope::POLICY,
    &adakv::POLICY,
    &pyramid::POLICY,
    &squeeze::POLICY,
    &dynamickv::POLICY,
    &zigzag::POLICY,
    &headkv::POLICY,
    &lukv::POLICY,
    &perlayer::POLICY,
    &simlayer::POLICY,
    &fastgen::POLICY,
    &duo::POLICY,
    &razor::POLICY,
    &criticalkv::POLICY,
    &chunkkv::POLICY,
    &entropychunkkv::POLICY,
    &chunk::POLICY,
    &block::POLICY,
    &blockwise::POLICY,
    &kvcrush::POLICY,
    &fair::POLICY,
    &protect::POLICY,
    &decoding::POLICY,
    &merge::POLICY,
    &cam::POLICY,
    &rerotate::POLICY,
    &quest::POLICY,
    &tidal::POLICY,
    &magicpig::POLICY,
    &actqkv::POLICY,
    &predictor::POLICY,
    &delta::POLICY,
    &kivi::POLICY,
    &zipcache::POLICY,
    &akvq::POLICY,
    &wkvquant::POLICY,
    &plain::INT8,
    &plain::INT4,
    &think::POLICY,
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
