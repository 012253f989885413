//! Sections of a file that can be read in part and still be trusted: each block of one carries
//! its own checksum.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use crc32c::crc32c_append;

use crate::disk::{File, read_exact};

/// Where a section is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Section {
    /// Where it begins in the file.
    pub(crate) start: u64,
    /// Bytes, checksums not counted.
    pub(crate) length: u64,
}

impl Section {
    /// The place in the file behind it.
    pub(crate) fn end(self) -> u64 {
        self.start + self.length + self.blocks() * CRC as u64
    }

    pub(crate) fn blocks(self) -> u64 {
        self.length.div_ceil(BLOCK as u64)
    }

    /// Where a block is in the file, and how many bytes it has.
    fn place(self, block: u64) -> (u64, usize) {
        let before = block * BLOCK as u64;
        let length = (self.length - before).min(BLOCK as u64);
        (self.start + before + block * CRC as u64, length as usize)
    }
}

/// Adds a section to what will be a file.
pub(crate) fn append(file: &mut Vec<u8>, section: &[u8], seed: u32) {
    for block in section.chunks(BLOCK) {
        let crc = checksum(seed, file.len() as u64, block);
        file.extend_from_slice(block);
        file.extend_from_slice(&crc.to_le_bytes());
    }
}

/// Reads blocks, each at most once.
pub(crate) struct Blocks {
    file: Arc<dyn File>,
    seed: u32,
    loaded: RefCell<HashMap<u64, Rc<[u8]>>>,
}

impl Blocks {
    pub(crate) fn new(file: Arc<dyn File>, seed: u32) -> Self {
        Self {
            file,
            seed,
            loaded: RefCell::default(),
        }
    }

    /// One block of a section. Fails if it is damaged.
    pub(crate) fn block(&self, section: Section, block: u64) -> io::Result<Rc<[u8]>> {
        if block >= section.blocks() {
            return Err(ErrorKind::InvalidData.into());
        }
        let (at, length) = section.place(block);
        if let Some(loaded) = self.loaded.borrow().get(&at) {
            return Ok(loaded.clone());
        }
        let mut bytes = vec![0; length + CRC];
        read_exact(&*self.file, &mut bytes, at)?;
        let crc = bytes.split_off(length);
        if checksum(self.seed, at, &bytes).to_le_bytes() != *crc {
            return Err(ErrorKind::InvalidData.into());
        }
        let bytes: Rc<[u8]> = bytes.into();
        self.loaded.borrow_mut().insert(at, bytes.clone());
        Ok(bytes)
    }

    /// `N` bytes of a section, all of them in one block.
    pub(crate) fn get<const N: usize>(&self, section: Section, at: u64) -> io::Result<[u8; N]> {
        let block = self.block(section, at / BLOCK as u64)?;
        let at = at as usize % BLOCK;
        let bytes = block.get(at..at + N).ok_or(ErrorKind::InvalidData)?;
        Ok(bytes.try_into().expect("the slice has this length"))
    }
}

/// The place counts, so that one block is never taken for another.
fn checksum(seed: u32, at: u64, block: &[u8]) -> u32 {
    crc32c_append(crc32c_append(seed, &at.to_le_bytes()), block)
}

/// Bytes in a block but the last. Entries of 4, 8 and 12 bytes fill it.
pub(crate) const BLOCK: usize = 4_080;

/// Bytes of a checksum.
const CRC: usize = 4;
