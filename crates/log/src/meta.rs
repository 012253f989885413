//! Which log a folder holds: the version of its format, its epoch and its salt.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;

use crc32c::crc32c;
use hookbot_protocol::Epoch;

use crate::disk::{Disk, read_exact, replace};
use crate::error::OpenError;
use crate::record::{read_u32, read_u64};

/// Written once, and again only by a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) epoch: Epoch,
    /// A secret: it seeds the checksums and keys the hashes, so that no publisher can make
    /// bytes that look like a record, or many ids with one hash.
    pub(crate) salt: [u8; 16],
}

impl Meta {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Epoch(fastrand::u64(..)),
            salt: [random_u64(), random_u64()]
                .map(u64::to_le_bytes)
                .concat()
                .try_into()
                .expect("sixteen bytes"),
        }
    }

    /// What the folder says, or nothing where it does not have a log yet.
    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>, OpenError> {
        let file = match disk.open(NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(OpenError::io(NAME))?,
        };
        let mut bytes = [0; SIZE];
        read_exact(&*file, &mut bytes, 0).map_err(OpenError::io(NAME))?;
        let version = read_u32(&bytes, 8);
        if bytes[..8] != *MAGIC || version < VERSION || crc32c(&bytes[..36]) != read_u32(&bytes, 36)
        {
            // A newer version may have another layout, so its checksum says nothing.
            if bytes[..8] == *MAGIC && version > VERSION {
                return Err(OpenError::Newer { version });
            }
            return Err(OpenError::corrupt(NAME, 0, "its contents are damaged"));
        }
        if version > VERSION {
            return Err(OpenError::Newer { version });
        }
        Ok(Some(Self {
            epoch: Epoch(read_u64(&bytes, 12)),
            salt: bytes[20..36].try_into().expect("sixteen bytes"),
        }))
    }

    pub(crate) fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.epoch.0.to_le_bytes());
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
        replace(disk, NAME, &bytes)
    }
}

/// Keyed by the operating system, unlike the generator that makes epochs, which are public.
fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The version of the format of everything in the folder.
pub(crate) const VERSION: u32 = 1;

pub(crate) const NAME: &str = "meta";
const MAGIC: &[u8; 8] = b"hookbot\0";
const SIZE: usize = 40;
