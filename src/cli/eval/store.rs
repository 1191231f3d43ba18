//! Results, and the file that they are kept in: a line of JSON each, written as soon as it is there.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use miette::Result;

use super::record::{Cell, Key};
use crate::cli::exit::{Io, Usage};

/// Longer lines are no results.
const LONGEST_LINE: u64 = 1 << 20;

/// All results that are known.
#[derive(Debug, Default)]
pub struct Store {
    file: Option<(PathBuf, File)>,
    cells: HashMap<Key, Cell>,
}

impl Store {
    /// In memory only.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the results in `path`, which need not exist. A last line without an end was being written when a run was
    /// killed: it is cut off. Fails where the file holds anything else than results.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("open {path:?}");
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(|source| Io { doing: doing(), source })?;
        let mut cells = HashMap::new();
        let mut reader = BufReader::new(&mut file);
        let (mut line, mut number, mut end) = (Vec::new(), 0, 0);
        loop {
            line.clear();
            let limited = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line);
            let length = limited.map_err(Io::while_(format!("read {path:?}")))?;
            number += 1;
            if length == 0 {
                break;
            }
            let wrong = |what: &str| {
                let help = "give a file that `attnscope eval --out` wrote, or one that does not exist yet";
                Usage::new(format!("line {number} of {path:?} is no result of eval: {what}"), help)
            };
            if line.last() != Some(&b'\n') {
                if length as u64 == LONGEST_LINE {
                    return Err(wrong("it is too long").into());
                }
                // Anything else but the beginning of a result is not ours to cut off.
                if !BEGINNING.starts_with(&line[..line.len().min(BEGINNING.len())]) {
                    return Err(wrong("it does not begin like one").into());
                }
                break;
            }
            end += length as u64;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let cell: Cell = serde_json::from_slice(&line).map_err(|e| wrong(&e.to_string()))?;
            cells.insert(cell.key.clone(), cell);
        }
        file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0))).map_err(Io::while_(format!("write {path:?}")))?;
        Ok(Self { file: Some((path.to_owned(), file)), cells })
    }

    pub fn get(&self, key: &Key) -> Option<&Cell> {
        self.cells.get(key)
    }

    /// Adds results and writes them at once.
    pub fn add(&mut self, cells: Vec<Cell>) -> Result<()> {
        if let Some((path, file)) = &mut self.file {
            let mut lines = Vec::new();
            for cell in &cells {
                serde_json::to_writer(&mut lines, cell)
                    .map_err(|e| Io { doing: "write a result".into(), source: e.into() })?;
                lines.push(b'\n');
            }
            file.write_all(&lines).map_err(Io::while_(format!("write {path:?}")))?;
        }
        self.cells.extend(cells.into_iter().map(|cell| (cell.key.clone(), cell)));
        Ok(())
    }
}

/// How every line begins.
const BEGINNING: &[u8] = b"{\"protocol\":";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::eval::record::{Asked, Mode, Outcome};

    fn cell(seed: u64) -> Cell {
        let key = Key {
            protocol: 1,
            model_sha256: "abc".into(),
            precision: "native".into(),
            kv_type: "f16".into(),
            question: Mode::Hidden,
            task: "needle".into(),
            length: 512,
            depth: Some(25),
            seed,
            text: None,
            spec: "snapkv@25%".into(),
        };
        let asks = vec![Asked { found: Some(true), nll: Some(0.1 + seed as f32 / 7.0), span_kept: Some(1.0 / 3.0) }];
        Cell { key, context_tokens: 510, result: Outcome { asks, kept: 0.25, kv_share: 0.25 } }
    }

    fn written(folder: &tempfile::TempDir, count: u64) -> PathBuf {
        let path = folder.path().join("results.jsonl");
        let mut store = Store::open(&path).unwrap();
        (0..count).for_each(|seed| store.add(vec![cell(seed)]).unwrap());
        path
    }

    #[test]
    fn results_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(&folder, 20);
        let store = Store::open(&path).unwrap();
        (0..20).for_each(|seed| assert_eq!(store.get(&cell(seed).key), Some(&cell(seed))));
        assert_eq!(store.get(&Key { protocol: 2, ..cell(0).key }), None);
        let text = std::fs::read(&path).unwrap();
        assert!(text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).all(|l| l.starts_with(BEGINNING)));
    }

    #[test]
    fn a_run_killed_while_writing_loses_one_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(&folder, 3);
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..60 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let mut store = Store::open(&path).unwrap();
            assert!(store.get(&cell(1).key).is_some() && store.get(&cell(2).key).is_none());
            store.add(vec![cell(2)]).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn other_files_are_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other");
        for text in ["important notes", "important notes\n", "{\"a\": 1}\n", "\0\0\n", "{\"protocol\":1}\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(Store::open(&path).unwrap_err().to_string().contains("line 1"), "{text}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
