//! The screen on scripted frames, without a terminal.

mod behaviour;
mod frames;
mod headless;
mod looks;
mod rig;
mod safety;
mod script;
mod terminal;
