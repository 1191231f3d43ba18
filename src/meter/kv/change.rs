//! Another cache for the same model.

use std::fmt;

use crate::model::kv_shape::{KvShape, LayerKv, share_last};

/// What is changed; several follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// No layer looks back further than so many positions.
    Window(usize),
    /// The last so many layers read the last one before them that is of their kind (CLA, arXiv 2405.12981; Gemma 3n, 4).
    ShareLast(usize),
    /// One row of so many numbers per position in place of all keys and values (MLA, arXiv 2405.04434: 512 + 64).
    Latent(usize),
    /// Layers that see everything keep one row for so many positions, in turn, 0 meaning none, and a window as it is
    /// (CSA and HCA, arXiv 2606.19348).
    Compress { every: Vec<usize>, window: usize },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    #[error("layer {layer} has no layer of its kind before the last {count} that it could read")]
    Alone { layer: usize, count: usize },
    #[error("{count} of {layers} layers cannot read others: at least one has to keep its own")]
    All { count: usize, layers: usize },
}

impl Change {
    pub fn to(&self, shape: &KvShape) -> Result<KvShape, ChangeError> {
        let mut layers = shape.layers.clone();
        match self {
            Self::Window(most) => layers.iter_mut().for_each(|layer| *layer = within(*layer, *most)),
            Self::ShareLast(count) => {
                let (count, all) = (*count, layers.len());
                if count >= all {
                    return Err(ChangeError::All { count, layers: all });
                }
                share_last(&mut layers, count).map_err(|layer| ChangeError::Alone { layer, count })?;
            }
            Self::Latent(width) => {
                for layer in &mut layers {
                    if let LayerKv::Heads { window, .. } = *layer {
                        *layer = LayerKv::Latent { width: *width, window };
                    }
                }
            }
            Self::Compress { every, window } => {
                let mut ratios = every.iter().cycle();
                for layer in &mut layers {
                    let Some(width) = width_of_all(*layer) else { continue };
                    *layer = match ratios.next() {
                        None => *layer,
                        Some(0) => LayerKv::Latent { width, window: Some(*window) },
                        Some(&every) => LayerKv::Compressed { every, window: *window, width, indexer: 0 },
                    };
                }
            }
        }
        Ok(KvShape { layers })
    }

    /// In few columns.
    pub fn short(&self) -> String {
        match self {
            Self::Window(most) => format!("window {most}"),
            Self::ShareLast(count) => format!("{count} share"),
            Self::Latent(width) => format!("latent {width}"),
            Self::Compress { every, .. } => format!("1 for {}", joined(every)),
        }
    }
}

fn joined(every: &[usize]) -> String {
    every.iter().map(usize::to_string).collect::<Vec<_>>().join("/")
}

fn within(layer: LayerKv, most: usize) -> LayerKv {
    let least = |window: Option<usize>| Some(window.map_or(most, |w| w.min(most)));
    match layer {
        LayerKv::Heads { kv_heads, head_dim, window } => LayerKv::Heads { kv_heads, head_dim, window: least(window) },
        LayerKv::Latent { width, window } => LayerKv::Latent { width, window: least(window) },
        LayerKv::Compressed { width, window, .. } => LayerKv::Latent { width, window: least(Some(window)) },
        shared @ LayerKv::Shared { .. } => shared,
    }
}

/// Numbers of one position, where a layer keeps all positions.
fn width_of_all(layer: LayerKv) -> Option<usize> {
    match layer {
        LayerKv::Heads { kv_heads, head_dim, window: None } => Some(2 * kv_heads * head_dim),
        LayerKv::Latent { width, window: None } => Some(width),
        _ => None,
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window(most) => write!(f, "window {most} everywhere"),
            Self::ShareLast(count) => write!(f, "last {count} layers share"),
            Self::Latent(width) => write!(f, "latent of {width}"),
            Self::Compress { every, window } => write!(f, "1 row for {}, window {window}", joined(every)),
        }
    }
}
