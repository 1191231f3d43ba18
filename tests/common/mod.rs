//! Golden data and models for the tests: real ones by catalog name, small ones that the tests write themselves.
#![allow(dead_code, reason = "every test program uses another part")]

pub mod chance;
pub mod gguf;
pub mod hyper;

use std::path::{Path, PathBuf};

use attnscope::engine::{Core, Device, LaneSpec, Options, Precision, Sampler, open};
use attnscope::model::catalog;
use attnscope::model::fetch::{self, Progress};
use attnscope::model::source::Model;
use attnscope::policy::Policy;
use safetensors::SafeTensors;

/// Where the golden data lies: `ATTNSCOPE_GOLDEN` names the complete set, the repository holds a selection of it.
pub fn golden_dir() -> PathBuf {
    std::env::var_os("ATTNSCOPE_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from)
}

pub struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    pub fn open(path: &Path) -> Golden {
        Golden { bytes: std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())) }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("golden file")
    }

    pub fn names(&self) -> Vec<String> {
        self.tensors().names().iter().map(|n| n.to_string()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors().tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).shape().to_vec()
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        let all = self.tensors();
        let t = all.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        t.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    /// Any integer tensor.
    pub fn ints(&self, name: &str) -> Vec<i64> {
        let all = self.tensors();
        let t = all.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let data = t.data();
        let n: usize = t.shape().iter().product();
        let width = data.len() / n.max(1);
        let get = |b: &[u8]| match b.len() {
            1 => b[0] as i64,
            2 => i16::from_le_bytes([b[0], b[1]]) as i64,
            4 => i32::from_le_bytes([b[0], b[1], b[2], b[3]]) as i64,
            _ => i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        };
        data.chunks_exact(width).map(get).collect()
    }
}

pub fn json(path: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("golden json")
}

pub fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().expect("array").iter().map(|v| v.as_u64().expect("id") as u32).collect()
}

pub fn floats(value: &serde_json::Value) -> Vec<f32> {
    value.as_array().expect("array").iter().map(|v| v.as_f64().expect("number") as f32).collect()
}

pub fn lane(spec: &str) -> LaneSpec {
    LaneSpec { policy: Policy::parse(spec).expect(spec), sampler: Sampler::default() }
}

pub fn options(precision: Precision, lanes: &[&str]) -> Options {
    Options {
        device: Device::Cpu,
        precision,
        threads: 2,
        kv: None,
        queries_budget: 1 << 30,
        chunk: 512,
        lanes: lanes.iter().map(|s| lane(s)).collect(),
        depth: None,
    }
}

pub fn core(model: &Model, precision: Precision, lanes: &[&str]) -> Core {
    open(model, &options(precision, lanes), |_, _| {}).expect("backend").0
}

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
