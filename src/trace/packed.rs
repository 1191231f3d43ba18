//! A frame as it is stored: what a lane shares with lane 0 (after the prompt, most of it) stands there once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::frame::{Frame, LaneFrame};

/// What a lane may have in common with lane 0: calls `$each!(field, bit)` for each. The bits are part of the format.
macro_rules! shared {
    ($each:ident) => {
        $each!(fed, 1);
        $each!(residual, 2);
        $each!(attention, 4);
        $each!(kv_norms, 8);
        $each!(received, 16);
        $each!(row, 32);
        $each!(kept, 64);
    };
}

#[derive(Serialize, Deserialize)]
pub struct Packed {
    frame: Frame,
    /// For each lane, what is lane 0's and empty in `frame`.
    shared: Vec<u8>,
}

/// Takes out of `lane` what is the very same as `first`'s.
fn take_out(lane: &mut LaneFrame, first: &LaneFrame) -> u8 {
    let mut shared = 0;
    macro_rules! same {
        ($field:ident, $bit:literal) => {
            if Arc::ptr_eq(&lane.$field, &first.$field) {
                lane.$field = Arc::default();
                shared |= $bit;
            }
        };
    }
    shared!(same);
    shared
}

fn put_back(lane: &mut LaneFrame, first: &LaneFrame, shared: u8) {
    macro_rules! same {
        ($field:ident, $bit:literal) => {
            if shared & $bit != 0 {
                lane.$field = first.$field.clone();
            }
        };
    }
    shared!(same);
}

impl Packed {
    pub fn new(frame: &Frame) -> Self {
        let mut frame = frame.clone();
        let mut shared = vec![0; frame.lanes.len()];
        if let Some((first, others)) = frame.lanes.split_first_mut() {
            for (lane, shared) in others.iter_mut().zip(&mut shared[1..]) {
                *shared = take_out(lane, first);
            }
        }
        Self { frame, shared }
    }

    pub fn unpack(self) -> Frame {
        let mut frame = self.frame;
        if let Some((first, others)) = frame.lanes.split_first_mut() {
            for (lane, shared) in others.iter_mut().zip(self.shared.iter().skip(1)) {
                put_back(lane, first, *shared);
            }
        }
        frame
    }
}
