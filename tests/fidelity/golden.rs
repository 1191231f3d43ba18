//! Reading golden data.

use std::path::{Path, PathBuf};

use attnscope::engine::{Core, Device, LaneSpec, Options, Precision, Sampler, open};
use attnscope::model::source::Model;
use attnscope::policy::Policy;
use safetensors::SafeTensors;
use serde_json::Value;

pub const PROMPTS: [&str; 4] = ["d1_short", "d2_code", "d3_needle", "d4_essay"];

pub fn dir() -> PathBuf {
    std::env::var_os("ATTNSCOPE_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from)
}

pub struct Tensors(Vec<u8>);

impl Tensors {
    pub fn open(path: &Path) -> Self {
        Self(std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    pub fn of(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    fn all(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).unwrap()
    }

    pub fn has(&self, name: &str) -> bool {
        self.all().tensor(name).is_ok()
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        let all = self.all();
        let t = all.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        t.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Any integer tensor, as usize.
    pub fn ints(&self, name: &str) -> Vec<usize> {
        let all = self.all();
        let t = all.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let width = t.data().len() / t.shape().iter().product::<usize>().max(1);
        let get = |b: &[u8]| b.iter().rev().fold(0usize, |n, byte| n << 8 | *byte as usize);
        t.data().chunks_exact(width).map(get).collect()
    }
}

pub fn json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

pub fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

pub fn lane(spec: &str) -> LaneSpec {
    LaneSpec { policy: Policy::parse(spec).unwrap(), sampler: Sampler::default() }
}

pub fn core(model: &Model, precision: Precision, lanes: &[&str]) -> Core {
    core_with(model, precision, lanes, None)
}

/// With depth queries from a file.
pub fn core_with(model: &Model, precision: Precision, lanes: &[&str], depth: Option<PathBuf>) -> Core {
    let lanes = lanes.iter().map(|spec| lane(spec)).collect();
    let options = Options {
        device: Device::Cpu,
        precision,
        threads: 2,
        kv: None,
        queries_budget: 1 << 30,
        chunk: 256,
        lanes,
        depth,
    };
    open(model, &options, |_, _| {}).unwrap().0
}

/// Largest distance of `ours` from `theirs`, as a share of `scale`.
pub fn worst(ours: impl IntoIterator<Item = f32>, theirs: &[f32], scale: f32) -> f32 {
    let mut n = 0;
    let far = ours.into_iter().zip(theirs).map(|(a, b)| {
        n += 1;
        // A NaN must not pass for agreement.
        if a.is_nan() { f32::INFINITY } else { (a - b).abs() / scale }
    });
    let far = far.fold(0.0, f32::max);
    assert_eq!(n, theirs.len(), "as many numbers on both sides");
    far
}

pub fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |m, v| v.abs().max(m))
}
