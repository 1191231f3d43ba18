//! The terminal screen. It is fed by the engine's events and frames only, sends commands and questions, waits for
//! neither, and computes nothing about the model.
//!
//! State ([`session`], [`app`]) never draws; panels never change it but through the selection and actions.

pub mod action;
pub mod app;
pub mod asker;
pub mod draw;
pub mod dump;
mod effect;
pub mod guard;
mod headless;
mod judging;
pub mod keymap;
pub mod layer;
mod loading;
pub mod macro_keys;
mod options;
pub mod panel;
pub mod ramp;
pub mod reading;
mod run;
pub mod seen;
pub mod session;
mod status;
pub mod text;
pub mod theme;
pub mod timeline;
pub mod units;
pub mod view;
#[cfg(test)]
mod vision;
pub mod widget;

pub use app::Exit;
pub use headless::run_headless;
pub use options::{ScreenError, ScreenOptions};
pub use run::run;
