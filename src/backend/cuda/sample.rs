//! Drawing tokens without logits in memory: kernels/sampling.cu.

use std::ops::Range;

use super::backend::{CudaBackend, Room};
use super::device::Arg;
use super::stage::{Stage, Staging};
use crate::backend::draw::{CANDIDATES, Draw, Drawn, KernelRow};
use crate::backend::{Buf, Matrix, Result};

/// Tokens of a tile.
const TILE: usize = 256;
/// Columns of what the kernels leave of each row.
const IDS: usize = 2 + CANDIDATES;
const NUMBERS: usize = 6 + CANDIDATES;
const CHOSEN: usize = 4;
const SCORES: usize = 3 + CANDIDATES;

/// What the kernels take and leave; the numbers of all rooms are 32 bits wide, whatever they mean.
#[derive(Default)]
pub struct DrawnRooms {
    /// Temperatures [rows], words [rows, 5], top-k [rows], top-p and min-p [rows, 2].
    told: Staging,
    draws: Vec<Draw>,
    /// [rows, tiles, 2 + k] of 64 bits, [rows, tiles, 3]
    keys: Room,
    sums: Room,
    ids: Room,
    numbers: Room,
    chosen: Room,
    scores: Room,
}

impl DrawnRooms {
    /// A pass that draws nothing so far.
    pub fn clear(&mut self) {
        self.draws.clear();
    }
}

fn int(x: usize) -> Arg {
    Arg::Int(x as i32)
}

impl CudaBackend {
    pub(super) fn record_draw(
        &mut self,
        w: Matrix,
        x: Buf,
        rows: Range<usize>,
        softcap: Option<f32>,
        draws: &[Draw],
    ) -> Result<()> {
        let (count, vocab) = (rows.len(), self.shape.vocab);
        let tiles = vocab.div_ceil(TILE);
        let rooms = &mut self.grids.drawn;
        for (room, len) in [
            (&mut rooms.keys, tiles * IDS * 2),
            (&mut rooms.sums, tiles * 3),
            (&mut rooms.ids, IDS),
            (&mut rooms.numbers, NUMBERS),
            (&mut rooms.chosen, CHOSEN),
            (&mut rooms.scores, SCORES),
        ] {
            room.reserve(&self.device, count * len)?;
        }
        let mut stage = Stage::default();
        let temperatures = stage.put(&draws.iter().map(|draw| draw.temperature).collect::<Vec<_>>());
        let words = stage.put(&draws.iter().flat_map(Draw::words).collect::<Vec<u32>>());
        let top_k = stage.put(&draws.iter().map(|draw| draw.top_k).collect::<Vec<_>>());
        let limits = stage.put(&draws.iter().flat_map(|draw| [draw.top_p, draw.min_p]).collect::<Vec<_>>());
        let base = rooms.told.send(&self.device, stage)?;
        rooms.draws = draws.to_vec();
        let (bytes, flops) = self.product_cost(w, count);
        self.program.product("head·draw", bytes - (count * vocab * 4) as u64, flops);
        for first in (0..count).step_by(16) {
            let some = (count - first).min(16);
            self.record_tiles(
                w,
                x,
                rows.start + first,
                first,
                some,
                softcap,
                [temperatures.on(base) + 4 * first as u64, words.on(base) + 20 * first as u64],
            );
        }
        let rooms = &self.grids.drawn;
        let mut merge = vec![int(tiles), int(CANDIDATES)];
        merge.extend([&rooms.keys, &rooms.sums, &rooms.ids, &rooms.numbers].map(|room| room.arg(0)));
        let mut survive = vec![int(CANDIDATES), rooms.ids.arg(0), rooms.numbers.arg(0)];
        survive.extend([temperatures, words, top_k, limits].map(|place| Arg::Pointer(place.on(base))));
        survive.extend([rooms.chosen.arg(0), rooms.scores.arg(0)]);
        self.program.launch("sample_merge", [count, 1, 1], 256, tiles, merge);
        if draws.iter().any(Draw::filters) {
            self.program.launch("sample_survivors", [count, 1, 1], 32, 0, survive);
        }
        Ok(())
    }

    /// Up to 16 rows from row `at` of x on; `first` of those that are drawn from.
    #[allow(clippy::too_many_arguments)]
    fn record_tiles(
        &mut self,
        w: Matrix,
        x: Buf,
        at: usize,
        first: usize,
        count: usize,
        softcap: Option<f32>,
        told: [u64; 2],
    ) {
        let (kernel, built) = match count {
            1 => ("sample_tiles_1", 1),
            2 => ("sample_tiles_2", 2),
            3..=4 => ("sample_tiles_4", 4),
            5..=8 => ("sample_tiles_8", 8),
            _ => ("sample_tiles_16", 16),
        };
        let (vocab, tiles) = (self.shape.vocab, self.shape.vocab.div_ceil(TILE));
        let rooms = &self.grids.drawn;
        let places = [rooms.keys.arg(first * tiles * IDS * 2), rooms.sums.arg(first * tiles * 3)];
        let (width, matrix) = (self.width(x), &self.matrices[w.0]);
        // heads are one tensor
        let Some(part) = matrix.parts.first() else { return };
        let mut args = vec![Arg::Pointer(self.at(x) + (at * width * 4) as u64), int(count), int(matrix.cols)];
        args.extend([part.bytes.arg(), Arg::Int(part.format), int(vocab), Arg::Float(softcap.unwrap_or(0.0))]);
        args.extend([Arg::Pointer(0), Arg::Int(0)]);
        args.extend(told.map(Arg::Pointer));
        args.extend([int(TILE), int(CANDIDATES)]);
        args.extend(places);
        self.program.launch(kernel, [tiles, 1, 1], 128, 4 * TILE * built, args);
    }

    /// What was drawn in the last pass, from the device; no token and no numbers where it does not answer.
    pub(super) fn read_drawn(&self) -> Vec<Drawn> {
        let rooms = &self.grids.drawn;
        let count = rooms.draws.len();
        let whole = |room: &Room, columns: usize, otherwise: f32| {
            let mut all = self.note(room.read(0, count * columns)).unwrap_or_default();
            all.resize(count * columns, otherwise);
            all
        };
        let none = f32::from_bits(-1_i32 as u32);
        let bits = |all: Vec<f32>| all.into_iter().map(|x| x.to_bits() as i32).collect::<Vec<i32>>();
        let (ids, numbers) = (bits(whole(&rooms.ids, IDS, none)), whole(&rooms.numbers, NUMBERS, f32::NAN));
        let (chosen, scores) = (bits(whole(&rooms.chosen, CHOSEN, none)), whole(&rooms.scores, SCORES, f32::NAN));
        let row = |(i, draw): (usize, &Draw)| {
            let row = KernelRow {
                ids: &ids[i * IDS..][..IDS],
                numbers: &numbers[i * NUMBERS..][..NUMBERS],
                chosen: &chosen[i * CHOSEN..][..CHOSEN],
                scores: &scores[i * SCORES..][..SCORES],
            };
            Drawn::from_kernel(row, draw, self.shape.vocab)
        };
        rooms.draws.iter().enumerate().map(row).collect()
    }
}
