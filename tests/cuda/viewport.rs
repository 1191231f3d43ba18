//! kernels/viewport.cu

use std::sync::Arc;

use attnscope::backend::cuda::device::{Arg, Device};
use attnscope::backend::cuda::memory::Memory;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::caches::{Head, Shape, draw, far, launch};
use super::emulator;

/// A cache, kept queries of positions 0 … rows, and the map of one head in f64: −1 where a cell is not seen.
struct Map {
    device: Arc<dyn Device>,
    cache: Head,
    cells: Vec<Vec<f64>>,
    queries: Memory<f32>,
    lse: Memory<f32>,
    record: Memory<u64>,
    heads: usize,
    head: usize,
}

impl Map {
    fn new(shape: Shape, rows: u32, seed: u64) -> Self {
        let device = emulator::device(&["viewport"]);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (heads, dim) = (3, shape.dim);
        let (cache, head) = (Head::new(&device, shape, rows, 1, &mut rng), seed as usize % heads);
        let queries = draw(&mut rng, rows as usize * heads * dim);
        // As rows that a policy has thinned out since: not all of their mass is held any more.
        let mut lse = draw(&mut rng, rows as usize * heads);
        lse.iter_mut().for_each(|lse| *lse += 4.0);
        let cells = (0..rows).map(|r| {
            let at = r as usize * heads + head;
            let s = cache.logits(&queries[at * dim..][..dim], r);
            s.iter().map(|s| if s.is_finite() { (s - lse[at] as f64).exp() } else { -1.0 }).collect()
        });
        Self {
            cells: cells.collect(),
            queries: Memory::of(&device, &queries).unwrap(),
            lse: Memory::of(&device, &lse).unwrap(),
            record: Memory::of(&device, &cache.record()).unwrap(),
            device,
            cache,
            heads,
            head,
        }
    }

    fn args(&self) -> Vec<Arg> {
        let shape = &self.cache.shape;
        let ints =
            [self.heads, self.head, shape.dim, shape.kv as usize, shape.window as usize].map(|x| (x as i32).into());
        let places = [self.queries.arg(), self.lse.arg(), self.record.arg()];
        [&places[..], &ints, &[shape.scale().into(), shape.softcap.into()]].concat()
    }

    fn shared(&self) -> usize {
        4 * 2 * 32 * (self.cache.shape.dim + 4)
    }

    fn rows(&self, from: u32, count: usize) -> Vec<f32> {
        let n = self.cache.len();
        let out = Memory::<f32>::new(&self.device, count * n).unwrap();
        let args = [self.args(), vec![(from as i32).into(), (count as i32).into(), out.arg()]].concat();
        launch(&self.device, "map_rows", [n.div_ceil(32), count.div_ceil(32), 1], 256, self.shared(), &args);
        out.read(0, count * n).unwrap()
    }

    /// Rows and columns by their first and their number.
    fn tile(&self, rows: (u32, u32), cols: (u32, u32), height: u32, width: u32, fold: i32) -> Vec<f32> {
        let (n, pixels) = (self.cache.len(), (height * width) as usize);
        let sums = Memory::<f32>::new(&self.device, height as usize * n).unwrap();
        let counts = Memory::<i32>::new(&self.device, height as usize * n).unwrap();
        let out = Memory::<f32>::new(&self.device, pixels).unwrap();
        let ints = [rows.0, rows.1, height, cols.0, cols.1].map(|x| (x as i32).into());
        let args = [&self.args()[..], &ints, &[fold.into(), sums.arg(), counts.arg()]].concat();
        launch(&self.device, "map_columns", [n.div_ceil(32), height as usize, 1], 256, self.shared(), &args);
        let ints = [cols.0 as i32, cols.1 as i32, width as i32, fold].map(Arg::from);
        let args = [&[self.record.arg()][..], &ints, &[sums.arg(), counts.arg(), out.arg()]].concat();
        launch(&self.device, "map_pixels", [width.div_ceil(8) as usize, height as usize, 1], 256, 0, &args);
        out.read(0, pixels).unwrap()
    }

    /// Pixel by pixel: NaN where no cell is seen or held.
    fn expected(&self, rows: (u32, u32), cols: (u32, u32), height: u32, width: u32, fold: i32) -> Vec<f64> {
        let mut folds = vec![(0.0f64, 0.0f64, 0.0f64); (height * width) as usize];
        for r in 0..rows.1 {
            for (t, &p) in
                self.cache.positions.iter().enumerate().filter(|(_, p)| (cols.0..cols.0 + cols.1).contains(p))
            {
                let v = self.cells[(rows.0 + r) as usize][t];
                if v >= 0.0 {
                    let pixel = (r * height / rows.1) * width + (p - cols.0) * width / cols.1;
                    let (most, sum, count) = &mut folds[pixel as usize];
                    (*most, *sum, *count) = (most.max(v), *sum + v, *count + 1.0);
                }
            }
        }
        let of = |(most, sum, count): (f64, f64, f64)| match fold {
            _ if count == 0.0 => f64::NAN,
            0 => most,
            1 => sum / count,
            _ => sum,
        };
        folds.into_iter().map(of).collect()
    }
}

fn shape(dim: usize, kv: i32, window: u32, capped: bool, offsets: bool) -> Shape {
    Shape { kv_heads: 1, group: 1, dim, kv, window, softcap: if capped { 3.0 } else { 0.0 }, offsets }
}

/// (first, number) of some of `n`.
fn part(n: u32, a: u32, b: u32) -> (u32, u32) {
    let (a, b) = (a % n, b % n);
    (a.min(b), a.abs_diff(b) + 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn rows_and_pixels_equal_their_definition(
        rows in 1u32..300, dim in prop::sample::select(vec![8usize, 80, 128, 256]), kv in 0i32..3,
        window in prop::sample::select(vec![0u32, 0, 40]), capped: bool, offsets: bool,
        a: [u32; 2], b: [u32; 2], height in 1u32..40, width in 1u32..40, fold in 0i32..3, seed: u64
    ) {
        let map = Map::new(shape(dim, kv, window, capped, offsets), rows, seed);
        let tall = part(rows, a[0], a[1]);
        let found = map.rows(tall.0, tall.1 as usize);
        let expected = &map.cells[tall.0 as usize..][..tall.1 as usize];
        let expected: Vec<f64> = expected.iter().flatten().map(|v| v.max(0.0)).collect();
        // logits of up to 9 are good to 1e-5, and so are cells, up to e⁶ of them, relative to their size
        for (a, b) in found.iter().zip(&expected) {
            prop_assert!((*a as f64 - b).abs() <= 2e-5 * b, "{} {}", a, b);
        }
        let wide = part(rows, b[0], b[1]);
        let (height, width) = (height.min(tall.1), width.min(wide.1));
        let found = map.tile(tall, wide, height, width, fold);
        for (a, b) in found.iter().zip(map.expected(tall, wide, height, width, fold)) {
            prop_assert!(a.is_nan() && b.is_nan() || (*a as f64 - b).abs() <= 2e-5 * b, "{} {}", a, b);
        }
        let again = map.tile(tall, wide, height, width, fold);
        let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
        prop_assert_eq!(bits(found), bits(again));
    }
}

#[test]
fn one_pixel_for_one_cell_is_the_map_itself() {
    // the window's edge falls on every place of a block of slots
    for window in [0, 2, 5] {
        let map = Map::new(shape(8, 0, window, false, false), 70, 1);
        let pixels = map.tile((0, 70), (0, 70), 70, 70, 2);
        let rows = map.rows(0, 70);
        for r in 0..70 {
            for p in 0..70u32 {
                let pixel = pixels[r * 70 + p as usize];
                match map.cache.positions.binary_search(&p) {
                    Ok(slot) if map.cache.shape.sees(r as u32, p) => {
                        assert!(far(&[pixel], &[rows[r * map.cache.len() + slot] as f64]) == 0.0);
                    }
                    _ => assert!(pixel.is_nan(), "row {r} column {p}"),
                }
            }
        }
    }
}
