//! A sorted list that one thread appends to while others search it, without a lock.
//!
//! Each slot is written before the length that covers it is published, and never again, so a
//! reader sees whole entries only. Blocks double in size and are allocated when first needed: an
//! idle partition costs a few pointers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Slots of the first block.
const FIRST_BLOCK: usize = 32;
/// Enough blocks for 32 · (2^22 - 1) entries, more than a segment's index file can hold.
const BLOCKS: usize = 22;

type Slot<const WORDS: usize> = [AtomicU64; WORDS];

/// Entries of `WORDS` numbers each.
#[derive(Debug)]
pub(crate) struct MemoryIndex<const WORDS: usize> {
    len: AtomicUsize,
    blocks: [OnceLock<Box<[Slot<WORDS>]>>; BLOCKS],
}

impl<const WORDS: usize> MemoryIndex<WORDS> {
    pub(crate) fn new() -> MemoryIndex<WORDS> {
        MemoryIndex {
            len: AtomicUsize::new(0),
            blocks: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    /// The block of entry `index`, and its place there.
    fn place(index: usize) -> (usize, usize) {
        let block = (index / FIRST_BLOCK + 1).ilog2() as usize;
        (block, index - FIRST_BLOCK * ((1 << block) - 1))
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    pub(crate) fn get(&self, index: usize) -> Option<[u64; WORDS]> {
        if index >= self.len() {
            return None;
        }
        let (block, slot) = Self::place(index);
        let slot = self.blocks.get(block)?.get()?.get(slot)?;
        // Ordered by the acquire load of `len`, which was released after the words were stored.
        Some(std::array::from_fn(|word| {
            slot[word].load(Ordering::Relaxed)
        }))
    }

    /// Appends an entry; only the one writer calls this. Returns false when full.
    pub(crate) fn push(&self, entry: [u64; WORDS]) -> bool {
        let index = self.len.load(Ordering::Relaxed);
        let (block, slot) = Self::place(index);
        let Some(block_cell) = self.blocks.get(block) else {
            return false;
        };
        let slots = block_cell.get_or_init(|| {
            (0..FIRST_BLOCK << block)
                .map(|_| std::array::from_fn(|_| AtomicU64::new(0)))
                .collect()
        });
        for (word, value) in slots[slot].iter().zip(entry) {
            word.store(value, Ordering::Relaxed);
        }
        self.len.store(index + 1, Ordering::Release);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_across_blocks() {
        let index = MemoryIndex::<2>::new();
        for n in 0..10_000u64 {
            assert_eq!(index.get(index.len()), None);
            assert!(index.push([n, n * 7]));
        }
        assert_eq!(index.len(), 10_000);
        for n in 0..10_000u64 {
            assert_eq!(index.get(usize::try_from(n).unwrap()), Some([n, n * 7]));
        }
    }

    #[test]
    fn a_reader_never_sees_half_an_entry() {
        let index = MemoryIndex::<2>::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..200_000u64 {
                    index.push([n, !n]);
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    while index.len() < 199_999 {
                        if let Some(last) = index.len().checked_sub(1) {
                            let [a, b] = index.get(last).unwrap();
                            assert_eq!(a, !b);
                        }
                    }
                });
            }
        });
    }
}
