//! What this CPU does at best, measured with the threads and the kernels that passes use.

use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use crate::backend::Result;
use crate::engine::frame::Peaks;
use crate::model::tensor::{Bytes, DType, Tensor};
use crate::simd::vectorized;

use super::linear::{Linear, Part, failed};
use super::matmul::{FloatMatrix, Isa, PackedMatrix, QuantizedRows, TILE, WeightMemory, matmul, matmul_float};
use super::pool::{Pool, Shares};

/// The best one counts: other processes only ever take away, and seldom from all of many short rounds.
const ROUNDS: usize = 16;
/// Of one round of arithmetic.
const ROUND: Duration = Duration::from_millis(1);
/// Times that the array is read, and what of it is read in one round.
const PASSES: usize = 3;
const WINDOW: usize = 16 << 20;

/// The array that is read: so many times the last-level cache, within limits that keep it short.
const CACHES: usize = 4;
const LEAST_ARRAY: usize = 64 << 20;
const MOST_ARRAY: usize = 128 << 20;
/// Taken where the system does not tell its caches.
const UNKNOWN_CACHE: usize = 32 << 20;
/// What one thread reads at a time.
const PIECE: usize = 1 << 20;

/// Most weights and most activations that a thread multiplies over and over: they stay in its caches.
const WEIGHTS: usize = 64 << 10;
const ACTIVATIONS: usize = 128 << 10;
const MOST_ROWS: usize = 128;

/// Of this CPU with `threads` and Q8_0 weights, without a model.
pub fn of_machine(threads: usize) -> Result<Peaks> {
    let mut pool = Pool::new(threads).map_err(|e| failed("starting threads", e))?;
    let weights = synthetic(DType::Q8_0, 64, 512);
    let packed = Linear::native(&[&weights], &mut WeightMemory::new())?;
    measure(&mut pool, Some(&packed), Isa::detect())
}

/// `weights`: those that products are measured with.
pub fn measure(pool: &mut Pool, weights: Option<&Linear>, isa: Isa) -> Result<Peaks> {
    let (read_bytes_per_s, read) = read(pool)?;
    let floats = FloatMatrix::new(&synthetic(DType::F32, 64, 256)).map_err(|e| failed("peaks", e))?;
    let flops_per_s = float_product(pool, &floats, isa)?;
    let (product_flops_per_s, product) = match weights {
        None => (flops_per_s, "the same"),
        Some(Linear::Dense(weight)) => (dense_product(weight)?, "the f32 product of a pass"),
        Some(Linear::PackedGated(packed, _)) => (packed_product(pool, packed, isa)?, PACKED),
        Some(Linear::Stored(parts)) => match parts.first() {
            Some((_, Part::Packed(packed))) => (packed_product(pool, packed, isa)?, PACKED),
            Some((_, Part::Float(float))) => (float_product(pool, float, isa)?, FLOAT),
            None => (flops_per_s, "the same"),
        },
    };
    let threads = pool.threads();
    let how = format!(
        "{threads} thread{}, best of many rounds: {read}; f32 by the float kernel, products by {product}, in cache",
        if threads == 1 { "" } else { "s" },
    );
    Ok(Peaks { read_bytes_per_s, flops_per_s, product_flops_per_s, how: how.into() })
}

const FLOAT: &str = "that with the model's weights";
const PACKED: &str = "the kernel for packed weights and 8-bit rows";

/// The weights of the shape that most multiply-adds of a pass go through.
pub fn typical(all: &[Linear]) -> Option<&Linear> {
    let shape = |w: &Linear| (w.rows(), w.cols());
    let work = |w: &&Linear| all.iter().filter(|other| shape(other) == shape(w)).count() * w.rows() * w.cols();
    all.iter().max_by_key(work)
}

/// Weights of ones, or near them.
fn synthetic(dtype: DType, rows: usize, cols: usize) -> Tensor {
    let bytes = match dtype {
        DType::F32 => 1.0f32.to_le_bytes().repeat(rows * cols),
        // a scale in f16 and 32 numbers of 8 bit
        _ => [half::f16::ONE.to_le_bytes().as_slice(), &[1; 32]].concat().repeat(rows * cols / 32),
    };
    Tensor { name: "peaks".into(), dtype, rows, cols, bytes: Bytes::Owned(bytes.into()) }
}

/// The largest cache of the first core, bytes.
fn last_level_cache() -> Option<usize> {
    let size = |index: usize| -> Option<usize> {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let text = std::fs::read_to_string(path).ok()?;
        let (number, unit) = text.trim().split_at(text.trim().find(|c: char| !c.is_ascii_digit())?);
        let scale = match unit {
            "K" => 1 << 10,
            "M" => 1 << 20,
            _ => return None,
        };
        number.parse::<usize>().ok()?.checked_mul(scale)
    };
    (0..8).map_while(size).max()
}

#[inline(always)]
fn sum(words: &[u64]) -> u64 {
    let mut sums = [0u64; 32];
    let (chunks, rest) = words.as_chunks::<32>();
    for chunk in chunks {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().chain(rest).fold(0, |all, word| all.wrapping_add(*word))
}

/// Bytes per second that all threads read from an array much larger than the caches.
fn read(pool: &mut Pool) -> Result<(f64, String)> {
    let cache = last_level_cache().unwrap_or(UNKNOWN_CACHE);
    let bytes = cache.saturating_mul(CACHES).clamp(LEAST_ARRAY, MOST_ARRAY).next_multiple_of(WINDOW);
    let mut map = MmapMut::map_anon(bytes).map_err(|e| failed("memory to read", e))?;
    // As weights lie; only a hint.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let words: &mut [u64] = bytemuck::try_cast_slice_mut(&mut map).map_err(|e| failed("memory to read", e))?;
    {
        // Pages that nobody has written to are all the same one.
        let pieces: Vec<Mutex<&mut [u64]>> = words.chunks_mut(PIECE / 8).map(Mutex::new).collect();
        let shares = Shares::new(1, pool.threads());
        pool.run(&|worker| {
            worker.spans(shares.of(0), pieces.len(), 1, |span| {
                for piece in &pieces[span] {
                    piece.lock().unwrap_or_else(|e| e.into_inner()).fill(1);
                }
            });
        })
        .map_err(|why| failed("memory to read", why))?;
    }
    let pieces: Vec<&[u64]> = words.chunks(PIECE / 8).collect();
    let total = AtomicU64::new(0);
    let mut best = f64::INFINITY;
    for window in (0..PASSES).flat_map(|_| pieces.chunks_exact(WINDOW / PIECE)) {
        let seconds = timed(pool, window.len(), |i| {
            let sum = vectorized(
                #[inline(always)]
                || sum(window[i]),
            );
            total.fetch_add(sum, Ordering::Relaxed);
        })?;
        best = best.min(seconds);
    }
    black_box(total);
    let doubt = if bytes < 2 * cache { ", may hold some of it" } else { "" };
    let how =
        format!("reading {} MiB, {} at a time (largest cache {} MiB{doubt})", bytes >> 20, WINDOW >> 20, cache >> 20,);
    Ok((WINDOW as f64 / best, how))
}

/// Seconds that `n` items take with all threads.
fn timed(pool: &mut Pool, n: usize, work: impl Fn(usize) + Sync) -> Result<f64> {
    let shares = Shares::new(1, pool.threads());
    let start = Instant::now();
    pool.run(&|worker| worker.spans(shares.of(0), n, 1, |span| span.for_each(&work)))
        .map_err(|why| failed("peaks", why))?;
    Ok(start.elapsed().as_secs_f64())
}

/// Calls per second of `work` by all threads, each as often as a round takes.
fn rate(pool: &mut Pool, work: impl Fn() + Sync) -> Result<f64> {
    let threads = pool.threads();
    // Once for the caches, once for the clock.
    timed(pool, threads, |_| work())?;
    let once = timed(pool, threads, |_| work())?;
    let n = threads * (ROUND.as_secs_f64() / once).ceil().clamp(1.0, 1e5) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        best = best.min(timed(pool, n, |_| work())?);
    }
    Ok(n as f64 / best)
}

/// Rows of `cols` activations of `size` bytes, and tiles of weights.
fn few(cols: usize, size: usize, weights: usize, tiles: usize) -> (usize, usize) {
    let rows = (ACTIVATIONS / (cols * size).max(1)).clamp(1, MOST_ROWS);
    (rows, (WEIGHTS * tiles / weights.max(1)).clamp(1, tiles.max(1)).min(tiles))
}

fn flops(rows: usize, tiles: usize, cols: usize) -> f64 {
    (2 * rows * tiles * TILE * cols) as f64
}

fn packed_product(pool: &mut Pool, w: &PackedMatrix, isa: Isa) -> Result<f64> {
    let cols = w.cols();
    let (rows, tiles) = few(cols, 1, w.bytes(), w.tiles());
    let mut x = QuantizedRows::new(rows, cols);
    (0..rows).for_each(|row| x.quantize_row(row, &vec![1.0; cols], isa));
    let calls = rate(pool, || {
        matmul(w, &x, 0..rows, 0..tiles, isa, &mut |_, _, values| {
            black_box(values);
        });
    })?;
    Ok(calls * flops(rows, tiles, cols))
}

fn float_product(pool: &mut Pool, w: &FloatMatrix, isa: Isa) -> Result<f64> {
    let cols = w.cols();
    let (rows, tiles) = few(cols, 4, w.bytes(), w.tiles());
    let x = vec![1.0; rows * cols];
    let calls = rate(pool, || {
        matmul_float(w, &x, 0..rows, 0..tiles, isa, &mut |_, _, values| {
            black_box(values);
        });
    })?;
    Ok(calls * flops(rows, tiles, cols))
}

/// The reference's product of many rows, with candle's own threads.
fn dense_product(weight: &candle_core::Tensor) -> Result<f64> {
    let product = || -> candle_core::Result<f64> {
        let (outputs, cols) = weight.dims2()?;
        let (rows, outputs) = (MOST_ROWS, outputs.min(256));
        let w = weight.narrow(0, 0, outputs)?.contiguous()?.t()?;
        let x = candle_core::Tensor::ones((rows, cols), candle_core::DType::F32, &candle_core::Device::Cpu)?;
        let mut best = f64::INFINITY;
        for _ in 0..=ROUNDS {
            let start = Instant::now();
            black_box(x.matmul(&w)?);
            best = best.min(start.elapsed().as_secs_f64());
        }
        Ok((2 * rows * outputs * cols) as f64 / best)
    };
    product().map_err(|e| failed("peaks", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_plausible_and_quick() {
        let start = Instant::now();
        let peaks = of_machine(2).unwrap();
        println!("{peaks:?} in {:?}", start.elapsed());
        assert!(peaks.is_sound());
        // no memory of today is slower or faster, no core does less than one operation in ten clocks
        assert!((1e8..1e13).contains(&peaks.read_bytes_per_s), "{peaks:?}");
        assert!(peaks.flops_per_s > 1e8 && peaks.product_flops_per_s > 1e8, "{peaks:?}");
        assert!(peaks.how.contains("2 threads, best of many rounds: reading "), "{peaks:?}");
    }

    #[test]
    fn the_typical_weights_are_those_with_most_work() {
        let make = |rows: usize| Linear::native(&[&synthetic(DType::F32, rows, 32)], &mut WeightMemory::new()).unwrap();
        // the head is the largest, the layers' together are larger
        let all = [make(48), make(16), make(48), make(100)];
        assert_eq!(typical(&all).unwrap().rows(), 100);
        let all = [make(48), make(16), make(48), make(48), make(100)];
        assert_eq!(typical(&all).unwrap().rows(), 48);
        assert!(typical(&[]).is_none());
    }
}
