//! One lane's KV cache on a device: all kv heads of all layers in two pieces of memory, ragged.
//!
//! Positions and offsets are known on this side, too: nothing has to be fetched to know what is held.

use std::sync::{Arc, OnceLock};

use super::device::{Arg, Device, Launch};
use super::memory::Memory;
use super::records::{Slots, kv};
use super::stage::{Stage, Staging};
use crate::backend::Result;
use crate::cache::KvType;

/// What all kv heads of a model have in common.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Query heads of a kv head.
    pub group: usize,
    pub dim: usize,
    pub cells: KvType,
}

impl Kind {
    /// Bytes of one slot's key.
    fn key(self) -> usize {
        self.dim * self.cells.bytes()
    }

    /// Bytes of a kv head's keys, values, positions and offsets.
    fn span(self, capacity: usize) -> usize {
        (capacity * (2 * self.key() + 8)).next_multiple_of(256)
    }
}

/// Sums that were fetched [all heads][group][capacity].
type Fetched = OnceLock<Vec<f32>>;

#[derive(Default)]
struct Head {
    /// Original positions, ascending [n].
    positions: Vec<u32>,
    /// Nats [n]; empty where nothing is added to logits.
    offsets: Vec<f32>,
    capacity: usize,
    /// First byte in `cells`, first number in each half of `sums`.
    cells: usize,
    sums: usize,
}

pub struct DeviceCache {
    device: Arc<dyn Device>,
    kind: Kind,
    heads: Vec<Head>,
    /// Per head: keys [capacity, D], values [capacity, D], positions [capacity], offsets [capacity].
    cells: Option<Memory<u8>>,
    /// Column sums of all heads [group, capacity], then their newest rows.
    sums: Option<Memory<f32>>,
    received: Fetched,
    rows: Fetched,
}

/// Room for `need` slots and some more, so that appending seldom moves anything.
fn room(need: usize) -> usize {
    (need + (need / 4).clamp(64, 4096)).next_multiple_of(16)
}

impl DeviceCache {
    /// `heads` = layers · kv heads.
    pub fn new(device: &Arc<dyn Device>, kind: Kind, heads: usize) -> Self {
        let heads = (0..heads).map(|_| Head::default()).collect();
        let (cells, sums, received, rows) = (None, None, Fetched::new(), Fetched::new());
        Self { device: device.clone(), kind, heads, cells, sums, received, rows }
    }

    /// The same heads, empty, with room for so many slots each.
    fn with_room(&self, capacities: impl Iterator<Item = usize>) -> Result<Self> {
        let mut new = Self::new(&self.device, self.kind, self.heads.len());
        let (mut cells, mut sums) = (0, 0);
        for (head, capacity) in new.heads.iter_mut().zip(capacities) {
            (head.capacity, head.cells, head.sums) = (capacity, cells, sums);
            cells += self.kind.span(capacity);
            sums += self.kind.group * capacity;
        }
        new.cells = Some(Memory::new(&self.device, cells)?);
        new.sums = Some(Memory::new(&self.device, 2 * sums)?);
        Ok(new)
    }

    /// Numbers in each half of `sums`.
    fn half(&self) -> usize {
        self.sums.as_ref().map_or(0, |sums| sums.len() / 2)
    }

    fn slots(&self, head: usize, len: usize) -> Slots {
        let Head { capacity, cells, sums, ref offsets, .. } = self.heads[head];
        let (Some(all), Some(all_sums)) = (&self.cells, &self.sums) else { return bytemuck::Zeroable::zeroed() };
        let (keys, side) = (all.at(cells), (capacity * self.kind.key()) as u64);
        let positions = keys + 2 * side;
        Slots {
            keys,
            values: keys + side,
            positions,
            received: all_sums.at(sums),
            row: all_sums.at(self.half() + sums),
            offsets: if offsets.is_empty() { 0 } else { positions + 4 * capacity as u64 },
            len: len as i32,
            capacity: capacity as i32,
        }
    }

    /// Records of all heads; `more` slots that a pass is about to fill count.
    pub fn records(&self, more: usize) -> Vec<Slots> {
        (0..self.heads.len()).map(|i| self.slots(i, self.heads[i].positions.len() + more)).collect()
    }

    pub fn record(&self, head: usize) -> Slots {
        self.slots(head, self.len(head))
    }

    pub fn len(&self, head: usize) -> usize {
        self.heads[head].positions.len()
    }

    pub fn longest(&self) -> usize {
        self.heads.iter().map(|head| head.positions.len()).max().unwrap_or(0)
    }

    pub fn positions(&self, head: usize) -> &[u32] {
        &self.heads[head].positions
    }

    pub fn offsets(&self, head: usize) -> &[f32] {
        &self.heads[head].offsets
    }

    /// Bytes of the live keys and values of a head.
    pub fn bytes(&self, head: usize) -> u64 {
        (2 * self.len(head) * self.kind.key()) as u64
    }

    /// Makes room for `more` slots beyond those that each head holds.
    pub fn reserve(&mut self, staging: &mut Staging, more: usize) -> Result<()> {
        if self.heads.iter().all(|head| head.positions.len() + more <= head.capacity) {
            return Ok(());
        }
        let need = |head: &Head| match head.positions.len() + more {
            need if need <= head.capacity => head.capacity,
            need => room(need),
        };
        let new = self.with_room(self.heads.iter().map(need))?;
        *self = self.moved(staging, new, &vec![None; self.heads.len()])?;
        Ok(())
    }

    /// Slots that a kernel has filled, or will have when the pass has run.
    pub fn filled(&mut self, head: usize, positions: impl Iterator<Item = u32>) {
        let head = &mut self.heads[head];
        head.positions.extend(positions);
        if !head.offsets.is_empty() {
            head.offsets.resize(head.positions.len(), 0.0);
        }
    }

    /// Sums have changed: those fetched are old.
    pub fn touched(&mut self) {
        (self.received, self.rows) = (Fetched::new(), Fetched::new());
    }

    /// The listed slots (`None`: all) in other memory.
    pub fn gather(&self, staging: &mut Staging, keep: &[Option<&[u32]>]) -> Result<Self> {
        let count = |(head, keep): (&Head, &Option<&[u32]>)| keep.map_or(head.positions.len(), <[u32]>::len);
        let new = self.with_room(self.heads.iter().zip(keep).map(count).map(|n| room(n + 1)))?;
        self.moved(staging, new, keep)
    }

    /// `new` with the listed slots of this one.
    fn moved(&self, staging: &mut Staging, mut new: Self, keep: &[Option<&[u32]>]) -> Result<Self> {
        for ((head, new), keep) in self.heads.iter().zip(&mut new.heads).zip(keep) {
            new.positions = picked(&head.positions, *keep);
            new.offsets = picked(&head.offsets, *keep);
        }
        if self.cells.is_some() {
            let there = new.records(0);
            self.launch_moves("gather", staging, Some(&there), keep)?;
        }
        Ok(new)
    }

    /// Keeps the listed slots (ascending; `None`: all) and gives memory back where much of it becomes free.
    pub fn retain(&mut self, staging: &mut Staging, keep: &[Option<&[u32]>]) -> Result<()> {
        let span = |capacity| self.kind.span(capacity);
        let held: usize = self.heads.iter().map(|head| span(head.capacity)).sum();
        let kept = self.heads.iter().zip(keep).map(|(head, keep)| keep.map_or(head.positions.len(), <[u32]>::len));
        let tight: usize = kept.map(|n| span(room(n + 1))).sum();
        if held > tight + tight / 4 {
            *self = self.gather(staging, keep)?;
            return Ok(());
        }
        self.launch_moves("compact", staging, None, keep)?;
        for (head, keep) in self.heads.iter_mut().zip(keep) {
            head.positions = picked(&head.positions, *keep);
            head.offsets = picked(&head.offsets, *keep);
        }
        self.touched();
        Ok(())
    }

    /// `gather` to `there`, or `compact` in place.
    fn launch_moves(
        &self,
        kernel: &'static str,
        staging: &mut Staging,
        there: Option<&[Slots]>,
        keep: &[Option<&[u32]>],
    ) -> Result<()> {
        // in place, heads that keep everything are left out
        let moved: Vec<usize> = (0..self.heads.len()).filter(|&i| there.is_some() || keep[i].is_some()).collect();
        if moved.is_empty() {
            return Ok(());
        }
        let all = self.records(0);
        let mut stage = Stage::default();
        let of = |records: &[Slots]| moved.iter().map(|&i| records[i]).collect::<Vec<_>>();
        let (from, to) = (stage.put(&of(&all)), there.map(|there| stage.put(&of(there))));
        let lists: Vec<_> = moved.iter().map(|&i| keep[i].map(|keep| stage.put(keep))).collect();
        let lists = stage.put_addresses(&lists);
        let counts: Vec<i32> = moved.iter().map(|&i| keep[i].map_or(self.len(i), <[u32]>::len) as i32).collect();
        let counts = stage.put(&counts);
        let base = staging.send(&self.device, stage)?;
        let mut args = vec![Arg::Pointer(from.on(base))];
        args.extend(to.map(|to| Arg::Pointer(to.on(base))));
        args.extend([Arg::Pointer(lists.on(base)), Arg::Pointer(counts.on(base))]);
        args.extend([self.kind.group as i32, self.kind.dim as i32, kv(self.kind.cells)].map(Arg::Int));
        let grid = [(3 + 2 * self.kind.group) as u32, moved.len() as u32, 1];
        self.device.launch(Launch { kernel, grid, block: [256, 1, 1], shared: 0, args: &args })
    }

    /// Drops all slots of each head from `lens` on.
    pub fn truncate(&mut self, head: usize, len: usize) {
        self.heads[head].positions.truncate(len);
        self.heads[head].offsets.truncate(len);
        self.touched();
    }

    fn fetch(&self, rows: bool) -> Result<&[f32]> {
        let place = if rows { &self.rows } else { &self.received };
        if place.get().is_none() {
            let first = if rows { self.half() } else { 0 };
            let all = self.sums.as_ref().map_or(Ok(Vec::new()), |sums| sums.read(first, self.half()))?;
            let _ = place.set(all);
        }
        Ok(place.get().map_or(&[], Vec::as_slice))
    }

    /// Column sums (`rows`: the newest row) of query head `member` of a kv head [n].
    pub fn sums(&self, head: usize, member: usize, rows: bool) -> Result<&[f32]> {
        let Head { capacity, sums, .. } = self.heads[head];
        let from = sums + member * capacity;
        Ok(self.fetch(rows)?.get(from..from + self.len(head)).unwrap_or_default())
    }

    /// New column sums and newest rows of a head [group][n].
    pub fn put_sums(&mut self, head: usize, received: &[Vec<f32>], rows: &[Vec<f32>]) -> Result<()> {
        let half = self.half();
        let Head { capacity, sums, .. } = self.heads[head];
        let Some(all) = &self.sums else { return Ok(()) };
        for (first, values) in [(sums, received), (half + sums, rows)] {
            for (member, values) in values.iter().enumerate() {
                all.write(first + member * capacity, values)?;
            }
        }
        self.touched();
        Ok(())
    }

    /// Bytes of the keys (`values`: of the values) that a head holds [n, D].
    fn cells(&self, head: usize, values: bool) -> Result<Vec<u8>> {
        let Some(all) = &self.cells else { return Ok(Vec::new()) };
        let Head { capacity, cells, .. } = self.heads[head];
        let side = self.kind.key();
        all.read(cells + if values { capacity * side } else { 0 }, self.len(head) * side)
    }

    /// Keys after rope, or values [n, D].
    pub fn numbers(&self, head: usize, values: bool) -> Result<Vec<f32>> {
        Ok(self.kind.cells.widen(&self.cells(head, values)?))
    }

    /// New keys or values of the first slots of a head, rounded to the cache's type.
    pub fn put_numbers(&mut self, head: usize, values: bool, numbers: &[f32]) -> Result<()> {
        let Some(all) = &self.cells else { return Ok(()) };
        let Head { capacity, cells, .. } = self.heads[head];
        let first = cells + if values { capacity * self.kind.key() } else { 0 };
        all.write(first, &self.kind.cells.narrow(numbers))
    }

    /// What is added to the logits of a head's slots [n].
    pub fn put_offsets(&mut self, head: usize, offsets: &[f32]) -> Result<()> {
        self.heads[head].offsets = offsets.to_vec();
        let Some(all) = &self.cells else { return Ok(()) };
        let Head { capacity, cells, .. } = self.heads[head];
        all.write(cells + capacity * (2 * self.kind.key() + 4), bytemuck::cast_slice(offsets))
    }

    /// Fills an empty head: positions with their keys and values [n, D], and what is added to logits (or nothing).
    pub fn fill(&mut self, head: usize, positions: &[u32], of: [&[f32]; 2], offsets: &[f32]) -> Result<()> {
        self.heads[head].positions = positions.to_vec();
        self.put_numbers(head, false, of[0])?;
        self.put_numbers(head, true, of[1])?;
        let Head { capacity, cells, .. } = self.heads[head];
        if let Some(all) = &self.cells {
            all.write(cells + 2 * capacity * self.kind.key(), bytemuck::cast_slice(positions))?;
        }
        if offsets.is_empty() { Ok(()) } else { self.put_offsets(head, offsets) }
    }

    /// An empty cache with room for so many slots in each head.
    pub fn empty_with(device: &Arc<dyn Device>, kind: Kind, slots: &[usize]) -> Result<Self> {
        Self::new(device, kind, slots.len()).with_room(slots.iter().map(|&n| room(n + 1)))
    }
}

fn picked<T: Copy>(all: &[T], keep: Option<&[u32]>) -> Vec<T> {
    match keep {
        _ if all.is_empty() => Vec::new(),
        None => all.to_vec(),
        Some(keep) => keep.iter().map(|&slot| all[slot as usize]).collect(),
    }
}
