//! What the map panel asks the engine for: the pixels of a part of a map, or one cell.

use super::window::Grid;
use crate::engine::message::{Fold, Query};
use crate::tui::panel::Choice;

impl Choice for Fold {
    const ALL: &'static [Self] = &[Fold::Max, Fold::Mean, Fold::Sum];

    fn name(self) -> &'static str {
        match self {
            Fold::Max => "max",
            Fold::Mean => "mean",
            Fold::Sum => "sum",
        }
    }
}

/// Which pixels of which map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spot {
    pub layer: u32,
    pub head: u32,
    pub rows: Grid,
    pub cols: Grid,
    pub fold: Fold,
    /// Steps of zoom, and the cells of the screen that show it.
    pub zoom: u32,
    pub plot: (u16, u16),
}

impl Spot {
    /// The same request a few tokens later.
    pub fn grown_from(&self, old: &Spot) -> bool {
        let view = |s: &Spot| (s.layer, s.head, s.fold, s.zoom, s.plot, s.rows.window.from, s.cols.window.from);
        view(self) == view(old)
    }

    pub fn query(&self) -> Query {
        Query::Tile {
            layer: self.layer,
            head: self.head,
            rows: (self.rows.window.from, self.rows.window.to),
            cols: (self.cols.window.from, self.cols.window.to),
            height: self.rows.values,
            width: self.cols.values,
            fold: self.fold,
        }
    }
}

/// A single cell of a head's map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub layer: u32,
    pub head: u32,
    pub row: u32,
    pub col: u32,
}

impl Cell {
    pub fn query(&self) -> Query {
        Query::Tile {
            layer: self.layer,
            head: self.head,
            rows: (self.row, self.row + 1),
            cols: (self.col, self.col + 1),
            height: 1,
            width: 1,
            fold: Fold::Max,
        }
    }
}
