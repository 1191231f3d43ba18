//! The rows of the comparison: a model as it is, and as it would be.

use super::{Change, ChangeError, Terms};
use crate::model::kv_shape::{KvShape, LayerKv};

/// Window where the model has none of its own: Gemma 3n's and 4's.
pub const WINDOW: usize = 512;
/// MLA's latent and rotary key, 512 + 64, as DeepSeek V2 and V3 have them.
pub const LATENT: usize = 576;
/// Positions behind one row, and the window beside them: DeepSeek V4's CSA and HCA in turn.
pub const COMPRESS: [usize; 2] = [4, 128];
pub const COMPRESS_WINDOW: usize = 128;

/// One row of the comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub name: String,
    /// In at most twelve columns.
    pub short: String,
    pub shape: Result<KvShape, ChangeError>,
}

impl Row {
    pub fn bytes(&self, terms: &Terms) -> Option<u64> {
        self.shape.as_ref().ok().map(|shape| shape.bytes(terms))
    }
}

/// As it is, and with each of the known ways to keep less, one at a time.
pub fn rows(shape: &KvShape) -> Vec<Row> {
    let changes = [
        Change::Window(own_window(shape).unwrap_or(WINDOW)),
        Change::ShareLast(shape.layers.len() / 2),
        Change::Latent(LATENT),
        Change::Compress { every: COMPRESS.to_vec(), window: COMPRESS_WINDOW },
    ];
    let changed = changes.into_iter().map(|change| changed(shape, &[change]));
    std::iter::once(as_it_is(shape)).chain(changed).collect()
}

pub fn as_it_is(shape: &KvShape) -> Row {
    Row { name: "as it is".into(), short: "as it is".into(), shape: Ok(shape.clone()) }
}

/// With all `changes`, one after the other.
pub fn changed(shape: &KvShape, changes: &[Change]) -> Row {
    let joined = |words: fn(&Change) -> String| changes.iter().map(words).collect::<Vec<_>>().join(", ");
    let (name, short) = (joined(Change::to_string), joined(Change::short));
    let shape = changes.iter().try_fold(shape.clone(), |shape, change| change.to(&shape));
    Row { name, short, shape }
}

/// The window of the model's local layers.
fn own_window(shape: &KvShape) -> Option<usize> {
    let window = |layer: &LayerKv| match *layer {
        LayerKv::Heads { window, .. } | LayerKv::Latent { window, .. } => window,
        LayerKv::Compressed { window, .. } => Some(window),
        LayerKv::Shared { .. } => None,
    };
    shape.layers.iter().filter_map(window).max()
}
