//! Memory on a device that gives itself back.

use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::Pod;

use super::device::{Arg, Device};
use crate::backend::Result;

/// So many `T` on a device.
pub struct Memory<T> {
    device: Arc<dyn Device>,
    at: u64,
    len: usize,
    of: PhantomData<fn() -> T>,
}

impl<T: Pod> Memory<T> {
    /// With anything in it.
    pub fn new(device: &Arc<dyn Device>, len: usize) -> Result<Self> {
        let at = device.allocate(len * size_of::<T>())?;
        Ok(Self { device: device.clone(), at, len, of: PhantomData })
    }

    pub fn of(device: &Arc<dyn Device>, values: &[T]) -> Result<Self> {
        let memory = Self::new(device, values.len())?;
        memory.write(0, values)?;
        Ok(memory)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of element `i`.
    pub fn at(&self, i: usize) -> u64 {
        assert!(i <= self.len, "element {i} of {}", self.len);
        self.at + (i * size_of::<T>()) as u64
    }

    pub fn arg(&self) -> Arg {
        Arg::Pointer(self.at)
    }

    pub fn write(&self, first: usize, values: &[T]) -> Result<()> {
        assert!(first + values.len() <= self.len, "{} behind {first} of {}", values.len(), self.len);
        self.device.upload(bytemuck::cast_slice(values), self.at(first))
    }

    pub fn read(&self, first: usize, count: usize) -> Result<Vec<T>> {
        assert!(first + count <= self.len, "{count} behind {first} of {}", self.len);
        let mut values = vec![T::zeroed(); count];
        self.device.download(self.at(first), bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    pub fn clear(&self) -> Result<()> {
        self.device.clear(self.at, self.len * size_of::<T>())
    }
}

impl<T> Drop for Memory<T> {
    fn drop(&mut self) {
        self.device.free(self.at, self.len * size_of::<T>());
    }
}
