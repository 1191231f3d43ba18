//! What a pass consists of on a device: launches by the operation that they belong to. What was the same before is
//! gathered into a graph and carried out in one call from then on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::device::{Arg, Device, Graph, Launch, Mark};
use crate::backend::{BackendError, Result};
use crate::engine::frame::OpTime;

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    kernel: &'static str,
    grid: [u32; 3],
    block: u32,
    shared: u32,
    args: Vec<Arg>,
}

/// An operation: where its launches end, and what it has to touch and compute at least.
#[derive(Debug, Clone)]
struct Op {
    name: &'static str,
    end: usize,
    bytes: u64,
    flops: u64,
}

#[derive(Default)]
struct Record {
    ns: Vec<u32>,
    bytes: u64,
    flops: u64,
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

#[derive(Default)]
pub struct Program {
    launches: Vec<Kept>,
    ops: Vec<Op>,
    /// What was carried out lately, the newest first.
    known: VecDeque<Known>,
    times: BTreeMap<&'static str, Record>,
    /// The last run was one graph.
    pub whole: bool,
}

impl Program {
    /// A new pass.
    pub fn clear(&mut self) {
        self.launches.clear();
        self.ops.clear();
        self.times.clear();
        self.whole = false;
    }

    /// Launches that follow belong to this operation.
    pub fn op(&mut self, name: &'static str, bytes: u64, flops: u64) {
        self.ops.push(Op { name, end: self.launches.len(), bytes, flops });
    }

    pub fn launch(&mut self, kernel: &'static str, grid: [usize; 3], block: u32, shared: usize, args: Vec<Arg>) {
        if grid.contains(&0) {
            return;
        }
        self.launches.push(Kept { kernel, grid: grid.map(|n| n as u32), block, shared: shared as u32, args });
        if let Some(op) = self.ops.last_mut() {
            op.end = self.launches.len();
        }
    }

    /// Time of what was not launched.
    pub fn spent(&mut self, name: &'static str, time: Duration) {
        self.times.entry(name).or_default().ns.push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
    }

    /// The newest launch, where it is of that kernel.
    pub fn newest(&mut self, kernel: &str) -> Option<&mut Vec<Arg>> {
        self.launches.last_mut().filter(|launch| launch.kernel == kernel).map(|launch| &mut launch.args)
    }

    /// Carries out what was recorded. `timed`: every operation between two marks. `single` wants launches that can be
    /// stopped between two of them; else what was carried out before, timed or not, is one graph.
    pub fn run(&mut self, device: &Arc<dyn Device>, timed: bool, single: bool, interrupt: &AtomicBool) -> Result<()> {
        let (launches, ops) = (std::mem::take(&mut self.launches), std::mem::take(&mut self.ops));
        if interrupt.swap(false, Ordering::Relaxed) {
            return Err(BackendError::Interrupted);
        }
        self.whole = false;
        let ends: Vec<usize> = ops.iter().map(|op| op.end).collect();
        let alone = |launches: &[Kept]| -> Result<Vec<Mark>> {
            device.clear_marks();
            let marks = walk(device, launches, timed.then_some(&ends), interrupt)?;
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
            let marks = walk(device, &launches, timed.then_some(&ends), &AtomicBool::new(false));
            let graph = device.end_graph();
            self.known[place].graph = Some((graph?, marks?));
        }
        let Some((graph, marks)) = self.known[place].graph.clone() else { return Ok(()) };
        device.run_graph(graph)?;
        device.finish()?;
        self.whole = true;
        self.note_times(device, &ops, &marks)
    }

    /// Time of each operation, between two marks that follow each other.
    fn note_times(&mut self, device: &Arc<dyn Device>, ops: &[Op], marks: &[Mark]) -> Result<()> {
        for (op, ends) in ops.iter().zip(marks.windows(2)) {
            let ns = u32::try_from(device.between(ends[0], ends[1])?).unwrap_or(u32::MAX);
            let record = self.times.entry(op.name).or_default();
            record.ns.push(ns);
            record.bytes += op.bytes;
            record.flops += op.flops;
        }
        Ok(())
    }

    /// No graph is kept.
    pub fn forget(&mut self, device: &Arc<dyn Device>) {
        self.known.drain(..).for_each(|known| known.give_back(device));
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
        };
        let mut times: Vec<OpTime> = self.times.iter().map(one).collect();
        times.sort_by_key(|time| std::cmp::Reverse(time.total_ns));
        times
    }
}

/// Launches, with a mark before them and behind each of `ends` where there are some.
fn walk(
    device: &Arc<dyn Device>,
    launches: &[Kept],
    ends: Option<&Vec<usize>>,
    interrupt: &AtomicBool,
) -> Result<Vec<Mark>> {
    let mut marks = Vec::new();
    let mut ends = ends.map(|ends| ends.iter().peekable());
    if ends.is_some() {
        marks.push(device.mark()?);
    }
    let mut mark = |at: usize| -> Result<()> {
        while ends.as_mut().is_some_and(|ends| ends.next_if(|&&end| end == at).is_some()) {
            marks.push(device.mark()?);
        }
        Ok(())
    };
    mark(0)?;
    for (i, Kept { kernel, grid, block, shared, args }) in launches.iter().enumerate() {
        if interrupt.swap(false, Ordering::Relaxed) {
            // what was launched goes on; nobody may use what it writes before it is done
            device.finish()?;
            return Err(BackendError::Interrupted);
        }
        let block = [*block, 1, 1];
        device.launch(Launch { kernel, grid: *grid, block, shared: *shared, args })?;
        mark(i + 1)?;
    }
    Ok(marks)
}
