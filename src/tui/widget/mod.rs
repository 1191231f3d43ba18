//! Small things that panels draw with.

pub mod bar;
pub mod chart;
pub mod flow;
pub mod heat;
pub mod legend;
pub mod put;
pub mod scale;
pub mod window;
