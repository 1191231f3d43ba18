//! The kernels' sources, which travel inside this program.

use sha2::{Digest, Sha256};

use super::nvrtc::{OPTIONS, Source};
use crate::model::source::hex;

/// What the families include by name.
pub const HEADERS: [(&str, &str); 5] = [
    ("attend.cuh", include_str!("../../../kernels/attend.cuh")),
    ("blocks.cuh", include_str!("../../../kernels/blocks.cuh")),
    ("dot.cuh", include_str!("../../../kernels/dot.cuh")),
    ("mma.cuh", include_str!("../../../kernels/mma.cuh")),
    ("scope.cuh", include_str!("../../../kernels/scope.cuh")),
];

/// Kernels that belong together: one file of `kernels/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    pub text: &'static str,
    /// The PTX that travels with it; see [`super::embedded`].
    pub ptx: &'static str,
}

macro_rules! families {
    ($($name:literal),* $(,)?) => {
        &[$(Family {
            name: $name,
            text: include_str!(concat!("../../../kernels/", $name, ".cu")),
            ptx: include_str!(concat!("../../../kernels/ptx/", $name, ".ptx")),
        }),*]
    };
}

/// A line for each file `kernels/*.cu`; its `kernels/ptx/*.ptx` may be empty until it is made (see
/// [`super::embedded`]).
pub const FAMILIES: &[Family] = families! {
    "alter",
    "compact",
    "decode_attention",
    "elementwise",
    "embed",
    "gated",
    "mix",
    "norm",
    "pack",
    "prefill_attention",
    "product",
    "product_tensor",
    "rope",
    "sampling",
    "score",
    "viewport",
};

impl Family {
    pub fn source(&self) -> Source<'static> {
        Source { name: self.name, text: self.text, headers: &HEADERS }
    }

    /// SHA-256 over all that code is made of, but for the target: this text, the headers, the options.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        OPTIONS.iter().for_each(|option| part(option));
        HEADERS.iter().for_each(|(name, text)| [name, text].into_iter().for_each(|text| part(text)));
        part(self.text);
        hex(&hash.finalize())
    }

    /// Names of its kernels, in the order of the file.
    pub fn kernels(&self) -> Vec<&'static str> {
        let defined = |line: &'static str| line.trim_start().strip_prefix("KERNEL(")?.split_once(')');
        self.text.lines().filter_map(defined).map(|(name, _)| name.trim()).collect()
    }
}

/// The family of that name.
pub fn family(name: &str) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| family.name == name)
}
