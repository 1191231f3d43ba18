//! Compiled kernels on disk: found again, refused when damaged, and not needed.

use std::fs;
use std::path::{Path, PathBuf};

use attnscope::backend::cuda::embedded;
use attnscope::backend::cuda::image::{Image, Maker, Origin, Plan};
use attnscope::backend::cuda::nvrtc::Target;
use attnscope::backend::cuda::source::{FAMILIES, Family};
use attnscope::backend::cuda::store::{Key, Size, Store};
use attnscope::backend::cuda::version::Version;

use super::wheel;

fn key(source: &str) -> Key {
    Key { source: source.into(), target: Target::Ptx(90), nvrtc: Version::new(13, 0) }
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let file = files.next().expect("a file");
    assert!(files.next().is_none(), "nothing unfinished is left");
    file
}

#[test]
fn what_was_kept_is_found_by_source_target_and_compiler() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().join("new/kernels"));
    assert_eq!((store.get(&key("a")), store.size()), (None, Size { entries: 0, bytes: 0 }));
    let code = b".version 9.0\n\0\xff\n";
    store.put(&key("a"), code).unwrap();
    assert_eq!(store.get(&key("a")).as_deref(), Some(&code[..]));
    let others = [
        key("b"),
        Key { target: Target::Ptx(80), ..key("a") },
        Key { target: Target::Cubin(90), ..key("a") },
        Key { nvrtc: Version::new(12, 8), ..key("a") },
    ];
    assert!(others.iter().all(|other| store.get(other).is_none()));
    store.put(&key("a"), b"newer").unwrap();
    assert_eq!(store.get(&key("a")).as_deref(), Some(&b"newer"[..]));
    let size = fs::metadata(only_file(store.folder())).unwrap().len();
    assert_eq!(store.size(), Size { entries: 1, bytes: size });
}

#[test]
fn damaged_cut_and_renamed_entries_are_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().to_owned());
    store.put(&key("a"), b"code of a kernel").unwrap();
    let path = only_file(folder.path());
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).unwrap();
        assert_eq!(store.get(&key("a")), None, "byte {at}");
        fs::write(&path, &good[..at]).unwrap();
        assert_eq!(store.get(&key("a")), None, "the first {at} bytes");
    }
    fs::write(&path, &good).unwrap();
    assert!(store.get(&key("a")).is_some());
    let name = path.file_name().unwrap().to_str().unwrap().replacen('a', "b", 1);
    fs::rename(&path, folder.path().join(name)).unwrap();
    assert_eq!(store.get(&key("b")), None);
}

#[test]
fn a_family_is_compiled_once_and_again_when_the_entry_is_damaged() {
    let Some(nvrtc) = wheel::nvrtc() else { return };
    let driver = nvrtc.version;
    let folder = tempfile::tempdir().unwrap();
    let maker = Maker::new(Some(nvrtc), Some(Store::at(folder.path().to_owned())), driver, 90).expect("a maker");
    assert_eq!(*maker.plan(), Plan::Compile(Target::Ptx(90)));
    let family = &FAMILIES[0];
    let made = |maker: &Maker| maker.make(family).expect("an image");
    let first = made(&maker);
    assert_eq!((first.origin, first.note.as_ref()), (Origin::Compiled, None));
    let second = made(&maker);
    assert_eq!((second.origin, second.code), (Origin::Kept, first.code.clone()));
    fs::write(only_file(folder.path()), "rubbish").unwrap();
    let third = made(&maker);
    assert_eq!((third.origin, third.code), (Origin::Compiled, first.code));
    assert_eq!(made(&maker).origin, Origin::Kept);
}

#[test]
fn a_folder_that_cannot_be_written_is_told_and_no_error() {
    let Some(nvrtc) = wheel::nvrtc() else { return };
    let driver = nvrtc.version;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let store = Store::at(file.join("kernels"));
    let maker = Maker::new(Some(nvrtc), Some(store), driver, 80).expect("a maker");
    for _ in 0..2 {
        let image = maker.make(&FAMILIES[0]).expect("an image");
        assert_eq!(image.origin, Origin::Compiled);
        assert!(image.note.expect("a note").contains("cannot be kept in"), "where");
    }
}

#[test]
fn without_nvrtc_the_embedded_ptx_is_taken() {
    let ptx = ".version 8.1\n";
    let bare = Family { name: "f", text: "KERNEL(k)() {}", ptx: "" };
    let family = Family { ptx: embedded::file(&bare, ptx).leak(), ..bare };
    let maker = Maker::new(None, None, Version::new(12, 2), 90).expect("a maker");
    let image = maker.make(&family).expect("an image");
    assert_eq!(
        (image.code.as_slice(), image.target, image.origin),
        (ptx.as_bytes(), Target::Ptx(80), Origin::Embedded)
    );
    assert!(maker.make(&bare).is_err());
    let code = b"\x7fELF".to_vec();
    assert_eq!(Image { code: code.clone(), target: Target::Cubin(90), ..image.clone() }.for_driver(), code);
    assert_eq!(image.for_driver(), b".version 8.1\n\0");
}
