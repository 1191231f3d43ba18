//! The Hugging Face hub, played by a server of this test: whole repositories, resuming, checksums, and no answer.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use attnscope::model::fetch::{FetchError, Progress, obtain};
use attnscope::model::locate::resolve;
use sha2::{Digest, Sha256};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Files by name, with the etag that the hub would name.
#[derive(Default)]
struct Hub {
    files: Mutex<HashMap<String, (Vec<u8>, String)>>,
    /// Ranges asked for, and the tokens that came along.
    asked: Mutex<Vec<(String, String)>>,
}

impl Hub {
    fn put(&self, name: &str, bytes: &[u8], etag: &str) {
        self.files.lock().unwrap().insert(name.into(), (bytes.to_vec(), etag.into()));
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)) else { return };
        let header = |name: &str| {
            let found = lines.iter().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned));
            found.unwrap_or_default().trim().to_owned()
        };
        let files = self.files.lock().unwrap();
        let (status, extra, body) = if path.starts_with("/api/") {
            let names: Vec<String> = files.keys().map(|name| format!("{{\"rfilename\":\"{name}\"}}")).collect();
            let json = format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[{}]}}", names.join(","));
            ("200 OK", String::new(), json.into_bytes())
        } else if let Some((bytes, etag)) = path.split_once("/resolve/main/").and_then(|(_, name)| files.get(name)) {
            let range = header("range: bytes=");
            let (from, to) = range.split_once('-').unwrap();
            let from: usize = from.parse().unwrap();
            let to = to.parse().map_or(bytes.len() - 1, |to: usize| to);
            self.asked.lock().unwrap().push((range.clone(), header("authorization:")));
            let total = bytes.len();
            let extra =
                format!("etag: \"{etag}\"\r\nx-repo-commit: {COMMIT}\r\ncontent-range: bytes {from}-{to}/{total}\r\n");
            ("206 Partial Content", extra, bytes[from..=to].to_vec())
        } else {
            ("404 Not Found", String::new(), Vec::new())
        };
        let head = format!("HTTP/1.1 {status}\r\n{extra}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        // A client that hangs up is its own business.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
    }
}

struct Watcher(Vec<u64>);

impl Progress for Watcher {
    fn begin(&mut self, _: &str, _: Option<u64>) {}
    fn advance(&mut self, bytes: u64) {
        self.0.push(bytes);
    }
    fn note(&mut self, _: &str) {}
}

fn get(spec: &str) -> Result<std::path::PathBuf, FetchError> {
    obtain(&resolve(spec).unwrap(), &mut Watcher(Vec::new()))
}

fn set(key: &str, value: &Path) {
    // SAFETY: this program has one test, and sets variables only while no other thread reads them.
    unsafe { std::env::set_var(key, value) }
}

#[test]
fn repositories_files_and_failures() {
    let home = tempfile::tempdir().unwrap();
    for key in ["HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        // SAFETY: as above.
        unsafe { std::env::remove_var(key) }
    }
    set("HF_HOME", home.path());
    fs::write(home.path().join("token"), "secret\n").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set("HF_ENDPOINT", Path::new(&format!("http://{}", listener.local_addr().unwrap())));
    let hub = Arc::new(Hub::default());
    let server = hub.clone();
    thread::spawn(move || listener.incoming().for_each(|stream| server.answer(stream.unwrap())));

    // A folder: what belongs to the model and nothing else.
    let weights = vec![7u8; 300_000];
    hub.put("config.json", b"{}", "c0ffee");
    hub.put("model.safetensors", &weights, &sha256(&weights));
    hub.put("README.md", b"#", "beef");
    let folder = get("hf:o/n").unwrap();
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors"]);
    assert!(folder.ends_with(format!("hub/models--o--n/snapshots/{COMMIT}")));
    assert!(hub.asked.lock().unwrap().iter().all(|(_, token)| token.eq_ignore_ascii_case("bearer secret")));

    // One file, going on from a part of it that lies in the cache.
    let gguf: Vec<u8> = (0..50_000u32).flat_map(u32::to_le_bytes).collect();
    hub.put("q/m.gguf", &gguf, &sha256(&gguf));
    let blobs = home.path().join("hub/models--o--m/blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(format!("{}.part", sha256(&gguf))), &gguf[..120_000]).unwrap();
    let path = get("hf:o/m/q/m.gguf").unwrap();
    assert_eq!(fs::read(&path).unwrap(), gguf);
    assert_eq!(hub.asked.lock().unwrap().last().unwrap().0, "120000-");
    let before = hub.asked.lock().unwrap().len();
    assert_eq!((get("hf:o/m/q/m.gguf").unwrap(), hub.asked.lock().unwrap().len()), (path, before));

    // Bytes that do not match the name that the hub gives them are removed.
    hub.put("bad.gguf", b"GGUF", &sha256(b"other"));
    assert!(matches!(get("hf:o/bad/bad.gguf"), Err(FetchError::Checksum { .. })));
    assert!(fs::read_dir(home.path().join("hub/models--o--bad/blobs")).unwrap().all(|e| {
        let name = e.unwrap().file_name().into_string().unwrap();
        name.ends_with(".lock")
    }));
    hub.put("bad.gguf", b"GGUF", &sha256(b"GGUF"));
    assert!(get("hf:o/bad/bad.gguf").is_ok());

    // Nothing there; nobody there; somebody who says nothing.
    assert!(matches!(get("hf:o/n/absent.gguf"), Err(FetchError::Unreachable { .. })));
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    set("HF_ENDPOINT", Path::new(&format!("http://{}", silent.local_addr().unwrap())));
    let started = Instant::now();
    let error = get("hf:o/silent/m.gguf").unwrap_err().to_string();
    assert!(error.contains("no answer for 8 seconds") && started.elapsed() < Duration::from_secs(12), "{error}");
    set("HF_ENDPOINT", Path::new("http://127.0.0.1:1"));
    assert!(matches!(get("hf:o/nobody/m.gguf"), Err(FetchError::Unreachable { .. })));
    set("HF_HUB_OFFLINE", Path::new("1"));
    assert!(get("hf:o/offline").unwrap_err().to_string().contains("HF_HUB_OFFLINE is set"));
}
