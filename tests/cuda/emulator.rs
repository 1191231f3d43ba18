//! A device that runs the kernels on the CPU: g++ builds them with `emulate.h`, each thread of a block a coroutine.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use attnscope::backend::cuda::device::{Arg, Device, Graph, Launch, Mark};
use attnscope::backend::{BackendError, Result};
use libloading::Library;

type Run = unsafe extern "C" fn(*const u32, *const u32, usize, *const *mut c_void, u64) -> c_int;
type Signature = unsafe extern "C" fn() -> *const c_char;

/// What an allocation is surrounded by: a kernel that writes beside its memory is found when it is freed.
const GUARD: usize = 256;
const GUARD_BYTE: u8 = 0xa5;

pub struct Emulator {
    families: Vec<Library>,
    /// Where each allocation lies, by the address that kernels see.
    held: Mutex<HashMap<u64, usize>>,
    /// Orders in which threads are woken differ from launch to launch, the same in every run.
    launches: AtomicU64,
    graphs: Mutex<Graphs>,
    marked: AtomicU64,
    /// Of each mark that was passed.
    times: Mutex<HashMap<u64, Instant>>,
}

#[derive(Default)]
struct Graphs {
    /// What is being gathered.
    open: Option<Vec<Node>>,
    all: HashMap<u64, Arc<Vec<Node>>>,
    made: u64,
}

enum Node {
    Launch(Kept),
    Mark(u64),
}

/// A launch to be carried out later.
struct Kept {
    kernel: &'static str,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    args: Vec<Arg>,
}

/// A device with these families of kernels.
pub fn device(families: &[&'static str]) -> Arc<dyn Device> {
    let load = |family: &&'static str| {
        // SAFETY: built from our own sources; loading it runs nothing.
        unsafe { Library::new(built(family)) }.expect("a family of kernels, built for the CPU")
    };
    Arc::new(Emulator {
        families: families.iter().map(load).collect(),
        held: Mutex::default(),
        launches: AtomicU64::new(0),
        graphs: Mutex::default(),
        marked: AtomicU64::new(0),
        times: Mutex::default(),
    })
}

/// Builds a family at its first use.
pub fn built(family: &'static str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(family).or_insert_with(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels");
        std::fs::create_dir_all(&folder).expect("a folder for the kernels");
        build(root, &root.join("kernels").join(family).with_extension("cu"), &folder)
    });
    built[family].clone()
}

fn build(root: &Path, source: &Path, folder: &Path) -> PathBuf {
    let out = folder.join(source.file_stem().expect("a name")).with_extension("so");
    let (header, folder) = (root.join("tests/cuda/emulate.h"), root.join("kernels"));
    // as a card: products and sums are rounded apart unless the kernel says fmaf
    let options = ["-ffp-contract=off", "-include", &header.to_string_lossy(), "-I", &folder.to_string_lossy()];
    compile(source, &out, &options);
    out
}

/// Makes a library of C++ or CUDA code.
pub fn compile(source: &Path, out: &Path, options: &[&str]) {
    // Another run of the tests may be at it: each writes its own, and the last one stays.
    let own = out.with_extension(format!("{}.so", std::process::id()));
    let mut compiler = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "g++".into()));
    compiler.args(["-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]);
    compiler.args(["-x", "c++"]).arg(source).arg("-o").arg(&own).args(options);
    let done = compiler.output().expect("g++, which builds the kernels for these tests, or another compiler in CXX");
    assert!(done.status.success(), "{}:\n{}", source.display(), String::from_utf8_lossy(&done.stderr));
    std::fs::rename(&own, out).expect("the library in its place");
}

fn failed(what: &str, why: impl Into<String>) -> BackendError {
    BackendError::Failed { what: what.into(), why: why.into() }
}

impl Emulator {
    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes + 2 * GUARD, 256).expect("a size")
    }

    /// That `bytes` at `at` lie in one allocation.
    fn check(&self, what: &str, at: u64, bytes: usize) -> Result<()> {
        let held = self.held.lock().expect("no test holds it");
        let inside = held.iter().any(|(&first, &len)| at >= first && at + bytes as u64 <= first + len as u64);
        if inside || bytes == 0 { Ok(()) } else { Err(failed(what, format!("{bytes} bytes at {at:#x} are not ours"))) }
    }

    fn set(&self, mark: u64) {
        self.times.lock().expect("no test holds it").insert(mark, Instant::now());
    }

    fn find(&self, kernel: &str) -> Result<(Run, Vec<u8>)> {
        for family in &self.families {
            // SAFETY: the functions that EXPORT in emulate.h makes.
            unsafe {
                if let Ok(run) = family.get::<Run>(format!("launch_{kernel}").as_bytes()) {
                    let letters = family.get::<Signature>(format!("signature_{kernel}").as_bytes());
                    let letters = letters.map_err(|why| failed(kernel, why.to_string()))?();
                    return Ok((*run, CStr::from_ptr(letters).to_bytes().to_vec()));
                }
            }
        }
        Err(failed(kernel, "there is no such kernel"))
    }
}

impl Device for Emulator {
    fn describe(&self) -> String {
        "CUDA kernels on the CPU".into()
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let layout = Self::layout(bytes);
        // SAFETY: the size is not zero.
        let base = unsafe { alloc(layout) };
        assert!(!base.is_null(), "{bytes} bytes");
        // SAFETY: all of it is ours. As on a card, memory begins with anything: here NaN.
        unsafe {
            base.write_bytes(GUARD_BYTE, layout.size());
            base.add(GUARD).write_bytes(0xff, bytes);
        }
        let at = base as u64 + GUARD as u64;
        self.held.lock().expect("no test holds it").insert(at, bytes);
        Ok(at)
    }

    fn free(&self, at: u64, bytes: usize) {
        let held = self.held.lock().expect("no test holds it").remove(&at);
        assert_eq!(held, Some(bytes), "what is freed was allocated so");
        let base = (at - GUARD as u64) as *mut u8;
        // SAFETY: from `allocate`.
        unsafe {
            let all = std::slice::from_raw_parts(base, bytes + 2 * GUARD);
            let whole = all[..GUARD].iter().chain(&all[GUARD + bytes..]).all(|&byte| byte == GUARD_BYTE);
            dealloc(base, Self::layout(bytes));
            assert!(whole || std::thread::panicking(), "a kernel wrote beside an allocation of {bytes} bytes");
        }
    }

    fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        self.check("upload", to, from.len())?;
        // SAFETY: checked above.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        Ok(())
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        self.check("download", from, to.len())?;
        // SAFETY: checked above.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.check("copy", from, bytes)?;
        self.check("copy", to, bytes)?;
        assert!(from + bytes as u64 <= to || to + bytes as u64 <= from, "places overlap");
        // SAFETY: checked above.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<()> {
        self.check("clear", at, bytes)?;
        // SAFETY: checked above.
        unsafe { (at as *mut u8).write_bytes(0, bytes) };
        Ok(())
    }

    fn room(&self) -> Option<u64> {
        Some(1 << 20)
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }

    fn begin_graph(&self) -> Result<()> {
        let mut graphs = self.graphs.lock().expect("no test holds it");
        assert!(graphs.open.is_none(), "one graph at a time");
        graphs.open = Some(Vec::new());
        Ok(())
    }

    fn end_graph(&self) -> Result<Graph> {
        let mut graphs = self.graphs.lock().expect("no test holds it");
        let all = graphs.open.take().expect("a graph was begun");
        graphs.made += 1;
        let name = graphs.made;
        graphs.all.insert(name, Arc::new(all));
        Ok(Graph(name))
    }

    fn run_graph(&self, graph: Graph) -> Result<()> {
        let all = self.graphs.lock().expect("no test holds it").all[&graph.0].clone();
        all.iter().try_for_each(|node| match node {
            Node::Mark(mark) => {
                self.set(*mark);
                Ok(())
            }
            Node::Launch(Kept { kernel, grid, block, shared, args }) => {
                self.launch(Launch { kernel, grid: *grid, block: *block, shared: *shared, args })
            }
        })
    }

    fn drop_graph(&self, graph: Graph) {
        self.graphs.lock().expect("no test holds it").all.remove(&graph.0).expect("a graph that was made");
    }

    fn launch(&self, launch: Launch<'_>) -> Result<()> {
        if let Some(open) = &mut self.graphs.lock().expect("no test holds it").open {
            let Launch { kernel, grid, block, shared, args } = launch;
            open.push(Node::Launch(Kept { kernel, grid, block, shared, args: args.to_vec() }));
            return Ok(());
        }
        let (run, letters) = self.find(launch.kernel)?;
        let given: Vec<u8> = launch.args.iter().map(letter).collect();
        if given != letters {
            let text = |letters: &[u8]| String::from_utf8_lossy(letters).into_owned();
            return Err(failed(launch.kernel, format!("given {}, takes {}", text(&given), text(&letters))));
        }
        let value = |arg: &Arg| match *arg {
            Arg::Pointer(at) => at,
            Arg::Int(x) => u64::from(x as u32),
            Arg::Float(x) => u64::from(x.to_bits()),
        };
        let values: Vec<u64> = launch.args.iter().map(value).collect();
        let places: Vec<*mut c_void> = values.iter().map(|value| (value as *const u64).cast_mut().cast()).collect();
        let seed = self.launches.fetch_add(1, Ordering::Relaxed) + 1;
        // SAFETY: number and kinds of the arguments are the kernel's; what it does with them is what is tested.
        let code =
            unsafe { run(launch.grid.as_ptr(), launch.block.as_ptr(), launch.shared as usize, places.as_ptr(), seed) };
        match code {
            0 => Ok(()),
            1 => Err(failed(launch.kernel, "some threads wait for others that never come")),
            _ => Err(failed(launch.kernel, "no card takes a block like this")),
        }
    }

    fn mark(&self) -> Result<Mark> {
        let mark = self.marked.fetch_add(1, Ordering::Relaxed);
        match &mut self.graphs.lock().expect("no test holds it").open {
            Some(open) => open.push(Node::Mark(mark)),
            None => self.set(mark),
        }
        Ok(Mark(mark))
    }

    fn between(&self, from: Mark, to: Mark) -> Result<u64> {
        let times = self.times.lock().expect("no test holds it");
        Ok((times[&to.0] - times[&from.0]).as_nanos() as u64)
    }

    fn clear_marks(&self) {}
}

fn letter(arg: &Arg) -> u8 {
    match arg {
        Arg::Pointer(_) => b'p',
        Arg::Int(_) => b'i',
        Arg::Float(_) => b'f',
    }
}
