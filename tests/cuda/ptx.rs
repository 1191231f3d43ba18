//! The PTX inside the program belongs to the kernels beside it. `ATTNSCOPE_WRITE_PTX=1` makes it anew.

use std::env;
use std::fs;
use std::path::Path;

use attnscope::backend::cuda::embedded::{self, COMMAND, PACKAGE, PTX, TARGET};
use attnscope::backend::cuda::source::{FAMILIES, Family};

use super::wheel;

/// What the file of a family should hold now, by the NVRTC that makes these files.
#[test]
fn the_ptx_is_what_its_source_compiles_to() {
    let writing = env::var_os("ATTNSCOPE_WRITE_PTX").is_some();
    let nvrtc = wheel::of_wheel("nvidia-cuda-nvrtc-cu12", PACKAGE);
    assert!(!writing || nvrtc.is_some(), "without NVRTC {PACKAGE} no PTX can be made");
    let Some(nvrtc) = nvrtc else { return };
    assert_eq!(nvrtc.version, embedded::CUDA);
    for family in FAMILIES {
        let code = nvrtc.compile(family.source(), TARGET).unwrap_or_else(|error| panic!("{error}"));
        let file = embedded::file(family, &String::from_utf8(code).expect("PTX is text"));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("kernels/ptx/{}.ptx", family.name));
        if writing {
            fs::write(&path, &file).expect("the file can be written");
        } else {
            assert!(file == family.ptx, "{} is not what {} compiles to; run {COMMAND}", path.display(), family.name);
        }
    }
}

/// Without any NVRTC: the marks in the files, against the sources in this program.
#[test]
fn the_ptx_bears_the_marks_of_its_source() {
    if env::var_os("ATTNSCOPE_WRITE_PTX").is_some() {
        return;
    }
    for family in FAMILIES {
        let ptx = embedded::ptx(family).unwrap_or_else(|error| panic!("{error}; run {COMMAND}"));
        assert_eq!(embedded::version(ptx), Some(PTX), "{}", family.name);
        assert!(ptx.contains(".target sm_80"), "{}", family.name);
        for kernel in family.kernels() {
            assert!(ptx.contains(&format!(".entry {kernel}(")), "{}: {kernel}", family.name);
        }
    }
}

#[test]
fn ptx_of_another_source_and_changed_ptx_are_refused() {
    let ptx = ".version 8.1\n.target sm_80\n";
    let bare = Family { name: "f", text: "KERNEL(k)() {}", ptx: "" };
    let whole: &'static str = embedded::file(&bare, ptx).leak();
    let with = |text, ptx| Family { name: "f", text, ptx };
    assert_eq!(embedded::ptx(&with(bare.text, whole)).expect("its own"), ptx);
    let problem = |family: &Family| embedded::ptx(family).expect_err("not its own").to_string();
    assert!(problem(&bare).contains("there is none yet"));
    assert!(problem(&with("KERNEL(k)() { }", whole)).contains("made of another text"));
    assert!(problem(&with(bare.text, whole.replace("sm_80", "sm_90").leak())).contains("changed by hand"));
    assert!(problem(&with(bare.text, whole.replace(PACKAGE, "13.0.88").leak())).contains("another NVRTC"));
    assert_ne!(bare.sha256(), with("", whole).sha256());
}
