//! Models for tests: real ones by catalog name, and small ones that the tests write themselves.
#![allow(dead_code, reason = "every test program uses another part")]

pub mod gguf;

use attnscope::model::catalog;
use attnscope::model::fetch::{self, Progress};
use attnscope::model::source::Model;

struct Quiet;

impl Progress for Quiet {
    fn begin(&mut self, source: &str, _: Option<u64>) {
        eprintln!("fetching a model for the tests from {source}");
    }
    fn advance(&mut self, _: u64) {}
    fn note(&mut self, text: &str) {
        eprintln!("{text}");
    }
}

/// A catalog model. The default one is fetched if need be, larger ones only with ATTNSCOPE_TEST_PULL=1.
/// Without it the reason is printed, and the test that asked has nothing to do.
pub fn real_model(name: &str) -> Option<Model> {
    let entry = catalog::find(name).expect("a catalog name");
    let wanted = name == catalog::default_name() || std::env::var_os("ATTNSCOPE_TEST_PULL").is_some();
    let path = match fetch::present(entry) {
        Some(path) => path,
        None if !wanted => {
            eprintln!("skipped: {name} is not on this machine (`attnscope pull {name}` or ATTNSCOPE_TEST_PULL=1)");
            return None;
        }
        None => match fetch::ensure(entry, &mut Quiet) {
            Ok(path) => path,
            Err(error) => {
                eprintln!("skipped: {error}");
                return None;
            }
        },
    };
    Some(Model::open(&path).expect("a verified model opens"))
}
