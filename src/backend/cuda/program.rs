//! What a pass consists of on a device: launches by the operation that they belong to. What was the same before is
//! gathered into a graph and carried out in one call from then on.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::device::{Arg, Device, Gemm, Graph, Launch, Mark};
use crate::backend::{BackendError, Result};
use crate::engine::frame::{OpSpan, OpTime};
use crate::meter::nvtx::Nvtx;

/// Something to carry out.
#[derive(Debug, Clone, PartialEq)]
enum Kept {
    Launch {
        kernel: &'static str,
        grid: [u32; 3],
        block: u32,
        shared: u32,
        args: Vec<Arg>,
    },
    /// By the device's library, which is there.
    Product(Gemm),
}

/// An operation: where its launches end, and what it has to touch and compute at least.
#[derive(Debug, Clone)]
struct Op {
    name: &'static str,
    layer: Option<u32>,
    /// A product with weights.
    product: bool,
    end: usize,
    bytes: u64,
    flops: u64,
}

#[derive(Default)]
struct Record {
    ns: Vec<u32>,
    bytes: u64,
    flops: u64,
    product: bool,
}

/// What was carried out, and its graph with the marks in it where that was more than once.
struct Known {
    launches: Vec<Kept>,
    timed: bool,
    graph: Option<(Graph, Vec<Mark>)>,
}

impl Known {
    fn give_back(&self, device: &Arc<dyn Device>) {
        self.graph.iter().for_each(|(graph, _)| device.drop_graph(*graph));
    }
}

/// Programs that are known again: steps, and what runs between them.
const KNOWN: usize = 4;

pub struct Program {
    launches: Vec<Kept>,
    ops: Vec<Op>,
    /// What was carried out lately, the newest first.
    known: VecDeque<Known>,
    times: BTreeMap<&'static str, Record>,
    /// The same calls in their order, and their time together, ns.
    spans: Vec<OpSpan>,
    spent_ns: u64,
    /// To which what is recorded belongs.
    pub layer: Option<u32>,
    /// Where a tool of NVIDIA's may be listening.
    nvtx: Option<Nvtx>,
    /// Runs since `clear`; the last one was a graph.
    runs: u32,
    graphed: bool,
}

impl Program {
    pub fn new() -> Self {
        Self {
            launches: Vec::new(),
            ops: Vec::new(),
            known: VecDeque::new(),
            times: BTreeMap::new(),
            spans: Vec::new(),
            spent_ns: 0,
            layer: None,
            nvtx: Nvtx::open(),
            runs: 0,
            graphed: false,
        }
    }

    /// A new pass.
    pub fn clear(&mut self) {
        self.launches.clear();
        self.ops.clear();
        self.times.clear();
        self.spans.clear();
        (self.spent_ns, self.layer, self.runs, self.graphed) = (0, None, 0, false);
    }

    /// Launches that follow belong to this operation.
    pub fn op(&mut self, name: &'static str, bytes: u64, flops: u64) {
        let (layer, end) = (self.layer, self.launches.len());
        self.ops.push(Op { name, layer, product: false, end, bytes, flops });
    }

    /// The same of a product with weights.
    pub fn product(&mut self, name: &'static str, bytes: u64, flops: u64) {
        self.op(name, bytes, flops);
        self.ops.iter_mut().last().iter_mut().for_each(|op| op.product = true);
    }

    pub fn launch(&mut self, kernel: &'static str, grid: [usize; 3], block: u32, shared: usize, args: Vec<Arg>) {
        if grid.contains(&0) {
            return;
        }
        self.keep(Kept::Launch { kernel, grid: grid.map(|n| n as u32), block, shared: shared as u32, args });
    }

    /// A product by the device's library, which has to be there; not where the pass may become a graph.
    pub fn multiply(&mut self, gemm: Gemm) {
        self.keep(Kept::Product(gemm));
    }

    fn keep(&mut self, kept: Kept) {
        self.launches.push(kept);
        if let Some(op) = self.ops.last_mut() {
            op.end = self.launches.len();
        }
    }

    /// Time of what was not launched.
    pub fn spent(&mut self, name: &'static str, time: Duration) {
        let (layer, ns) = (self.layer, u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
        self.note_time(&Op { name, layer, product: false, end: 0, bytes: 0, flops: 0 }, ns);
    }

    fn note_time(&mut self, op: &Op, ns: u32) {
        let record = self.times.entry(op.name).or_default();
        record.ns.push(ns);
        record.bytes += op.bytes;
        record.flops += op.flops;
        record.product = op.product;
        self.spans.push(OpSpan { name: op.name, layer: op.layer, start_ns: self.spent_ns, ns, bytes: op.bytes });
        self.spent_ns += u64::from(ns);
    }

    /// The newest launch, where it is of that kernel.
    pub fn newest(&mut self, wanted: &str) -> Option<&mut Vec<Arg>> {
        match self.launches.last_mut() {
            Some(Kept::Launch { kernel, args, .. }) if *kernel == wanted => Some(args),
            _ => None,
        }
    }

    /// Carries out what was recorded. `timed`: every operation between two marks. `single` wants launches that can be
    /// stopped between two of them; else what was carried out before, timed or not, is one graph.
    pub fn run(&mut self, device: &Arc<dyn Device>, timed: bool, single: bool, interrupt: &AtomicBool) -> Result<()> {
        let (launches, ops) = (std::mem::take(&mut self.launches), std::mem::take(&mut self.ops));
        if interrupt.swap(false, Ordering::Relaxed) {
            return Err(BackendError::Interrupted);
        }
        self.runs += 1;
        self.graphed = false;
        let nvtx = self.nvtx;
        let alone = |launches: &[Kept]| -> Result<Vec<Mark>> {
            device.clear_marks();
            let marks = walk(device, launches, &ops, timed, nvtx, interrupt)?;
            device.finish()?;
            Ok(marks)
        };
        if single || launches.is_empty() {
            let marks = alone(&launches)?;
            return self.note_times(device, &ops, &marks);
        }
        let Some(place) = self.known.iter().position(|known| known.timed == timed && known.launches == launches) else {
            let marks = alone(&launches)?;
            self.known.push_front(Known { launches, timed, graph: None });
            if self.known.len() > KNOWN {
                self.known.pop_back().iter().for_each(|known| known.give_back(device));
            }
            return self.note_times(device, &ops, &marks);
        };
        if self.known[place].graph.is_none() {
            device.begin_graph()?;
            let marks = walk(device, &launches, &ops, timed, None, &AtomicBool::new(false));
            let graph = device.end_graph();
            self.known[place].graph = Some((graph?, marks?));
        }
        let Some((graph, marks)) = self.known[place].graph.clone() else { return Ok(()) };
        device.run_graph(graph)?;
        device.finish()?;
        self.graphed = true;
        self.note_times(device, &ops, &marks)
    }

    /// Time of each operation, between two marks that follow each other.
    fn note_times(&mut self, device: &Arc<dyn Device>, ops: &[Op], marks: &[Mark]) -> Result<()> {
        for (op, ends) in ops.iter().zip(marks.windows(2)) {
            let ns = u32::try_from(device.between(ends[0], ends[1])?).unwrap_or(u32::MAX);
            self.note_time(op, ns);
        }
        Ok(())
    }

    /// The whole pass was one graph.
    pub fn whole(&self) -> bool {
        self.graphed && self.runs == 1
    }

    /// No graph is kept.
    pub fn forget(&mut self, device: &Arc<dyn Device>) {
        self.known.drain(..).for_each(|known| known.give_back(device));
    }

    /// The calls of the operations since `clear`, in their order.
    pub fn spans(&self) -> Vec<OpSpan> {
        self.spans.clone()
    }

    /// Of the operations since `clear`, the longest first.
    pub fn times(&self) -> Vec<OpTime> {
        let one = |(name, record): (&&'static str, &Record)| OpTime {
            name: Arc::from(*name),
            calls: record.ns.len() as u32,
            total_ns: record.ns.iter().map(|&ns| u64::from(ns)).sum(),
            ns: record.ns.clone(),
            bytes: record.bytes,
            flops: record.flops,
            product: record.product,
        };
        let mut times: Vec<OpTime> = self.times.iter().map(one).collect();
        times.sort_by_key(|time| std::cmp::Reverse(time.total_ns));
        times
    }
}

/// Launches, operation by operation; `timed`: with a mark before them and behind each operation.
fn walk(
    device: &Arc<dyn Device>,
    launches: &[Kept],
    ops: &[Op],
    timed: bool,
    nvtx: Option<Nvtx>,
    interrupt: &AtomicBool,
) -> Result<Vec<Mark>> {
    let (mut marks, mut from) = (Vec::new(), 0);
    let mut mark = || if timed { device.mark().map(|mark| marks.push(mark)) } else { Ok(()) };
    mark()?;
    for op in ops {
        nvtx.iter().for_each(|nvtx| nvtx.push(&range(op)));
        let done = each(device, &launches[from..op.end], interrupt);
        nvtx.iter().for_each(Nvtx::pop);
        done?;
        mark()?;
        from = op.end;
    }
    Ok(marks)
}

/// "layer 3 → norm"
fn range(op: &Op) -> CString {
    let name = op.layer.map_or(op.name.into(), |layer| format!("layer {layer} → {}", op.name));
    CString::new(name).unwrap_or_default()
}

fn each(device: &Arc<dyn Device>, launches: &[Kept], interrupt: &AtomicBool) -> Result<()> {
    for kept in launches {
        if interrupt.swap(false, Ordering::Relaxed) {
            // what was launched goes on; nobody may use what it writes before it is done
            device.finish()?;
            return Err(BackendError::Interrupted);
        }
        match kept {
            Kept::Launch { kernel, grid, block, shared, args } => {
                let block = [*block, 1, 1];
                device.launch(Launch { kernel, grid: *grid, block, shared: *shared, args })?;
            }
            Kept::Product(gemm) => _ = device.product(*gemm)?,
        }
    }
    Ok(())
}
