//! What a panel may look at while it draws: the session, the moment in time, what is chosen, and the theme.

use crate::engine::frame::{Frame, LaneFrame};
use crate::engine::message::ModelInfo;

use super::session::Session;
use super::theme::Theme;

/// What is chosen, shared by all panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Selection {
    pub layer: usize,
    /// Query head.
    pub head: usize,
    pub lane: usize,
    /// Position of the chosen token; `None` follows the newest.
    pub token: Option<usize>,
    /// Key position of the map's crosshair.
    pub key: usize,
}

#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub session: &'a Session,
    pub selection: &'a Selection,
    pub theme: &'a Theme,
    /// Index of the frame that is shown.
    pub at: Option<usize>,
    /// The screen follows the newest frame.
    pub live: bool,
    /// The panel has the keys.
    pub focused: bool,
    /// Positions found by the search, ascending.
    pub found: &'a [usize],
}

impl<'a> Seen<'a> {
    pub fn frame(&self) -> Option<&'a Frame> {
        self.session.frames().get(self.at?).map(|f| &**f)
    }

    pub fn model(&self) -> Option<&'a ModelInfo> {
        self.session.model.as_deref()
    }

    /// The chosen lane, or lane 0 where it does not exist yet.
    pub fn lane_index(&self) -> usize {
        match self.frame() {
            Some(frame) if self.selection.lane < frame.lanes.len() => self.selection.lane,
            _ => 0,
        }
    }

    pub fn lane(&self) -> Option<&'a LaneFrame> {
        self.frame()?.lanes.get(self.lane_index())
    }

    /// Positions fed so far at this moment in time.
    pub fn positions(&self) -> usize {
        match self.frame().and_then(|f| f.lanes.first()) {
            Some(lane) => lane.pos as usize + lane.fed.len(),
            None => self.session.prompt.len(),
        }
    }

    /// The chosen position, or the newest.
    pub fn token(&self) -> usize {
        let newest = self.positions().saturating_sub(1);
        self.selection.token.map_or(newest, |t| t.min(newest))
    }

    /// Id at a position in the chosen lane.
    pub fn id(&self, position: usize) -> Option<u32> {
        if let Some(&id) = self.session.prompt.get(position) {
            return Some(id);
        }
        let place = self.session.place(position)?;
        let frame = &self.session.frames()[place.frame];
        self.session.lane(frame, self.lane_index())?.fed.get(place.row).copied()
    }

    /// `‹·Paris›`, or nothing where no such position exists.
    pub fn spelled(&self, position: usize) -> String {
        self.id(position).map_or_else(String::new, |id| format!("‹{}›", self.session.spell(id)))
    }

    /// Sublayers finished where the frame is partial.
    pub fn partial(&self) -> Option<u32> {
        self.frame()?.partial
    }

    /// Key-value head that serves the chosen query head.
    pub fn kv_head(&self) -> usize {
        match self.model() {
            Some(m) if m.kv_heads > 0 => self.selection.head / (m.heads / m.kv_heads).max(1),
            _ => 0,
        }
    }
}
