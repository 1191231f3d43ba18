//! The Hugging Face hub through hf-hub, in its own cache layout, so that what other programs fetched is found.
//! `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN` and a saved token are honoured.
//!
//! hf-hub knows no timeouts, so its calls run on a thread of their own and are given up on from here. A download
//! that was given up on stays as a `.part` file, from which the next one goes on.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use hf_hub::api::Progress as HubProgress;
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::{FetchError, Progress};
use crate::model::catalog::Entry;
use crate::model::error::Quoted;
use crate::model::locate::{HubSpec, is_plain};
use crate::model::source::sha256_of;

/// No answer to the first request after this long: out of reach.
const FIRST_ANSWER: Duration = Duration::from_secs(8);
/// No byte for this long in a running download: broken off.
const STALL: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Files of a folder model, beside its weights.
const COMPANIONS: [&str; 5] =
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// The file of a catalog entry, its sha256 checked against the entry's.
pub(super) fn fetch(
    entry: &Entry,
    repo: &str,
    revision: &str,
    file: &str,
    progress: &mut dyn Progress,
) -> Result<PathBuf, FetchError> {
    let repo = Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned());
    let path = get(&repo, file, 0, progress)?;
    progress.note(&format!("checking the sha256 of {file}"));
    verify(&path, &entry.sha256)?;
    Ok(path)
}

/// A whole repository: one GGUF file, or the folder with config, tokenizer and safetensors.
pub(super) fn repository(spec: &HubSpec, progress: &mut dyn Progress) -> Result<PathBuf, FetchError> {
    let repo = Repo::model(spec.repo.clone());
    if let Some(file) = &spec.file {
        return get_verified(&repo, file, &mut 0, progress);
    }
    let listed = list(&repo, progress)?;
    let files = choose(&spec.repo, &listed)?;
    let mut arrived = 0;
    let mut first = None;
    for file in &files {
        let path = get_verified(&repo, file, &mut arrived, progress)?;
        first.get_or_insert(path);
    }
    let missing = || FetchError::Repository { repo: spec.repo.clone(), problem: "it is empty".into() };
    let first = first.ok_or_else(missing)?;
    if is_gguf(&files[0]) { Ok(first) } else { first.parent().map(Path::to_owned).ok_or_else(missing) }
}

/// The files that make a model: safetensors with what belongs to them, or else the only GGUF file.
fn choose(repo: &str, listed: &[String]) -> Result<Vec<String>, FetchError> {
    let wrong = |problem: String| FetchError::Repository { repo: repo.to_owned(), problem };
    // Names lead to paths in the cache: only plain ones at the top are taken.
    let files: Vec<&String> = listed.iter().filter(|file| is_plain(file)).collect();
    let has = |name: &str| files.iter().any(|file| *file == name);
    let weights = |file: &&&String| {
        if has("model.safetensors.index.json") {
            **file == "model.safetensors.index.json" || file.starts_with("model-") && file.ends_with(".safetensors")
        } else {
            **file == "model.safetensors"
        }
    };
    let weights: Vec<String> = files.iter().filter(weights).map(|file| (*file).clone()).collect();
    if has("config.json") && !weights.is_empty() {
        let companions = COMPANIONS.into_iter().filter(|name| has(name)).map(str::to_owned);
        return Ok(companions.chain(weights).collect());
    }
    let ggufs: Vec<&str> = files.iter().filter(|file| is_gguf(file)).map(|file| file.as_str()).collect();
    match ggufs.as_slice() {
        [one] => Ok(vec![(*one).to_owned()]),
        [] => Err(wrong("it holds neither safetensors with a config.json nor a .gguf file".into())),
        many => Err(wrong(format!("it holds {} .gguf files: {}", many.len(), many.join(", ")))),
    }
}

fn is_gguf(file: &str) -> bool {
    file.ends_with(".gguf")
}

/// One file, and its sha256 where the hub tells it: large files are stored under it.
fn get_verified(
    repo: &Repo,
    file: &str,
    arrived: &mut u64,
    progress: &mut dyn Progress,
) -> Result<PathBuf, FetchError> {
    let path = get(repo, file, *arrived, progress)?;
    let blob = path.canonicalize().map_err(|e| FetchError::disk(&path, e))?;
    *arrived += std::fs::metadata(&blob).map_err(|e| FetchError::disk(&blob, e))?.len();
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    if name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        progress.note(&format!("checking the sha256 of {file}"));
        verify(&path, &name)?;
    }
    Ok(path)
}

/// A file that fails is removed, so that the next attempt fetches it anew.
fn verify(path: &Path, wanted: &str) -> Result<(), FetchError> {
    let failed = |e| FetchError::disk(path, e);
    let found = sha256_of(path).map_err(failed)?;
    if found == wanted {
        return Ok(());
    }
    let blob = path.canonicalize().map_err(failed)?;
    std::fs::remove_file(&blob).map_err(failed)?;
    if blob != path {
        std::fs::remove_file(path).map_err(failed)?;
    }
    Err(FetchError::Checksum { path: blob, found, wanted: wanted.to_owned() })
}

enum Event<T> {
    Begun,
    Bytes(u64),
    Done(Result<T, String>),
}

struct Reporter<T>(mpsc::Sender<Event<T>>);

impl<T> HubProgress for Reporter<T> {
    // A receiver that is gone has given up; the download ends with the program or by itself.
    fn init(&mut self, _: usize, _: &str) {
        let _ = self.0.send(Event::Begun);
    }

    fn update(&mut self, size: usize) {
        let _ = self.0.send(Event::Bytes(size as u64));
    }

    fn finish(&mut self) {}
}

/// A file from the cache, or fetched. `before` bytes came with earlier files.
fn get(repo: &Repo, file: &str, before: u64, progress: &mut dyn Progress) -> Result<PathBuf, FetchError> {
    if let Some(path) = cache().repo(repo.clone()).get(file) {
        return Ok(path);
    }
    let file = file.to_owned();
    in_background(repo, before, progress, move |repo, sender| {
        repo.download_with_progress(&file, Reporter(sender)).map_err(|error| error.to_string())
    })
}

fn list(repo: &Repo, progress: &mut dyn Progress) -> Result<Vec<String>, FetchError> {
    in_background(repo, 0, progress, |repo, _| {
        let info = repo.info().map_err(|error| error.to_string())?;
        Ok(info.siblings.into_iter().map(|file| file.rfilename).collect())
    })
}

/// Run a hub call on its own thread and wait for it, but not for ever.
fn in_background<T: Send + 'static>(
    repo: &Repo,
    before: u64,
    progress: &mut dyn Progress,
    call: impl FnOnce(ApiRepo, mpsc::Sender<Event<T>>) -> Result<T, String> + Send + 'static,
) -> Result<T, FetchError> {
    let what = format!("Hugging Face ({})", repo.url());
    let unreachable = |problem: &str| FetchError::Unreachable { what: what.clone(), problem: Quoted::new(problem) };
    if std::env::var("HF_HUB_OFFLINE").is_ok_and(|value| !matches!(value.as_str(), "" | "0")) {
        return Err(unreachable("HF_HUB_OFFLINE is set"));
    }
    let api = builder().build().map_err(|error| unreachable(&error.to_string()))?.repo(repo.clone());
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let done = call(api, sender.clone());
        let _ = sender.send(Event::Done(done));
    });
    let (mut last, mut patience, mut arrived) = (Instant::now(), FIRST_ANSWER, 0);
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(Event::Done(Ok(value))) => return Ok(value),
            Ok(Event::Done(Err(problem))) => return Err(refused(&what, &problem)),
            // Said twice, and again at every retry: counting starts over.
            Ok(Event::Begun) => (last, patience, arrived) = (Instant::now(), STALL, 0),
            Ok(Event::Bytes(count)) => {
                last = Instant::now();
                arrived += count;
                progress.advance(before + arrived);
            }
            Err(RecvTimeoutError::Disconnected) => return Err(unreachable("the download broke off")),
            Err(RecvTimeoutError::Timeout) if last.elapsed() > patience => {
                return Err(unreachable(&format!("no answer for {} seconds", patience.as_secs())));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if progress.cancelled() {
            return Err(FetchError::Cancelled);
        }
    }
}

fn refused(what: &str, problem: &str) -> FetchError {
    if problem.contains("No space left on device") {
        return FetchError::DiskFull { path: cache().path().clone() };
    }
    FetchError::Unreachable { what: what.to_owned(), problem: Quoted::new(problem) }
}

fn cache() -> Cache {
    match std::env::var_os("HF_HUB_CACHE").filter(|path| !path.is_empty()) {
        Some(path) => Cache::new(path.into()),
        None => Cache::from_env(),
    }
}

fn builder() -> ApiBuilder {
    let builder = ApiBuilder::from_env().with_progress(false).with_cache_dir(cache().path().clone());
    match std::env::var("HF_TOKEN") {
        Ok(token) if !token.is_empty() => builder.with_token(Some(token)),
        _ => builder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(files: &[&str]) -> Result<Vec<String>, FetchError> {
        choose("o/n", &files.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_files_of_a_model_are_chosen() {
        let folder = chosen(&["README.md", "config.json", "model.safetensors", "tokenizer.json", "a.gguf"]).unwrap();
        assert_eq!(folder, ["config.json", "tokenizer.json", "model.safetensors"]);
        let sharded = chosen(&[
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "consolidated.safetensors",
        ]);
        assert_eq!(sharded.unwrap().len(), 4);
        assert_eq!(chosen(&["README.md", "m.gguf"]).unwrap(), ["m.gguf"]);
        assert!(chosen(&["a.gguf", "b.gguf"]).unwrap_err().to_string().contains("2 .gguf files: a.gguf, b.gguf"));
        assert!(chosen(&["config.json", "pytorch_model.bin"]).is_err());
        assert!(chosen(&["../../x.gguf"]).is_err());
    }

    #[test]
    fn a_file_with_the_wrong_sha256_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        std::fs::write(&path, b"abc").unwrap();
        let right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(verify(&path, right).is_ok());
        assert!(matches!(verify(&path, &"0".repeat(64)), Err(FetchError::Checksum { found, .. }) if found == right));
        assert!(!path.exists());
    }
}
