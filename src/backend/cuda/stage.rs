//! Many small arrays that go to a device in one copy.

use std::sync::Arc;

use bytemuck::Pod;

use super::device::Device;
use super::memory::Memory;
use crate::backend::Result;

/// Where an array of a [`Stage`] begins, bytes behind the stage's first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    pub fn plus(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }

    /// Where the stage begins at `base`.
    pub fn on(self, base: u64) -> u64 {
        base + self.0
    }
}

/// Arrays in the order in which they were put.
#[derive(Default)]
pub struct Stage {
    bytes: Vec<u8>,
    /// Where addresses of other places stand.
    addresses: Vec<(usize, Place)>,
}

impl Stage {
    pub fn put<T: Pod>(&mut self, values: &[T]) -> Place {
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        let place = Place(self.bytes.len() as u64);
        self.bytes.extend_from_slice(bytemuck::cast_slice(values));
        place
    }

    /// Addresses on the device of other arrays; null for `None`.
    pub fn put_addresses(&mut self, of: &[Option<Place>]) -> Place {
        let place = self.put(&vec![0_u64; of.len()]);
        let at = |i: usize| place.0 as usize + 8 * i;
        self.addresses.extend(of.iter().enumerate().filter_map(|(i, of)| Some((at(i), (*of)?))));
        place
    }
}

/// Memory that stages are sent to, one after the other.
#[derive(Default)]
pub struct Staging {
    memory: Option<Memory<u8>>,
}

impl Staging {
    /// Gives the address of the stage's first byte, the same as long as stages do not grow.
    pub fn send(&mut self, device: &Arc<dyn Device>, mut stage: Stage) -> Result<u64> {
        let needed = stage.bytes.len().max(1);
        let memory = match self.memory.take() {
            Some(memory) if memory.len() >= needed => memory,
            _ => Memory::new(device, needed.next_power_of_two())?,
        };
        let base = memory.at(0);
        for (at, place) in stage.addresses.drain(..) {
            stage.bytes[at..at + 8].copy_from_slice(&place.on(base).to_le_bytes());
        }
        memory.write(0, &stage.bytes)?;
        self.memory = Some(memory);
        Ok(base)
    }
}
