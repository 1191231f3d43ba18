//! The cursor in time: following the newest step, or standing on an earlier one.

use super::session::Session;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeline {
    /// Step the user stands on; `None` follows the newest.
    cursor: Option<u32>,
}

impl Timeline {
    pub fn is_live(self) -> bool {
        self.cursor.is_none()
    }

    /// Index of the frame to show.
    pub fn index(self, session: &Session) -> Option<usize> {
        match self.cursor {
            Some(step) => session.index_of(step),
            None => session.frames().len().checked_sub(1),
        }
    }

    pub fn follow(&mut self) {
        self.cursor = None;
    }

    /// Stands on `step`, or follows if that is the newest.
    pub fn go(&mut self, step: u32, session: &Session) {
        let newest = session.frames().last().map_or(0, |f| f.step);
        self.cursor = Some(step).filter(|s| *s < newest);
    }

    pub fn back(&mut self, session: &Session) {
        let step = self.index(session).map_or(0, |i| session.frames()[i].step);
        self.go(step.saturating_sub(1), session);
    }

    /// One step forward; false where the newest step is shown already.
    pub fn forward(&mut self, session: &Session) -> bool {
        let Some(step) = self.cursor else { return false };
        self.go(step + 1, session);
        true
    }
}
