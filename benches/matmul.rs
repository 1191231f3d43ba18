//! Matrix products on the CPU: `cargo bench --bench matmul`, or with a part of a name after `--`.
//!
//! `read` is what the memory gives a plain loop, to hold decoding against: a token must read every weight once.
//! Names end in the threads and in the activation rows that share the pass. Decoding reports bytes of weights per
//! second, prefill multiply-adds per second.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use attnscope::backend::cpu::matmul::{
    FloatMatrix, Isa, PackedMatrix, QuantizedRows, WeightMemory, matmul, matmul_float,
};
use attnscope::model::tensor::{Bytes, DType, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// The shapes of SmolLM2-135M and Gemma 3 270M: (format, rows, columns).
const QUANTIZED: [(DType, usize, usize); 8] = [
    (DType::Q4_1, 576, 576),
    (DType::Q4_1, 3072, 576),
    (DType::Q4_1, 576, 1536),
    (DType::Q8_0, 49152, 576),
    (DType::Q5_0, 2048, 640),
    (DType::Q4K, 640, 2048),
    (DType::Q6K, 640, 2048),
    (DType::Q8_0, 262144, 640),
];
const FLOAT: [(DType, usize, usize); 3] = [(DType::F32, 1536, 576), (DType::F16, 1536, 576), (DType::BF16, 49152, 576)];
const THREADS: [usize; 2] = [1, 2];
const PREFILL: usize = 512;
/// A head sees few rows even in prefill.
const HEAD: usize = 16;

/// Weights of arbitrary bits, kept from making NaNs of the scales.
fn tensor(dtype: DType, rows: usize, cols: usize) -> Tensor {
    let len = dtype.bytes(rows, cols).expect("a whole number of blocks");
    let bytes: Vec<u8> = (0..len as u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8 & 0x3b).collect();
    Tensor { name: dtype.name().into(), dtype, rows, cols, bytes: Bytes::Owned(bytes.into()) }
}

fn activations(rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|i| (i as f32 * 0.37).sin()).collect()
}

/// Time of `iterations` passes, each thread over its share of the tiles.
fn on_threads(threads: usize, iterations: u64, tiles: usize, pass: impl Fn(std::ops::Range<usize>) + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    let share = |id: usize| {
        barrier.wait();
        let start = Instant::now();
        for _ in 0..iterations {
            pass(tiles * id / threads..tiles * (id + 1) / threads);
        }
        start.elapsed()
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|id| scope.spawn(move || share(id))).collect();
        let mine = share(0);
        others.into_iter().map(|t| t.join().expect("a bench thread")).fold(mine, Duration::max)
    })
}

fn read(c: &mut Criterion) {
    let words = vec![1u64; 32 << 20];
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Bytes(size_of_val(words.as_slice()) as u64));
    for threads in THREADS {
        group.bench_function(BenchmarkId::new("256 MiB", format!("{threads}T")), |b| {
            b.iter_custom(|n| {
                on_threads(threads, n, words.len(), |part| {
                    black_box(words[part].iter().fold(0u64, |sum, w| sum.wrapping_add(*w)));
                })
            })
        });
    }
}

fn quantized(c: &mut Criterion) {
    let isa = Isa::detect();
    let mut group = c.benchmark_group(format!("quantized {isa}"));
    for (dtype, rows, cols) in QUANTIZED {
        let w = PackedMatrix::pack(&[&tensor(dtype, rows, cols)], &mut WeightMemory::new()).expect("weights");
        let many = if rows > 10_000 { HEAD } else { PREFILL };
        for m in [1, 2, 4, 8, many] {
            let mut x = QuantizedRows::new(m, cols);
            for (row, values) in activations(m, cols).chunks(cols).enumerate() {
                x.quantize_row(row, values, isa);
            }
            group.throughput(match m {
                1..=8 => Throughput::Bytes(w.bytes() as u64),
                _ => Throughput::Elements((m * rows * cols) as u64),
            });
            for threads in THREADS {
                let id = BenchmarkId::new(format!("{dtype} {rows}x{cols}"), format!("{threads}T/M{m}"));
                group.bench_function(id, |b| {
                    b.iter_custom(|n| {
                        on_threads(threads, n, w.tiles(), |tiles| {
                            matmul(&w, &x, 0..m, tiles, isa, &mut |_, _, values| {
                                black_box(values);
                            })
                        })
                    })
                });
            }
        }
    }
}

fn float(c: &mut Criterion) {
    let isa = Isa::detect();
    let mut group = c.benchmark_group(format!("float {isa}"));
    for (dtype, rows, cols) in FLOAT {
        let w = FloatMatrix::new(&tensor(dtype, rows, cols)).expect("weights");
        for m in [1, 2, 4, 16] {
            let x = activations(m, cols);
            group.throughput(match m {
                1..=8 => Throughput::Bytes(w.bytes() as u64),
                _ => Throughput::Elements((m * rows * cols) as u64),
            });
            for threads in THREADS {
                let id = BenchmarkId::new(format!("{dtype} {rows}x{cols}"), format!("{threads}T/M{m}"));
                group.bench_function(id, |b| {
                    b.iter_custom(|n| {
                        on_threads(threads, n, w.tiles(), |tiles| {
                            matmul_float(&w, &x, 0..m, tiles, isa, &mut |_, _, values| {
                                black_box(values);
                            })
                        })
                    })
                });
            }
        }
    }
}

fn quantize(c: &mut Criterion) {
    let isa = Isa::detect();
    let x = activations(PREFILL, 576);
    let mut rows = QuantizedRows::new(PREFILL, 576);
    let mut group = c.benchmark_group(format!("quantize {isa}"));
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("512x576", |b| {
        b.iter(|| {
            for (row, values) in x.chunks(576).enumerate() {
                rows.quantize_row(row, black_box(values), isa);
            }
        })
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000));
    targets = read, quantize, quantized, float
}
criterion_main!(benches);
