//! Ctrl-C and SIGTERM in commands without a screen: the first asks the run to stop, the second ends it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::exit::{INTERRUPTED, Interrupted, Io};
use crate::engine::Core;

#[derive(Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub fn watch() -> Result<Self, Io> {
        let raised = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let armed = || {
                signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED.into(), raised.clone())?;
                signal_hook::flag::register(signal, raised.clone())
            };
            armed().map_err(Io::while_("watch for Ctrl-C"))?;
        }
        Ok(Self(raised))
    }

    /// A signal also stops the pass that `core` is in, between two operations.
    pub fn stops(&self, core: &Core) -> Result<(), Io> {
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, core.interrupter()).map_err(Io::while_("watch for Ctrl-C"))?;
        }
        Ok(())
    }

    pub fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
    }
}
