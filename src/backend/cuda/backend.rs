//! The backend on a device: what it holds, and how a pass begins and is carried out.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use super::cache::{DeviceCache, Kind};
use super::depth::SourcesAt;
use super::device::{Arg, Device};
use super::memory::Memory;
use super::on_host::OnHost;
use super::program::Program;
use super::queries::DeviceQueries;
use super::records::{NORMS, REDUCTIONS, Run, STATS, Slots};
use super::stage::{Stage, Staging};
use super::weights::{Change, Linear, Table};
use crate::backend::mixing::Source;
use crate::backend::{BackendError, Buf, CacheId, Result, Row, Shape};
use crate::engine::message::Probes;

/// Up to this many rows, all rows' residual points are copied, else the last row's: as on the CPU.
const SAVED_ROWS: usize = 16;
/// Most parts in which a row's slots are walked: SPLITS in kernels/decode_attention.cu; and slots of the least part.
const SPLITS: usize = 64;
const STRIP: usize = 128;

/// Where a lane's cache is.
pub enum Place {
    Device(DeviceCache),
    /// Its attention has no kernel: it lies with the CPU, which attends.
    Host(CacheId),
    Freed,
}

/// Memory that grows when more is asked for.
#[derive(Default)]
pub struct Room(Option<Memory<f32>>);

impl Room {
    pub fn reserve(&mut self, device: &Arc<dyn Device>, len: usize) -> Result<()> {
        if self.0.as_ref().is_none_or(|memory| memory.len() < len) {
            self.0 = None;
            self.0 = Some(Memory::new(device, len.max(1))?);
        }
        Ok(())
    }

    pub fn at(&self, i: usize) -> u64 {
        self.0.as_ref().map_or(0, |memory| memory.at(i))
    }

    pub fn arg(&self, i: usize) -> Arg {
        Arg::Pointer(self.at(i))
    }

    pub fn read(&self, first: usize, count: usize) -> Result<Vec<f32>> {
        self.0.as_ref().map_or_else(|| Ok(Vec::new()), |memory| memory.read(first, count))
    }

    pub fn write(&self, first: usize, values: &[f32]) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |memory| memory.write(first, values))
    }

    pub fn bytes(&self) -> u64 {
        self.0.as_ref().map_or(0, |memory| memory.len() as u64 * 4)
    }
}

/// An activation matrix [rows, width].
pub struct Matrix {
    pub width: usize,
    pub memory: Room,
}

/// What the kernels of a pass are told about its rows: addresses.
#[derive(Debug, Clone, Copy, Default)]
pub struct Header {
    pub tokens: u64,
    pub positions: u64,
    pub turned: u64,
    pub runs: u64,
    /// [runs][L · G]
    pub slots: u64,
    /// Of the kept queries and of their log-sum-exps [runs][L].
    pub kept: [u64; 2],
}

/// The rows of a pass.
#[derive(Default)]
pub struct Rows {
    pub all: Vec<Row>,
    /// Of caches on the device.
    pub runs: Vec<Run>,
    /// [run]
    pub caches: Vec<CacheId>,
    pub at: Header,
    /// [sources that mixes name]
    pub sources: Vec<SourcesAt>,
    /// Most rows of a run, most slots that a head of a run has, the pass counted.
    pub longest: usize,
    pub most_slots: usize,
    pub probes: Probes,
}

impl Rows {
    pub fn count(&self) -> usize {
        self.all.len()
    }

    pub fn alone(&self) -> bool {
        self.runs.iter().any(|run| run.count == 1)
    }

    pub fn together(&self) -> bool {
        self.runs.iter().any(|run| run.count > 1)
    }

    /// Parts in which the slots of rows that come alone are walked. Powers of two: the same for many steps.
    pub fn splits(&self) -> usize {
        self.most_slots.div_ceil(STRIP).next_power_of_two().min(SPLITS)
    }
}

/// What passes leave behind beside activations.
#[derive(Default)]
pub struct Grids {
    /// [points][rows][5]
    pub residual: Room,
    /// [points][saved rows][hidden]
    pub points: Room,
    /// [L][H][rows][6]
    pub attention: Room,
    /// [L][G][rows][4]
    pub norms: Room,
    /// [rows asked for][V]
    pub logits: Room,
    /// Depth weights [targets][sources][rows]
    pub depth: Room,
    pub drawn: super::sample::DrawnRooms,
}

/// Between kernels of one attention.
#[derive(Default)]
pub struct Between {
    /// [runs][H][splits][6], [runs][H][splits][D]
    pub stats: Room,
    pub partial: Room,
    /// [H][rows]
    pub lse: Room,
    /// Of a change of a weight [rows][rank].
    pub low_rank: Room,
    /// Activations as sums of bf16 [3][rows, width], 16 bits each.
    pub terms: Room,
}

pub struct CudaBackend {
    pub(super) device: Arc<dyn Device>,
    pub(super) shape: Shape,
    pub(super) exact: bool,
    pub(super) interrupt: Arc<AtomicBool>,
    pub(super) table: Option<Table>,
    pub(super) matrices: Vec<Linear>,
    pub(super) vectors: Vec<Memory<f32>>,
    /// What mixes of depth name.
    pub(super) sources: Vec<Vec<Source>>,
    pub(super) changes: Vec<Change>,
    /// Frequencies of each rope [D / 2].
    pub(super) ropes: Vec<Memory<f32>>,
    pub(super) buffers: Vec<Matrix>,
    /// Gate and up before the activation; by width.
    pub(super) gate_up: BTreeMap<usize, Buf>,
    pub(super) caches: Vec<Place>,
    pub(super) queries: DeviceQueries,
    pub(super) shelf: Option<DeviceQueries>,
    pub(super) host: OnHost,
    pub(super) staging: Staging,
    /// For moves of caches: the pass keeps the other one.
    pub(super) moves: Staging,
    pub(super) rows: Rows,
    pub(super) grids: Grids,
    pub(super) between: Between,
    pub(super) program: Program,
    /// A residual point whose statistics the next norm may take along.
    pub(super) pending: Option<(Buf, usize)>,
    pub(super) points_seen: usize,
    pub(super) stream_seen: usize,
    pub(super) logit_rows: usize,
    pub(super) save_all_points: bool,
    /// What the last pass left, fetched when first asked for.
    pub(super) fetched: super::fetched::Fetched,
    /// The first thing that went wrong where no error could be given.
    pub(super) failure: Mutex<Option<BackendError>>,
}

impl CudaBackend {
    /// `exact`: weights as f32, the reference; else weights as stored. `threads`: for attention without a kernel.
    pub fn new(device: Arc<dyn Device>, shape: Shape, exact: bool, threads: usize) -> Result<Self> {
        let (h, g, d) = (shape.heads, shape.kv_heads, shape.head_dim);
        if g == 0 || h % g != 0 || d % 8 != 0 || d > 256 {
            let why =
                format!("{h} heads of {d} channels over {g} kv heads: heads of 8 to 256 channels, in eights, are");
            return Err(BackendError::Failed { what: "this model's attention is not built for cards".into(), why });
        }
        if shape.streams > 0 {
            let why = "there are no kernels for residual streams: --device cpu runs it".into();
            return Err(BackendError::Failed { what: "hyper-connections are not built for cards".into(), why });
        }
        let ropes = shape.ropes.iter().map(|rope| Memory::of(&device, rope)).collect::<Result<_>>()?;
        let queries = DeviceQueries::new(&device, [shape.layers, h, d], shape.queries_budget, 0);
        Ok(Self {
            host: OnHost::new(&shape, exact, threads),
            device,
            exact,
            interrupt: Arc::default(),
            table: None,
            matrices: Vec::new(),
            vectors: Vec::new(),
            sources: Vec::new(),
            changes: Vec::new(),
            ropes,
            buffers: Vec::new(),
            gate_up: BTreeMap::new(),
            caches: Vec::new(),
            queries,
            shelf: None,
            staging: Staging::default(),
            moves: Staging::default(),
            rows: Rows::default(),
            grids: Grids::default(),
            between: Between::default(),
            program: Program::new(),
            pending: None,
            points_seen: 0,
            stream_seen: 0,
            logit_rows: 0,
            save_all_points: false,
            fetched: Default::default(),
            failure: Mutex::new(None),
            shape,
        })
    }

    pub(super) fn kind(&self) -> Kind {
        Kind { group: self.shape.heads / self.shape.kv_heads, dim: self.shape.head_dim, cells: self.shape.kv }
    }

    pub(super) fn head_index(&self, layer: usize, kv_head: usize) -> usize {
        layer * self.shape.kv_heads + kv_head
    }

    /// Of an operation whose signature has no error: it is told by the next one that has.
    pub(super) fn note<T>(&self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(error);
            })
            .ok()
    }

    /// See [`crate::backend::Inspect::check`].
    pub(super) fn told(&self) -> Result<()> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }

    /// How many of the last rows have their residual points copied.
    pub(super) fn saved_rows(&self) -> usize {
        if self.save_all_points || self.rows.count() <= SAVED_ROWS { self.rows.count() } else { 1 }
    }

    /// The buffers' memory for the rows of the pass.
    pub(super) fn reserve_activations(&mut self) -> Result<()> {
        let rows = self.rows.count();
        for buffer in &mut self.buffers {
            buffer.memory.reserve(&self.device, rows * buffer.width)?;
        }
        let Shape { layers, heads, kv_heads, hidden, .. } = self.shape;
        let points = self.shape.all_points();
        let saved = self.saved_rows();
        self.grids.residual.reserve(&self.device, points * rows * STATS)?;
        self.grids.points.reserve(&self.device, points * saved * hidden)?;
        self.reserve_depth()?;
        self.grids.attention.reserve(&self.device, layers * heads * rows * REDUCTIONS)?;
        self.grids.norms.reserve(&self.device, layers * kv_heads * rows * NORMS)
    }

    /// Runs of rows of one cache; `keep` keeps its queries. Caches get their room.
    pub(super) fn begin_rows(&mut self, rows: &[Row], probes: Probes, keep: Option<CacheId>) -> Result<()> {
        let mut runs: Vec<(CacheId, usize, usize)> = Vec::new();
        for (r, row) in rows.iter().enumerate() {
            match runs.last_mut() {
                Some((cache, _, count)) if *cache == row.cache => *count += 1,
                _ => runs.push((row.cache, r, 1)),
            }
        }
        self.rows = Rows { all: rows.to_vec(), probes, ..Rows::default() };
        for (cache, first, count) in runs {
            let queries = i32::from(keep == Some(cache));
            let Place::Device(held) = &mut self.caches[cache.0] else { continue };
            held.reserve(&mut self.moves, count)?;
            self.rows.most_slots = self.rows.most_slots.max(held.longest() + count);
            self.rows.longest = self.rows.longest.max(count);
            let place = self.rows.runs.len() as i32;
            self.rows.runs.push(Run { first: first as i32, count: count as i32, cache: place, queries });
            self.rows.caches.push(cache);
        }
        if self.rows.runs.iter().any(|run| run.queries == 1) {
            let kept: Vec<u32> = rows.iter().filter(|r| Some(r.cache) == keep).map(|r| r.position).collect();
            if kept.first().is_some_and(|&p| p != self.queries.range().end) {
                let why = "positions must follow each other".into();
                return Err(BackendError::Failed { what: "kept queries".into(), why });
            }
            self.queries.reserve(kept.len())?;
        }
        self.reserve_activations()?;
        self.reserve_between()?;
        self.send_header(rows)
    }

    fn reserve_between(&mut self) -> Result<()> {
        let Shape { heads, head_dim, .. } = self.shape;
        if self.rows.alone() {
            let parts = self.rows.runs.len() * heads * self.rows.splits();
            self.between.stats.reserve(&self.device, parts * REDUCTIONS)?;
            self.between.partial.reserve(&self.device, parts * head_dim)?;
        }
        match self.rows.together() {
            true => self.between.lse.reserve(&self.device, heads * self.rows.count()),
            false => Ok(()),
        }
    }

    fn send_header(&mut self, rows: &[Row]) -> Result<()> {
        let mut stage = Stage::default();
        let mut put = |of: fn(&Row) -> u32| stage.put(&rows.iter().map(of).collect::<Vec<u32>>());
        let (tokens, positions, turned) = (put(|r| r.token), put(|r| r.position), put(|r| r.turned));
        let runs = stage.put(&self.rows.runs);
        let mut slots: Vec<Slots> = Vec::new();
        for (run, cache) in self.rows.runs.iter().zip(&self.rows.caches) {
            let Place::Device(held) = &self.caches[cache.0] else { continue };
            slots.extend(held.records(run.count as usize));
        }
        let slots = stage.put(&slots);
        let layers = self.shape.layers;
        let kept = [0, 1].map(|side| {
            let of = |run: &Run, layer| if run.queries == 1 { self.queries.addresses(layer)[side] } else { 0 };
            let all: Vec<u64> = self.rows.runs.iter().flat_map(|run| (0..layers).map(|l| of(run, l))).collect();
            stage.put(&all)
        });
        let sources = self.stage_sources(&mut stage);
        let base = self.staging.send(&self.device, stage)?;
        self.rows.sources = sources.iter().map(|staged| staged.on(base)).collect();
        self.rows.at = Header {
            tokens: tokens.on(base),
            positions: positions.on(base),
            turned: turned.on(base),
            runs: runs.on(base),
            slots: slots.on(base),
            kept: kept.map(|place| place.on(base)),
        };
        Ok(())
    }
}

impl Drop for CudaBackend {
    fn drop(&mut self) {
        self.program.forget(&self.device);
    }
}
