//! Room for packed weights, side by side in large mappings: on pages of 2 MiB they stream from memory about a fifth
//! faster than on pages of 4 KiB, and most matrices by themselves are smaller than one such page.

use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;
use memmap2::MmapMut;

/// What is mapped at a time, unless one matrix needs more. Pages never written to cost nothing.
const CHUNK: usize = 64 << 20;
/// Where matrices begin: the CPU fetches neighbouring lines of 64 bytes in pairs.
const ALIGN: usize = 128;

/// Hands out zeroed memory that is freed together with the last matrix in its chunk.
#[derive(Default)]
pub struct WeightMemory {
    chunk: Option<Arc<Chunk>>,
    used: usize,
}

struct Chunk {
    start: NonNull<u8>,
    len: usize,
    _map: MmapMut,
}

// SAFETY: a chunk only keeps its mapping alive; its bytes are reached through the `WeightBox`es that own them.
unsafe impl Send for Chunk {}
unsafe impl Sync for Chunk {}

impl WeightMemory {
    pub fn new() -> Self {
        Self::default()
    }

    /// `len` zeroed values, owned by the result alone.
    pub(super) fn zeroed<T: Pod>(&mut self, len: usize) -> io::Result<WeightBox<T>> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let start = self.used.next_multiple_of(ALIGN);
        let (chunk, start) = match &self.chunk {
            Some(chunk) if start <= chunk.len && bytes <= chunk.len - start => (chunk.clone(), start),
            _ => (self.chunk.insert(Arc::new(Chunk::map(bytes.max(CHUNK))?)).clone(), 0),
        };
        self.used = start + bytes;
        // SAFETY: start + bytes lies within the chunk, as just checked.
        let at = unsafe { chunk.start.add(start) }.cast::<T>();
        Ok(WeightBox { at, len, _chunk: chunk, _owned: PhantomData })
    }
}

impl Chunk {
    fn map(len: usize) -> io::Result<Self> {
        let mut map = MmapMut::map_anon(len)?;
        // Only a hint: a kernel without huge pages says no, and that costs nothing but speed.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let start = NonNull::new(map.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len, _map: map })
    }
}

/// A boxed slice within a chunk.
pub(super) struct WeightBox<T> {
    at: NonNull<T>,
    len: usize,
    _chunk: Arc<Chunk>,
    _owned: PhantomData<T>,
}

// SAFETY: it owns its values as a Box<[T]> does.
unsafe impl<T: Send> Send for WeightBox<T> {}
unsafe impl<T: Sync> Sync for WeightBox<T> {}

impl<T> Deref for WeightBox<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: aligned (ALIGN), initialised (mapped as zeros, T: Pod), and given to nobody else.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for WeightBox<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_zeroed_apart_and_outlive_the_memory() {
        let mut memory = WeightMemory::new();
        let mut boxes: Vec<WeightBox<u64>> =
            [3, 0, 1000, CHUNK / 8 - 500, CHUNK / 4, 7].map(|len| memory.zeroed(len).unwrap()).into_iter().collect();
        drop(memory);
        for (i, b) in boxes.iter_mut().enumerate() {
            assert!(b.iter().all(|v| *v == 0), "box {i} is not fresh");
            assert!(b.as_ptr().addr().is_multiple_of(ALIGN));
            b.fill(i as u64 + 1);
        }
        boxes.remove(1);
        assert!(boxes[1].iter().all(|v| *v == 3) && boxes[4].iter().all(|v| *v == 6));
    }

    #[test]
    fn a_size_that_overflows_is_refused() {
        assert!(WeightMemory::new().zeroed::<u64>(usize::MAX / 4).is_err());
    }
}
