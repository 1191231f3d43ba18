//! What goes into the engine (commands, queries) and what comes out (events).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::frame::{Depth, Frame, Peaks};
use crate::probe::numerics::Arithmetic;

/// How far one step goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grain {
    Token,
    Layer,
    Sublayer,
}

/// When a run pauses by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    Forever,
    Tokens(u32),
    EndOfText,
    Finding,
}

#[derive(Debug, Clone)]
pub enum Command {
    Step(Grain),
    Run {
        until: Until,
        pace_ms: u32,
    },
    Pause,
    /// Restore the state after `step` and drop all later steps; later steps are computed again, bit-identically.
    Rewind {
        step: u32,
    },
    /// New lane that continues `lane` from after `step` with its own copy of the cache.
    Fork {
        lane: u32,
        step: u32,
    },
    /// Replace the token that `lane` feeds in the next step.
    Force {
        lane: u32,
        token: u32,
    },
    /// Another policy for `lane`, as if it had had it from the start: all steps are computed again.
    Change {
        lane: u32,
        spec: String,
    },
    /// A lane more, with this policy from the prompt on: fed lane 0's tokens up to the present step, then its own.
    Open {
        spec: String,
    },
    /// Start again with another prompt; lanes and settings stay.
    Prompt(String),
    SetProbes(Probes),
    /// Run so many steps, every other one without times: what taking them costs can be seen by comparing.
    CompareTimings {
        steps: u32,
    },
    Query {
        id: u64,
        query: Query,
    },
    Quit,
}

/// Probes that cost something and can be switched off (off = free).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probes {
    pub residual: bool,
    pub attention: bool,
    pub kv_norms: bool,
    pub lens: bool,
    pub timings: bool,
}

impl Probes {
    pub const NONE: Self = Self { residual: false, attention: false, kv_norms: false, lens: false, timings: false };
}

impl Default for Probes {
    /// What `run` and `bench` use: everything but the lens, which costs one head product per layer.
    fn default() -> Self {
        Self { residual: true, attention: true, kv_norms: true, lens: false, timings: true }
    }
}

/// How cells of a map are folded into one pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    Max,
    Mean,
    Sum,
}

/// Questions answered between operations, from the kept queries and the caches.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// A tile of lane 0's attention map of one head: queries `rows.0..rows.1`, keys `cols.0..cols.1`,
    /// folded to at most `height` × `width` pixels. Cells above the diagonal count as absent.
    Tile { layer: u32, head: u32, rows: (u32, u32), cols: (u32, u32), height: u32, width: u32, fold: Fold },
    /// Attention of one lane's newest query over its held slots.
    Row { lane: u32, layer: u32, head: u32 },
    /// Column sums so far of one lane's head.
    Column { lane: u32, layer: u32, head: u32 },
    /// Why the token at `position` stays in `lane`'s caches or left them.
    Why { lane: u32, position: u32 },
    /// −ln p of every prompt token (one head product per prompt token).
    PromptNll,
    /// What the device does at best: measured when it is asked for the first time.
    Peaks,
    /// What targets are made of, mean over prompt positions `from..to`, which are read once more.
    Depth { from: u32, to: u32 },
    /// What attention of lane 0's newest query would lose in other arithmetic, layer by layer.
    Drift,
}

/// What became of an entry when its layer was decided about the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Nothing has ever been decided about this layer.
    Undecided,
    Stays,
    Left,
    /// It had left before.
    LeftBefore,
    /// It came after that.
    Later,
}

/// The newest decision of one layer and kv head, as it concerns one entry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Why {
    pub layer: u32,
    pub kv_head: u32,
    /// The entry is in the cache now.
    pub held: bool,
    pub fate: Fate,
    /// When it was decided about.
    pub step: Option<u32>,
    /// NaN where it was not scored.
    pub score: f32,
    /// 1 = the first to stay; 0 where it was not scored.
    pub rank: u32,
    /// Entries that were scored, and how many of them stayed.
    pub of: u32,
    pub kept: u32,
    /// The lowest score that stayed without protection; NaN where there is none.
    pub threshold: f32,
    /// Protected, whatever its score.
    pub forced: bool,
}

/// How far attention of one layer lies from f64 where it is computed otherwise, in the order of
/// [`Arithmetic::ALL`]; NaN where something overflowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerDrift {
    /// ‖o − o_f64‖ / ‖o_f64‖ over all heads.
    pub output: [f32; Arithmetic::ALL.len()],
    /// max |p − p_f64|
    pub probs: [f32; Arithmetic::ALL.len()],
    /// The same of the probabilities as the program computes them for maps.
    pub own_probs: f32,
}

#[derive(Debug, Clone)]
pub enum Answer {
    /// `height` × `width` values row-major; NaN where no cell is visible. `rows`, `cols` as asked, clipped.
    Tile {
        rows: (u32, u32),
        cols: (u32, u32),
        height: u32,
        width: u32,
        values: Arc<[f32]>,
        micros: u32,
    },
    /// (position, value), ascending positions.
    Slots(Arc<[(u32, f32)]>),
    /// Of each layer and kv head, layers outermost.
    Why(Arc<[Why]>),
    /// [P] nats; the first is NaN (nothing precedes it).
    PromptNll(Arc<[f32]>),
    Peaks(Arc<Peaks>),
    Depth(Arc<Depth>),
    /// [layers]
    Drift(Arc<[LayerDrift]>),
    /// Why the question has no answer now.
    Nothing(String),
}

/// What the sources of a model's targets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DepthSources {
    /// The embedding, then what each sublayer wrote.
    Sublayers,
    /// The embedding, then sums of blocks, the last one of a target complete or not.
    Blocks,
    /// The embedding, then snapshots of the stream, then the stream as it is.
    Snapshots,
    /// Differences between snapshots, the first one the embedding.
    Differences,
}

/// How the model carries what its sublayers write from one to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepthInfo {
    /// "plain", or the dialect of Attention Residuals and its blocks.
    pub residual: String,
    pub sources: DepthSources,
    /// A learned null source comes before the others of some target.
    pub null: bool,
    /// The last source of each target is the running stream itself, which is added and has no weight.
    pub over_stream: bool,
    /// First sublayer of each block; empty in a plain model.
    pub edges: Vec<u32>,
}

/// What the screen needs to know about the model before any frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Catalog name, file name or folder.
    pub id: String,
    pub family: String,
    pub sha256: Option<String>,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub hidden: usize,
    pub ff: usize,
    pub vocab: usize,
    pub context: usize,
    /// Sliding window of each layer (`None` = full attention).
    pub windows: Vec<Option<usize>>,
    /// e.g. "Q4_1".
    pub weight_types: String,
    pub parameters: u64,
    pub device: String,
    pub precision: String,
    pub kv_type: String,
    pub threads: usize,
    pub eos: Vec<u32>,
    pub depth: DepthInfo,
}

/// Spells a token id as text, unsanitized: whoever draws it makes control characters visible.
#[derive(Clone)]
pub struct Speller(pub Arc<dyn Fn(u32) -> String + Send + Sync>);

impl std::fmt::Debug for Speller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Speller")
    }
}

#[derive(Debug, Clone)]
pub enum Event {
    /// Work before the first frame: what, how much of how much (bytes, tensors or tokens; total 0 = unknown).
    Progress {
        what: String,
        done: u64,
        total: u64,
    },
    Ready(Arc<ModelInfo>, Speller),
    /// Prompt ids, known before the prompt is read.
    Prompt(Arc<[u32]>),
    Frame(Arc<Frame>),
    /// Steps after `step` were dropped.
    Rewound {
        step: u32,
    },
    /// Lane `lane` came to be: it continues `from` after the newest step.
    Forked {
        lane: u32,
        from: u32,
    },
    State(State),
    Answer {
        id: u64,
        answer: Answer,
    },
    /// One line that the user should read; the run goes on.
    Notice(String),
    /// The run failed; what was recorded stays.
    Failed(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Loading,
    /// Prompt tokens read, of how many.
    Prefill {
        done: u32,
        total: u32,
    },
    Paused {
        why: Option<String>,
    },
    Running,
    Finished,
}
