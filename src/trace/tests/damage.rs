//! Files that were cut off, changed, or made to deceive.

use std::sync::Arc;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use std::io::Write;

use super::super::packed::Packed;
use super::super::wire::{self, Codec, HEAD, Head, Kind, PREAMBLE};
use super::super::{Trace, TraceError};
use super::*;

fn recorded() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.trace");
    record(&path);
    std::fs::read(&path).unwrap()
}

/// Opens `bytes` and reads all frames: how many, and whether the end is missing.
fn read(bytes: &[u8]) -> Result<(usize, bool), TraceError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.trace");
    std::fs::write(&path, bytes).unwrap();
    let mut trace = Trace::open(&path)?;
    let tail = trace.tail.is_some();
    frames(&mut trace).map(|frames| (frames.len(), tail))
}

#[test]
fn a_file_cut_off_anywhere_opens_up_to_there() {
    let whole = recorded();
    assert_eq!(read(&whole).unwrap(), (5, false));
    let mut seen = Vec::new();
    for length in 0..whole.len() {
        match read(&whole[..length]) {
            Ok((frames, _)) => seen.push(frames),
            Err(TraceError::Foreign { .. }) => assert!(length < PREAMBLE, "{length}"),
            Err(TraceError::Empty { .. }) => assert!(seen.is_empty(), "{length}"),
            Err(error) => panic!("{length}: {error}"),
        }
    }
    assert!(seen.is_sorted() && seen.first() == Some(&0) && seen.last() == Some(&4), "{seen:?}");
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let whole = recorded();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let error = read(&bytes).expect_err(&format!("byte {at}"));
        match error {
            TraceError::Foreign { .. } => assert!(at < 8),
            TraceError::Damaged { offset, .. } => assert!(offset <= at as u64, "byte {at}: {error}"),
            _ => panic!("byte {at}: {error}"),
        }
    }
}

#[test]
fn other_files_and_newer_versions_are_told_apart() {
    let mut newer = wire::preamble();
    newer[8] = 77;
    let crc = crc32fast::hash(&newer[..12]);
    newer[12..].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(read(&newer), Err(TraceError::Version { version: 77, .. })));
    for other in [&b""[..], b"GGUF", b"this is no trace file at all, but some text"] {
        assert!(matches!(read(other), Err(TraceError::Foreign { .. })));
    }
}

/// A record with right sums.
fn forged(kind: Kind, codec: Codec, step: u32, plain: u32, stored: &[u8], claims: u32) -> Vec<u8> {
    let head = Head { kind, codec, step, stored: claims, plain, crc: crc32fast::hash(stored) };
    [&head.bytes()[..], stored].concat()
}

fn plain(kind: Kind, step: u32, contents: &[u8]) -> Vec<u8> {
    let length = contents.len() as u32;
    forged(kind, Codec::Plain, step, length, contents, length)
}

/// Preamble, header and prompt, then `records`.
fn begun(model: ModelInfo, records: &[u8]) -> Vec<u8> {
    let header = plain(Kind::Header, 0, &postcard::to_stdvec(&Header::new(model, &[])).unwrap());
    let prompt = plain(Kind::Prompt, 0, &postcard::to_stdvec(&PROMPT[..]).unwrap());
    [&wire::preamble()[..], &header, &prompt, records].concat()
}

#[test]
fn lengths_that_lie_cost_nothing() {
    let says = |records: &[u8]| read(&begun(model(), records));
    // More than the file holds is a missing end, whatever the number.
    assert_eq!(says(&forged(Kind::Frame, Codec::Deflate, 0, 1 << 31, b"xy", u32::MAX)).unwrap(), (0, true));
    // Gigabytes promised from a few bytes, or from many that do not stop.
    assert!(says(&forged(Kind::Spellings, Codec::Deflate, 0, 1 << 31, b"xy", 2)).is_err());
    let mut bomb = DeflateEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![0; 1 << 24]).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(says(&forged(Kind::Spellings, Codec::Deflate, 0, 100, &bomb, bomb.len() as u32)).is_err());
    // Beyond what is taken at all.
    assert!(says(&forged(Kind::Frame, Codec::Plain, 0, u32::MAX, b"", u32::MAX)).is_err());
    // A list that says it has 2^62 entries.
    let endless = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
    for kind in [Kind::Spellings, Kind::Prompt, Kind::Frame, Kind::Forked] {
        assert!(matches!(says(&plain(kind, 0, &endless)), Err(TraceError::Damaged { .. })), "{kind:?}");
    }
    // A second header, and frames before any prompt.
    let header = plain(Kind::Header, 0, &postcard::to_stdvec(&Header::new(model(), &[])).unwrap());
    assert!(says(&header).is_err());
    let early = [&wire::preamble()[..], &header, &plain(Kind::Rewound, 1, &[])].concat();
    assert!(read(&early).is_err() && PREAMBLE + HEAD < early.len());
}

#[test]
fn frames_that_contradict_themselves_are_refused() {
    let says = |frame: &Frame, step: u32| {
        let contents = postcard::to_stdvec(&Packed::new(frame)).unwrap();
        read(&begun(model(), &plain(Kind::Frame, step, &contents)))
    };
    assert_eq!(says(&frame(1), 1).unwrap(), (1, false));
    assert!(says(&frame(1), 2).is_err(), "another step in the head");
    let mut unmeasured = frame(1);
    for lane in &mut unmeasured.lanes {
        (lane.residual, lane.kept) = (Arc::default(), Arc::default());
        lane.attention = Arc::new(AttentionStats { layers: 2, heads: 2, ..Default::default() });
    }
    assert_eq!(says(&unmeasured, 1).unwrap(), (1, false), "probes may be off");
    type Change = (&'static str, fn(&mut Frame));
    let changes: [Change; 16] = [
        // Large where nothing has to be there to back it.
        ("residual", |f| f.lanes[0].residual = Arc::new(ResidualStats { points: 1 << 40, ..Default::default() })),
        ("attention", |f| f.lanes[0].attention = Arc::new(AttentionStats { heads: 1 << 40, ..Default::default() })),
        ("kept", |f| f.lanes[1].kept = Arc::new(Kept { positions: 1 << 40, ..Default::default() })),
        ("residual", |f| Arc::make_mut(&mut f.lanes[1].residual).l2.truncate(3)),
        ("residual", |f| Arc::make_mut(&mut f.lanes[0].residual).points = usize::MAX),
        ("attention", |f| Arc::make_mut(&mut f.lanes[0].attention).heads = 1 << 40),
        ("keys", |f| Arc::make_mut(&mut f.lanes[0].kv_norms).key_l2.clear()),
        ("kept", |f| Arc::make_mut(&mut f.lanes[1].kept).positions = usize::MAX),
        ("attention by position", |f| f.lanes[0].row = vec![0.0; 99].into()),
        ("lanes", |f| f.lanes.clear()),
        ("position", |f| f.lanes[1].pos = u32::MAX),
        ("tokens", |f| f.lanes[0].fed = Arc::from([])),
        ("spans", |f| f.spans = [PromptSpan { name: "x".into(), from: 0, to: 4 }].into()),
        ("spans", |f| f.lanes[1].survival[0].layer = 2),
        ("spans", |f| f.spans = Arc::from([])),
        ("spans", |f| f.lanes[1].recall = Some(Recall { oracle: 2, share: 1.0 })),
    ];
    for (what, change) in changes {
        let mut lie = frame(1);
        change(&mut lie);
        let error = says(&lie, 1).expect_err(what).to_string();
        assert!(error.contains(what), "{what}: {error}");
    }
    for (layers, heads, kv_heads) in [(0, 2, 1), (2, usize::MAX, 1), (2, 2, 0), (2, 3, 2)] {
        let lie = ModelInfo { layers, heads, kv_heads, ..model() };
        assert!(matches!(read(&begun(lie, &[])), Err(TraceError::Damaged { .. })));
    }
}
