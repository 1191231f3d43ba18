//! Number types that a cache could store, some of which no cache here does.

use std::fmt;
use std::str::FromStr;

/// Its name and the bits of one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dtype {
    pub name: &'static str,
    pub bits: u32,
}

/// Of integers the codes alone count: scales and zero points come on top, as many as the groups are small.
pub const DTYPES: [Dtype; 7] = [
    Dtype { name: "bf16", bits: 16 },
    Dtype { name: "f16", bits: 16 },
    Dtype { name: "f32", bits: 32 },
    Dtype { name: "fp8", bits: 8 },
    Dtype { name: "int8", bits: 8 },
    Dtype { name: "int4", bits: 4 },
    Dtype { name: "int2", bits: 2 },
];

impl Dtype {
    /// The one behind it, and round again.
    pub fn next(self) -> Self {
        let at = DTYPES.iter().position(|dtype| *dtype == self).map_or(0, |at| at + 1);
        DTYPES[at % DTYPES.len()]
    }

    /// Integers need more than their codes.
    pub fn is_codes(self) -> bool {
        self.name.starts_with("int")
    }
}

impl Default for Dtype {
    fn default() -> Self {
        DTYPES[0]
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl FromStr for Dtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        DTYPES.into_iter().find(|dtype| dtype.name == text).ok_or_else(|| {
            let names: Vec<&str> = DTYPES.iter().map(|dtype| dtype.name).collect();
            format!("one of {}", names.join(", "))
        })
    }
}
