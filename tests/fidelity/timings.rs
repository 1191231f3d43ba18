//! Times of steps: their order, what is left out, and the peaks that they are compared with.

use attnscope::engine::frame::Frame;
use attnscope::engine::message::{Answer, Query};
use attnscope::engine::{Core, Pause, Precision};
use attnscope::meter::overhead::overhead;

use crate::common::real_model;
use crate::golden::*;

fn read(core: &mut Core) -> Frame {
    let prompt = ids(&json(&dir().join("smollm2/d1_short.forward.json"))["token_ids"]);
    core.read_prompt(&prompt, |_, _| Pause::Continue).unwrap().unwrap()
}

#[test]
fn the_calls_of_a_step_stand_in_their_order_and_layers() {
    let Some(model) = real_model("smollm2-135m") else { return };
    for precision in [Precision::Native, Precision::F32] {
        let mut core = core(&model, precision, &["full", "h2o@50%"]);
        assert!(read(&mut core).timeline.is_empty(), "many passes have no order of their own");
        let frame = core.step().unwrap();
        let calls = frame.timeline.calls(&frame.ops);
        assert_eq!(calls.len(), frame.ops.iter().map(|op| op.ns.len()).sum::<usize>());
        let bytes = |calls: &[u64]| calls.iter().sum::<u64>();
        let all: Vec<u64> = calls.iter().map(|call| call.bytes).collect();
        assert_eq!(bytes(&all), frame.ops.iter().map(|op| op.bytes).sum::<u64>());
        assert!(calls.windows(2).all(|pair| pair[0].end_ns() <= pair[1].start_ns), "one after the other");
        assert!(calls.last().unwrap().end_ns() <= frame.wall_ns);
        let layers = core.config().layers.len() as u32;
        let of = |name: &str| -> Vec<Option<u32>> {
            calls.iter().filter(|call| *frame.ops[call.op].name == *name).map(|call| call.layer).collect()
        };
        let each: Vec<Option<u32>> = (0..layers).map(Some).collect();
        for name in ["q·k·v", "rope·append", "gate·up", "down"] {
            assert_eq!(of(name), each, "{name}");
        }
        for name in ["embed", "head", "residual statistics"] {
            assert_eq!(of(name), [None], "{name}");
        }
        // Layer by layer, the waiting between commands is left out.
        let part = (0..2 * layers).map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            core.advance(1).unwrap()
        });
        let frame = part.last().unwrap();
        let calls = frame.timeline.calls(&frame.ops);
        assert!(
            calls.last().unwrap().end_ns() <= frame.wall_ns,
            "{} of {}",
            calls.last().unwrap().end_ns(),
            frame.wall_ns
        );
    }
}

#[test]
fn every_other_step_goes_without_times() {
    let Some(model) = real_model("smollm2-135m") else { return };
    let mut core = core(&model, Precision::Native, &["full"]);
    read(&mut core);
    core.step().unwrap();
    core.alternate_timings(20);
    let frames: Vec<Frame> = (2..=24).map(|_| core.step().unwrap()).collect();
    for frame in &frames {
        let timed = frame.step > 21 || !frame.step.is_multiple_of(2);
        assert_eq!((frame.ops.is_empty(), frame.timeline.is_empty()), (!timed, !timed), "step {}", frame.step);
    }
    let found = overhead(frames.iter()).unwrap();
    assert_eq!(found.pairs, 10);
    assert!(found.share.abs() < 1.0, "{found:?}");
}

#[test]
fn peaks_stand_in_every_frame_once_they_are_known() {
    let Some(model) = real_model("smollm2-135m") else { return };
    for precision in [Precision::Native, Precision::F32] {
        let mut core = core(&model, precision, &["full"]);
        assert_eq!(read(&mut core).peaks, None);
        let before = core.step().unwrap();
        assert_eq!(before.peaks, None);
        let Answer::Peaks(peaks) = core.answer(&Query::Peaks) else { panic!("no peaks") };
        assert!(peaks.is_sound(), "{peaks:?}");
        let after = core.step().unwrap();
        assert_eq!(after.peaks.as_ref(), Some(&peaks));
        let Answer::Peaks(again) = core.answer(&Query::Peaks) else { panic!("no peaks") };
        assert_eq!(again, peaks, "measured once");
    }
}
