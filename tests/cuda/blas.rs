//! Products through cuBLAS, a fake one beside the fake driver. They are asked for in processes of their own: where
//! libraries are looked for is the environment's.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};

use attnscope::backend::cuda::blas::{Operands, TERMS, operands};
use attnscope::backend::cuda::device::{Device, Gemm, Launch};
use attnscope::backend::cuda::driver::Driver;
use attnscope::backend::cuda::memory::Memory;
use attnscope::cache::KvType;
use attnscope::model::tensor::DType;
use bytemuck::Pod;
use half::{bf16, f16};
use rand::{SeedableRng, rngs::StdRng};

use super::product::{activations, dot};
use super::{driver, emulator};

const HERE: &str = "ATTNSCOPE_TEST_BLAS";

/// A folder with a fake `libcublas.so.13`.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-blas");
        std::fs::create_dir_all(&folder).expect("a folder for the fake cuBLAS");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/fake_blas.cpp");
        emulator::compile(&source, &folder.join("libcublas.so.13"), &["-Wl,-soname,libcublas.so.13"]);
        folder
    })
}

/// Runs `products_here` in a process with the fake driver and, if `folders` has it, the fake cuBLAS.
fn elsewhere(folders: &[&Path], fails: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("these tests"));
    command.args(["--exact", "blas::products_here", "--nocapture", "--ignored"]);
    for name in ["CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "HOME"] {
        command.env_remove(name);
    }
    command.env("ATTNSCOPE_CUDA_LIBRARIES", std::env::join_paths(folders).expect("folders without ':'"));
    command.env("FAKE_CUDA_KERNELS", emulator::built("elementwise")).env("FAKE_BLAS_FAIL", fails);
    command.env("PATH", "/nowhere").env(HERE, "1").output().expect("the tests run")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn products_are_those_of_the_definition() {
    let output = elsewhere(&[driver::folder(), folder()], "");
    assert!(output.status.success() && text(&output).contains("1 passed"), "{}", text(&output));
}

#[test]
fn without_the_library_nothing_is_done() {
    let said = text(&elsewhere(&[driver::folder()], ""));
    assert!(said.contains("there is no cuBLAS"), "{said}");
}

#[test]
fn each_failure_is_an_error() {
    for (fails, words) in [
        ("cublasCreate_v2:1", ["starting cuBLAS", "cuBLAS status 1"]),
        ("cublasSetStream_v2:7", ["its stream", "CUBLAS_STATUS_INVALID_VALUE"]),
        ("cublasGemmEx:13", ["a product of [1, 1] and [1, 1]", "CUBLAS_STATUS_EXECUTION_FAILED"]),
    ] {
        let output = elsewhere(&[driver::folder(), folder()], fails);
        let said = text(&output);
        assert!(!output.status.success() && words.iter().all(|word| said.contains(word)), "{fails}: {said}");
    }
}

#[test]
fn a_library_without_its_functions_is_an_error() {
    let empty = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty-blas");
    std::fs::create_dir_all(&empty).expect("a folder");
    std::fs::write(empty.join("nothing.cpp"), "").expect("a file");
    emulator::compile(&empty.join("nothing.cpp"), &empty.join("libcublas.so.13"), &[]);
    let said = text(&elsewhere(&[driver::folder(), &empty], ""));
    assert!(said.contains("it has no cublasCreate_v2") && said.contains("pip install"), "{said}");
}

const SHAPES: [(usize, usize, usize); 4] = [(1, 1, 1), (3, 7, 5), (17, 64, 9), (2, 33, 70)];
const BEFORE: usize = 3;

/// Where the environment was made for it, see `elsewhere`.
#[test]
#[ignore = "runs in processes that other tests start"]
fn products_here() {
    if std::env::var_os(HERE).is_none() {
        return;
    }
    let device: Arc<dyn Device> = Arc::new(Driver::open(0).expect("the fake card"));
    for (case, (rows, inputs, outs)) in SHAPES.into_iter().enumerate() {
        let mut rng = StdRng::seed_from_u64(case as u64);
        let (x, w) = (activations(&mut rng, rows * inputs), activations(&mut rng, outs * inputs));
        for add in [false, true] {
            let shape = (rows, inputs, outs, add);
            let round = |x: &[f32]| x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<bf16>>();
            plain(&device, shape, KvType::F32, &x, &w);
            plain(&device, shape, KvType::F16, &halves(&x), &halves(&w));
            plain(&device, shape, KvType::BF16, &round(&x), &round(&w));
            in_terms(&device, shape, &x, &round(&w));
        }
    }
}

type Shape = (usize, usize, usize, bool);

fn halves(x: &[f32]) -> Vec<f16> {
    x.iter().map(|&x| f16::from_f32(x)).collect()
}

/// Both operands in one number type.
fn plain<T: Pod + Into<f64>>(device: &Arc<dyn Device>, shape: Shape, kind: KvType, x: &[T], w: &[T]) {
    let from = Memory::of(device, x).unwrap();
    let float = |x: &[T]| x.iter().map(|&x| x.into() as f32).collect::<Vec<f32>>();
    check(device, shape, &float(x), &float(w), &Memory::of(device, w).unwrap(), kind, &[from.at(0)]);
}

/// Activations in f32, weights in bf16.
fn in_terms(device: &Arc<dyn Device>, shape: Shape, x: &[f32], w: &[bf16]) {
    let (from, terms) = (Memory::of(device, x).unwrap(), Memory::<bf16>::new(device, TERMS * x.len()).unwrap());
    let args = [from.arg(), terms.arg(), (x.len() as i32).into()];
    let grid = [x.len().div_ceil(256) as u32, 1, 1];
    device.launch(Launch { kernel: "split_bf16", grid, block: [256, 1, 1], shared: 0, args: &args }).unwrap();
    let all: Vec<u64> = (0..TERMS).map(|term| terms.at(term * x.len())).collect();
    let float: Vec<f32> = w.iter().map(|w| w.to_f32()).collect();
    check(device, shape, x, &float, &Memory::of(device, w).unwrap(), KvType::BF16, &all);
}

/// `parts`: the addresses of what sums up to x.
fn check<T: Pod>(
    device: &Arc<dyn Device>,
    (rows, inputs, outs, add): Shape,
    x: &[f32],
    w: &[f32],
    weights: &Memory<T>,
    kind: KvType,
    parts: &[u64],
) {
    let width = BEFORE + outs + 2;
    let out = Memory::of(device, &vec![0.5f32; rows * width]).unwrap();
    for (part, &x) in parts.iter().enumerate() {
        let add = add || part > 0;
        let (weights, out) = (weights.at(0), out.at(BEFORE));
        let done = device.product(Gemm { kind, x, weights, out, rows, inputs, outs, width, add });
        assert!(done.unwrap_or_else(|error| panic!("{error}")), "there is no cuBLAS");
    }
    for (i, found) in out.read(0, rows * width).unwrap().into_iter().enumerate() {
        let Some(o) = (i % width).checked_sub(BEFORE).filter(|o| *o < outs) else {
            assert_eq!(found, 0.5, "number {i} is not the product's");
            continue;
        };
        let (sum, size) = dot(&x[i / width * inputs..][..inputs], &w[o * inputs..][..inputs]);
        let expected = sum + if add { 0.5 } else { 0.0 };
        // at most three sums in f32
        assert!((found as f64 - expected).abs() <= (size + 0.5) * 2f64.powi(-22), "{found}, not {expected}");
    }
}

#[test]
fn only_plain_numbers_go_in_as_they_are() {
    assert_eq!(operands(DType::F32), Operands::F32);
    assert_eq!(operands(DType::BF16), Operands::Bf16);
    assert_eq!(operands(DType::F16), Operands::Dequantized);
    assert_eq!(operands(DType::Q4K), Operands::Dequantized);
}
