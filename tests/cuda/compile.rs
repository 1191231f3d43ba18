//! Every family through NVRTC alone, to machine code: what only the assembler refuses (too much shared memory, an
//! instruction that a card lacks) fails here, too.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use attnscope::backend::cuda::nvrtc::{NvrtcError, Source, Target};
use attnscope::backend::cuda::source::{FAMILIES, HEADERS};

use super::wheel;

#[test]
fn every_family_compiles_for_every_card() {
    let Some(nvrtc) = wheel::nvrtc() else { return };
    for family in FAMILIES {
        for card in wheel::CARDS {
            for target in [Target::Ptx(card), Target::Cubin(card)] {
                let code = nvrtc.compile(family.source(), target).unwrap_or_else(|error| panic!("{error}"));
                match target {
                    Target::Ptx(_) => {
                        let ptx = String::from_utf8(code).expect("PTX is text");
                        assert!(ptx.contains(&format!(".target sm_{card}")), "{}: {target}", family.name);
                        for kernel in family.kernels() {
                            assert!(ptx.contains(&format!(".entry {kernel}(")), "{}: {kernel}", family.name);
                        }
                        assert_eq!(ptx.matches(".entry ").count(), family.kernels().len(), "{}", family.name);
                    }
                    Target::Cubin(_) => assert!(code.starts_with(b"\x7fELF"), "{}: {target}", family.name),
                }
            }
        }
    }
}

#[test]
fn every_file_is_a_family_and_every_kernel_has_a_name_of_its_own() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let files = fs::read_dir(folder).expect("kernels").map(|entry| entry.expect("an entry").path());
    let sources = files.filter(|path| path.extension().is_some_and(|end| end == "cu"));
    let on_disk: HashSet<String> =
        sources.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
    let registered: HashSet<String> = FAMILIES.iter().map(|family| family.name.to_owned()).collect();
    assert_eq!(registered, on_disk);
    let mut seen = HashSet::new();
    for family in FAMILIES {
        assert!(!family.kernels().is_empty(), "{} has no KERNEL(name)", family.name);
        for kernel in family.kernels() {
            assert!(seen.insert(kernel), "{kernel} is in two families");
        }
    }
}

#[test]
fn a_wrong_source_is_refused_with_the_compilers_log() {
    let Some(nvrtc) = wheel::nvrtc() else { return };
    let text = "#include \"scope.cuh\"\nKERNEL(wrong)(float *x) { x[0] = nowhere; }\n";
    let source = |text| Source { name: "wrong", text, headers: &HEADERS };
    let error = nvrtc.compile(source(text), Target::Ptx(80)).expect_err("it is wrong");
    let said = error.to_string();
    for word in
        ["cannot compile wrong for compute_80", "NVRTC_ERROR_COMPILATION", "wrong(2)", "\"nowhere\" is undefined"]
    {
        assert!(said.contains(word), "{word}: {said}");
    }
    let absent = nvrtc.compile(source("#include <cuda_fp16.h>\n"), Target::Ptx(80)).expect_err("there are no headers");
    assert!(absent.to_string().contains("cuda_fp16.h"), "{absent}");
    assert!(matches!(nvrtc.compile(source("\0"), Target::Ptx(80)), Err(NvrtcError::Nul { .. })));
    let unknown = nvrtc.compile(source(""), Target::Ptx(1)).expect_err("there is no such card");
    assert!(unknown.to_string().contains("compute_1"), "{unknown}");
}

/// More than 48 KB of static shared memory is PTX, but no machine code.
#[test]
fn the_assembler_is_asked_as_well() {
    let Some(nvrtc) = wheel::nvrtc() else { return };
    let text = "extern \"C\" __global__ void big(float *x) {\n__shared__ float all[20000];\nall[threadIdx.x] = x[0];\n\
                __syncthreads();\nx[threadIdx.x] = all[threadIdx.x ^ 1];\n}\n";
    let source = Source { name: "big", text, headers: &[] };
    assert!(nvrtc.compile(source, Target::Ptx(80)).is_ok());
    let error = nvrtc.compile(source, Target::Cubin(80)).expect_err("too much shared memory").to_string();
    assert!(error.contains("sm_80") && error.contains("shared"), "{error}");
}

/// What was opened by its path is what the loader, and so cudarc, then gets by name.
#[test]
fn cudarc_gets_the_library_that_was_found() {
    let Some(nvrtc) = wheel::nvrtc() else { return };
    // SAFETY: addresses are compared, nothing is called.
    unsafe {
        let named = libloading::Library::new(format!("libnvrtc.so.{}", nvrtc.library.found.version));
        let theirs = *named.expect("it is open already").get::<*const ()>("nvrtcVersion").expect("NVRTC");
        assert_eq!(nvrtc.library.function("nvrtcVersion"), Some(theirs));
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the version is asked only where the library is there, and writes two ints.
    unsafe {
        assert!(cudarc::nvrtc::sys::is_culib_present());
        cudarc::nvrtc::sys::nvrtcVersion(&mut major, &mut minor).result().expect("a version");
    }
    assert!(major >= 12, "{major}.{minor}");
}
