//! What is written is what is read.

use std::sync::Arc;

use super::super::reader::Entry;
use super::super::record::{Fork, LaneHead};
use super::super::standing::Standing;
use super::super::writer::Writer;
use super::super::{Trace, TraceError, VERSION};
use super::*;
use crate::engine::Sampler;

#[test]
fn everything_comes_back_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.trace");
    record(&path);
    let mut trace = Trace::open(&path).unwrap();
    assert_eq!((trace.header.model.clone(), trace.tail), (model(), None));
    let steps = [0, 1, 2, 3].map(Entry::Frame);
    let mut expected = vec![Entry::Prompt(PROMPT.into())];
    expected.extend(steps);
    expected.extend([Entry::Rewound(1), Entry::Forked(Fork { lane: 2, from: 1 }), Entry::Frame(2)]);
    assert_eq!(trace.entries, expected);
    let read = frames(&mut trace).unwrap();
    for (read, step) in read.iter().zip([0, 1, 2, 3, 2]) {
        assert_eq!(bytes(read), bytes(&frame(step)));
    }
    // What two lanes share in memory they share again.
    assert!(Arc::ptr_eq(&read[0].lanes[0].residual, &read[0].lanes[1].residual));
    assert!(!Arc::ptr_eq(&read[0].lanes[0].kept, &read[0].lanes[1].kept));
    // Prompt, next, candidates and lens are spelled; nothing else is known.
    let spell = trace.speller();
    for id in [5, 7, 11, 14, 40, 43] {
        assert_eq!((spell.0)(id), format!(" w{id}"));
    }
    assert_eq!((spell.0)(99), "⟨99⟩");
}

#[test]
fn what_was_gone_back_over_does_not_stand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.trace");
    record(&path);
    let standing = Standing::of(&Trace::open(&path).unwrap());
    assert_eq!(standing.frames, [(0, 1), (1, 2), (2, 7)]);
}

#[test]
fn an_existing_file_is_kept_unless_forced_and_until_there_is_something_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.trace");
    record(&path);
    let before = std::fs::read(&path).unwrap();
    assert!(matches!(Writer::create(&path, false), Err(TraceError::Exists { .. })));
    drop(Writer::create(&path, true).unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let mut writer = Writer::create(&path, true).unwrap();
    writer.header(&Header::new(model(), &[])).unwrap();
    assert!(std::fs::read(&path).unwrap().len() < before.len());
    // A run that never began leaves no new file.
    let other = folder.path().join("b.trace");
    drop(Writer::create(&other, false).unwrap());
    assert!(!other.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let mut writer = Writer::create(Path::new("/dev/full"), true).unwrap();
    let error = writer.header(&Header::new(model(), &[])).unwrap_err();
    assert!(matches!(error, TraceError::Io { .. }), "{error}");
}

/// The bytes of a frame are the format. If this fails, a frame's fields have changed: raise `wire::VERSION`, so that
/// older files are refused by name, and put the new sum here.
#[test]
fn the_version_names_the_layout() {
    let header = Header::new(model(), &[]);
    let lane = LaneHead { spec: "full".into(), sampler: Sampler::default() };
    let contents = postcard::to_stdvec(&(frame(1), header.model, lane)).unwrap();
    assert_eq!((VERSION, crc32fast::hash(&contents)), (5, 3253192271));
}
