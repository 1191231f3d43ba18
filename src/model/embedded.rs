//! Models that travel inside the program: the twins of `models/`, so that something real runs with no network and no file.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::source::hex;

/// Before the name, in what stands for a path.
const SCHEME: &str = "embedded:";

/// Numbers in a checkpoint lie at multiples of their size behind its first byte.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

/// A Hugging Face folder.
#[derive(Debug, PartialEq, Eq)]
pub struct Embedded {
    pub name: &'static str,
    pub title: &'static str,
    pub config: &'static [u8],
    pub tokenizer: &'static [u8],
    /// `model.safetensors`
    pub weights: &'static [u8],
}

macro_rules! folder {
    ($name:literal, $title:literal) => {{
        static WEIGHTS: &Aligned<[u8]> =
            &Aligned(*include_bytes!(concat!("../../models/", $name, "/model.safetensors")));
        Embedded {
            name: $name,
            title: $title,
            config: include_bytes!(concat!("../../models/", $name, "/config.json")),
            tokenizer: include_bytes!(concat!("../../models/", $name, "/tokenizer.json")),
            weights: &WEIGHTS.0,
        }
    }};
}

static ALL: [Embedded; 2] = [
    folder!("twin-attnres", "5.5M parameters, Block Attention Residuals, simple stories"),
    folder!("twin-plain", "the same with plain residuals"),
];

pub fn all() -> &'static [Embedded] {
    &ALL
}

pub fn find(name: &str) -> Option<&'static Embedded> {
    ALL.iter().find(|model| model.name == name)
}

/// The model that [`Embedded::path`] gave `path` of.
pub fn at(path: &Path) -> Option<&'static Embedded> {
    find(path.to_str()?.strip_prefix(SCHEME)?)
}

impl Embedded {
    /// Stands for a path wherever one is asked for.
    pub fn path(&self) -> PathBuf {
        format!("{SCHEME}{}", self.name).into()
    }

    pub fn size(&self) -> u64 {
        (self.config.len() + self.tokenizer.len() + self.weights.len()) as u64
    }

    /// As of the same folder: of the list `sha256  name` of config and weights.
    pub fn sha256(&self) -> String {
        let line = |bytes: &[u8], name: &str| format!("{}  {name}\n", hex(&Sha256::digest(bytes)));
        hex(&Sha256::digest(line(self.config, "config.json") + &line(self.weights, "model.safetensors")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::Model;

    #[test]
    fn the_twins_are_those_of_their_folders() {
        for twin in all() {
            let inside = Model::open(&twin.path()).unwrap();
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(twin.name);
            let outside = Model::open(&folder).unwrap();
            assert_eq!((&inside.id, &inside.config), (&outside.id, &outside.config));
            assert_eq!(inside.sha256().unwrap(), outside.sha256().unwrap());
            let last = |model: &Model| model.weights.layers[11].down.data().to_vec();
            assert_eq!(last(&inside), last(&outside));
            assert!(inside.tokenizer.is_some() && inside.weights.layers[0].q.data().as_ptr().addr().is_multiple_of(2));
        }
        assert!(find("twin").is_none() && at(Path::new("embedded:other")).is_none());
    }
}
