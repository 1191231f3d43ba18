//! A card, through NVIDIA's driver.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::api::{Api, Handle};
use super::blas::Blas;
use super::device::{Arg, Device, Gemm, Graph, Launch, Mark};
use super::error::CudaError;
use super::image::{Maker, Origin};
use super::libraries::{Library, find};
use super::nvrtc::Nvrtc;
use super::shared::{Shared, open};
use super::source::{FAMILIES, Family};
use super::store::Store;
use super::system::ThisMachine;
use super::version::Version;
use crate::backend::Result;

const OUT_OF_MEMORY: c_uint = 2;
/// Errors after which every further call fails: the card fell off the bus, could not correct its memory, or a kernel
/// went astray.
const LOST: [c_uint; 9] = [46, 214, 220, 700, 702, 713, 715, 718, 719];

/// A kernel that uses more dynamic shared memory than this has to be told so.
const PLAIN_SHARED: u32 = 48 << 10;

/// As cuda.h numbers them.
const ATTRIBUTE_MULTIPROCESSORS: c_int = 16;
const ATTRIBUTE_MAJOR: c_int = 75;
const ATTRIBUTE_MINOR: c_int = 76;
const FUNCTION_SHARED: c_int = 8;
const STREAM_NON_BLOCKING: c_uint = 1;
/// An event that a graph records stays readable from outside.
const RECORD_EXTERNAL: c_uint = 1;
/// Other threads may do as they like while launches are gathered.
const CAPTURE_RELAXED: c_uint = 2;

/// Modules are loaded at the first launch of one of their kernels.
#[derive(Default)]
struct Loaded {
    modules: HashMap<&'static str, Handle>,
    functions: HashMap<&'static str, Handle>,
    /// What to tell the user once.
    notes: Vec<String>,
}

/// cuBLAS is opened at the first product: it takes its time, and memory on the card.
#[derive(Default)]
enum Products {
    #[default]
    Unasked,
    Absent,
    Open(Blas),
}

pub struct Driver {
    api: Api,
    version: Version,
    index: c_int,
    name: String,
    /// 90 for 9.0.
    card: u32,
    context: Handle,
    stream: Handle,
    maker: Maker,
    loaded: Mutex<Loaded>,
    products: Mutex<Products>,
    events: Mutex<Events>,
}

#[derive(Default)]
struct Events {
    /// Marks given out since they were last cleared, and those to be used again.
    used: Vec<Handle>,
    free: Vec<Handle>,
    /// Of the graph that is being gathered.
    gathering: Option<Vec<Handle>>,
    /// By graph.
    of_graphs: HashMap<u64, Vec<Handle>>,
}

// SAFETY: the driver's handles may be used from any thread in which the context is current, which `call` sees to.
unsafe impl Send for Driver {}
// SAFETY: as above; what changes lies behind locks.
unsafe impl Sync for Driver {}

fn found(library: Library, driver: Option<Version>) -> Option<std::result::Result<Shared, CudaError>> {
    Some(open(&find(&ThisMachine, library, driver).found?).map_err(CudaError::from))
}

impl Driver {
    /// Card `index` of those that the driver shows.
    pub fn open(index: u32) -> std::result::Result<Self, CudaError> {
        let library = found(Library::Cuda, None).ok_or(CudaError::NoDriver)??;
        let version = library.driver().ok_or(CudaError::NoDriver)?;
        let api = Api::new(&library)?;
        let check = |what: &str, code: c_uint| match code {
            0 => Ok(()),
            _ => Err(CudaError::Call { what: what.into(), error: api.describe(code) }),
        };
        let nvrtc = match found(Library::Nvrtc, Some(version)) {
            Some(library) => Some(Nvrtc::new(library?)?),
            None => None,
        };
        let (mut count, mut device, mut major, mut minor) = (0, 0, 0, 0);
        let (mut context, mut stream) = (null_mut(), null_mut());
        let mut name = [0; 256];
        // SAFETY: each writes what the types say; the name ends within its 256 bytes.
        unsafe {
            check("starting CUDA", (api.init)(0))?;
            check("counting cards", (api.count)(&mut count))?;
            let number = c_int::try_from(index).ok().filter(|&index| index < count);
            let number = number.ok_or(CudaError::NoCard { index, count })?;
            check("finding a card", (api.device)(&mut device, number))?;
            check("asking a card's name", (api.name)(name.as_mut_ptr(), name.len() as c_int - 1, device))?;
            check("asking what a card can do", (api.attribute)(&mut major, ATTRIBUTE_MAJOR, device))?;
            check("asking what a card can do", (api.attribute)(&mut minor, ATTRIBUTE_MINOR, device))?;
        }
        let card = (major.max(0) * 10 + minor.max(0)) as u32;
        let maker = Maker::new(nvrtc, Store::of_user(), version, card)?;
        // SAFETY: as above.
        let name = unsafe {
            check("taking a card", (api.retain_context)(&mut context, device))?;
            check("taking a card", (api.set_context)(context))?;
            check("making a stream", (api.stream)(&mut stream, STREAM_NON_BLOCKING))?;
            CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
        };
        Ok(Self {
            api,
            version,
            index: device,
            name,
            card,
            context,
            stream,
            maker,
            loaded: Mutex::default(),
            products: Mutex::default(),
            events: Mutex::default(),
        })
    }

    /// What to tell the user once, e.g. that compiled kernels could not be kept.
    pub fn notes(&self) -> Vec<String> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).notes.clone()
    }

    /// With the context current in this thread.
    fn call(&self, what: &str, ask: impl FnOnce(&Api) -> c_uint) -> std::result::Result<(), CudaError> {
        // SAFETY: the context lives as long as `self`.
        let code = match unsafe { (self.api.set_context)(self.context) } {
            0 => ask(&self.api),
            code => code,
        };
        let error = || self.api.describe(code);
        match code {
            0 => Ok(()),
            code if LOST.contains(&code) => Err(CudaError::Lost { what: what.into(), error: error() }),
            _ => Err(CudaError::Call { what: what.into(), error: error() }),
        }
    }

    /// Free and all bytes of the card's memory.
    pub fn memory(&self) -> std::result::Result<(u64, u64), CudaError> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two numbers.
        self.call("asking for the card's memory", |api| unsafe { (api.memory)(&mut free, &mut total) })?;
        Ok((free as u64, total as u64))
    }

    fn function(&self, kernel: &'static str) -> std::result::Result<Handle, CudaError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&function) = loaded.functions.get(kernel) {
            return Ok(function);
        }
        let family = FAMILIES.iter().find(|family| family.kernels().contains(&kernel));
        let family = family.ok_or_else(|| CudaError::NoKernel { name: kernel.into() })?;
        let module = match loaded.modules.get(family.name) {
            Some(&module) => module,
            None => self.load(family, &mut loaded)?,
        };
        let (mut function, name) = (null_mut(), CString::new(kernel).unwrap_or_default());
        let what = format!("finding the kernel {kernel}");
        // SAFETY: writes a handle; the module stays loaded.
        self.call(&what, |api| unsafe { (api.function)(&mut function, module, name.as_ptr()) })?;
        loaded.functions.insert(kernel, function);
        Ok(function)
    }

    fn load(&self, family: &'static Family, loaded: &mut Loaded) -> std::result::Result<Handle, CudaError> {
        let image = self.maker.make(family)?;
        loaded.notes.extend(image.note.clone());
        let origin = match image.origin {
            Origin::Embedded => "of this program",
            Origin::Compiled | Origin::Kept => "compiled here",
        };
        let (mut module, code) = (null_mut(), image.for_driver());
        let what = format!("loading the kernels {:?} {origin}", family.name);
        // SAFETY: PTX with its NUL, or machine code that carries its length.
        self.call(&what, |api| unsafe { (api.module)(&mut module, code.as_ptr().cast()) })?;
        loaded.modules.insert(family.name, module);
        Ok(module)
    }

    /// cuBLAS, opened at the first time it is asked for.
    fn products(&self) -> std::result::Result<MutexGuard<'_, Products>, CudaError> {
        // the context becomes current
        self.call("taking a card", |_| 0)?;
        let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        if let Products::Unasked = *products {
            *products = Products::Absent;
            if let Some(library) = found(Library::Cublas, Some(self.version)) {
                // SAFETY: the stream is the context's, and is ended after it.
                *products = Products::Open(unsafe { Blas::new(library?, self.stream) }?);
            }
        }
        Ok(products)
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, what: &str) -> std::result::Result<(), CudaError> {
        // SAFETY: the stream lives as long as `self`.
        self.call(what, |api| unsafe { (api.wait)(self.stream) })
    }
}

impl Device for Driver {
    fn describe(&self) -> String {
        format!("{}, compute capability {}.{}", self.name, self.card / 10, self.card % 10)
    }

    fn uuid(&self) -> Option<String> {
        let mut id = [0_u8; 16];
        // SAFETY: writes 16 bytes.
        self.call("asking for the card's UUID", |api| unsafe { (api.uuid)(id.as_mut_ptr(), self.index) }).ok()?;
        let part = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let parts = [&id[..4], &id[4..6], &id[6..8], &id[8..10], &id[10..]].map(part);
        Some(format!("GPU-{}", parts.join("-")))
    }

    fn room(&self) -> Option<u64> {
        self.memory().ok().map(|(free, _)| free)
    }

    fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut at = 0;
        let mut code = 0;
        // SAFETY: writes an address. The driver gives none for no bytes.
        let done = self.call("taking memory", |api| unsafe {
            code = (api.allocate)(&mut at, bytes.max(1));
            code
        });
        if code == OUT_OF_MEMORY {
            let (free, total) = self.memory()?;
            return Err(CudaError::Full { asked: bytes as u64, free, total }.into());
        }
        done?;
        Ok(at)
    }

    fn free(&self, at: u64, _bytes: usize) {
        // SAFETY: from `allocate`. On a lost card nothing can be done about an error.
        let _ = self.call("giving memory back", |api| unsafe { (api.free)(at) });
    }

    fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        // SAFETY: the memory is ours and large enough by the caller's word (`Memory` checks); it is waited for.
        self.call("copying to the card", |api| unsafe {
            (api.upload)(to, from.as_ptr().cast(), from.len(), self.stream)
        })?;
        Ok(self.wait("copying to the card")?)
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        // SAFETY: as above.
        self.call("copying from the card", |api| unsafe {
            (api.download)(to.as_mut_ptr().cast(), from, to.len(), self.stream)
        })?;
        Ok(self.wait("copying from the card")?)
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: as above.
        Ok(self.call("copying on the card", |api| unsafe { (api.copy)(to, from, bytes, self.stream) })?)
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<()> {
        // SAFETY: as above.
        Ok(self.call("clearing memory", |api| unsafe { (api.set)(at, 0, bytes, self.stream) })?)
    }

    fn launch(&self, launch: Launch<'_>) -> Result<()> {
        let function = self.function(launch.kernel)?;
        if launch.shared > PLAIN_SHARED {
            let what = format!("shared memory of {}", launch.kernel);
            // SAFETY: the function stays loaded.
            self.call(&what, |api| unsafe {
                (api.function_attribute)(function, FUNCTION_SHARED, launch.shared as c_int)
            })?;
        }
        let value = |arg: &Arg| match *arg {
            Arg::Pointer(at) => at,
            Arg::Int(x) => u64::from(x as u32),
            Arg::Float(x) => u64::from(x.to_bits()),
        };
        let mut values: Vec<u64> = launch.args.iter().map(value).collect();
        // The driver reads as many bytes of each as its parameter has: the low ones.
        let mut places: Vec<*mut c_void> = values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let ([x, y, z], [bx, by, bz]) = (launch.grid, launch.block);
        let (stream, shared) = (self.stream, launch.shared);
        // SAFETY: the arguments are copied before the call returns; their kinds are the kernel's (tested for each).
        Ok(self.call(&format!("the kernel {}", launch.kernel), |api| unsafe {
            (api.launch)(function, x, y, z, bx, by, bz, shared, stream, places.as_mut_ptr(), null_mut())
        })?)
    }

    fn multiprocessors(&self) -> usize {
        let mut count = 0;
        // SAFETY: writes a number.
        let asked = self.call("asking what a card can do", |api| unsafe {
            (api.attribute)(&mut count, ATTRIBUTE_MULTIPROCESSORS, self.index)
        });
        asked.map_or(1, |()| count.max(1) as usize)
    }

    /// A library that cannot be opened is told of and done without.
    fn has_products(&self) -> bool {
        match self.products().map(|products| matches!(*products, Products::Open(_))) {
            Ok(open) => open,
            Err(error) => {
                self.loaded.lock().unwrap_or_else(PoisonError::into_inner).notes.push(error.to_string());
                false
            }
        }
    }

    fn product(&self, gemm: Gemm) -> Result<bool> {
        match &*self.products()? {
            Products::Open(blas) => Ok(blas.product(&gemm).map(|()| true)?),
            Products::Unasked | Products::Absent => Ok(false),
        }
    }

    fn finish(&self) -> Result<()> {
        Ok(self.wait("waiting for the card")?)
    }

    fn begin_graph(&self) -> Result<()> {
        self.events().gathering = Some(Vec::new());
        // SAFETY: the stream lives as long as `self`.
        Ok(self.call("gathering launches", |api| unsafe { (api.begin_capture)(self.stream, CAPTURE_RELAXED) })?)
    }

    fn end_graph(&self) -> Result<Graph> {
        let events = self.events().gathering.take().unwrap_or_default();
        let (mut gathered, mut runnable) = (null_mut(), null_mut());
        // SAFETY: writes a handle; what was gathered is needed no longer than until the second call has read it.
        unsafe {
            self.call("gathering launches", |api| (api.end_capture)(self.stream, &mut gathered))?;
            let made = self.call("making a graph", |api| (api.instantiate)(&mut runnable, gathered, 0));
            self.call("making a graph", |api| (api.end_graph)(gathered))?;
            made?;
        }
        self.events().of_graphs.insert(runnable as u64, events);
        Ok(Graph(runnable as u64))
    }

    fn run_graph(&self, graph: Graph) -> Result<()> {
        // SAFETY: from `end_graph`, not dropped by the caller's word.
        Ok(self.call("a graph of kernels", |api| unsafe { (api.run_graph)(graph.0 as Handle, self.stream) })?)
    }

    fn drop_graph(&self, graph: Graph) {
        let events = self.events().of_graphs.remove(&graph.0).unwrap_or_default();
        // SAFETY: as above, and the events are its own. On a lost card nothing can be done about an error.
        let _ = self.call("giving a graph back", |api| unsafe {
            events.into_iter().for_each(|event| _ = (api.end_event)(event));
            (api.end_runnable)(graph.0 as Handle)
        });
    }

    fn mark(&self) -> Result<Mark> {
        let mut events = self.events();
        let mut event = null_mut();
        let to_graph = events.gathering.is_some();
        match if to_graph { None } else { events.free.pop() } {
            Some(free) => event = free,
            // SAFETY: writes a handle.
            None => self.call("making an event", |api| unsafe { (api.event)(&mut event, 0) })?,
        }
        let Events { used, gathering, .. } = &mut *events;
        gathering.as_mut().unwrap_or(used).push(event);
        // SAFETY: event and stream live.
        self.call("marking a time", |api| unsafe {
            match to_graph {
                true => (api.record_with)(event, self.stream, RECORD_EXTERNAL),
                false => (api.record)(event, self.stream),
            }
        })?;
        Ok(Mark(event as u64))
    }

    fn between(&self, from: Mark, to: Mark) -> Result<u64> {
        let (from, to) = (from.0 as Handle, to.0 as Handle);
        let mut ms = 0.0;
        // SAFETY: both live, since marks that were cleared are asked for no more, and have been recorded.
        self.call("waiting for an event", |api| unsafe { (api.wait_event)(to) })?;
        self.call("reading a time", |api| unsafe { (api.elapsed)(&mut ms, from, to) })?;
        Ok((f64::from(ms) * 1e6) as u64)
    }

    fn clear_marks(&self) {
        let Events { used, free, .. } = &mut *self.events();
        free.append(used);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let loaded = std::mem::take(&mut *self.loaded.lock().unwrap_or_else(PoisonError::into_inner));
        let Events { used, free, .. } = std::mem::take(&mut *self.events());
        let products = std::mem::take(&mut *self.products.lock().unwrap_or_else(PoisonError::into_inner));
        // SAFETY: all are ours and used no more. On a lost card nothing can be done about errors.
        let _ = self.call("leaving the card", |api| unsafe {
            drop(products);
            for event in used.into_iter().chain(free) {
                (api.end_event)(event);
            }
            for module in loaded.modules.into_values() {
                (api.end_module)(module);
            }
            (api.end_stream)(self.stream);
            (api.release_context)(self.index)
        });
    }
}
