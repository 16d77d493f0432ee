//! How storage reaches the disk: every call to the file system goes through [`Files`] and
//! [`File`], so that a test can fill the disk, fail a sync or cut the power between any two.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

mod os;

pub use os::OsFiles;

/// Most slices that one vectored write takes (`IOV_MAX` of Linux).
const SLICES_MAX: usize = 1024;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// For reading and writing; created if missing.
    Create,
    /// For reading and writing; created if missing, emptied if not.
    Replace,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// Whether it is a directory (a symbolic link is not).
    pub is_directory: bool,
}

/// Room in the file system that holds a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that an unprivileged process may still write.
    pub usable_bytes: u64,
    /// Size of the file system.
    pub total_bytes: u64,
}

/// Holds a lock until dropped.
pub trait Lock: Send + Sync + fmt::Debug {}

/// The file system.
pub trait Files: fmt::Debug + Send + Sync + 'static {
    /// Opens a file. Symbolic links are not followed.
    ///
    /// # Errors
    /// As the file system says.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>>;
    /// Creates a directory and its missing parents.
    ///
    /// # Errors
    /// As the file system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order.
    ///
    /// # Errors
    /// As the file system says.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Renames a file or a directory, replacing a file of the new name.
    ///
    /// # Errors
    /// As the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the file system says.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with all it holds.
    ///
    /// # Errors
    /// As the file system says.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the file system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Room left for a directory.
    ///
    /// # Errors
    /// As the file system says.
    fn space(&self, path: &Path) -> io::Result<DiskSpace>;
    /// Takes the exclusive lock of a file, created if missing; does not wait for it.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another process or instance holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    /// What the kernel calls this boot of the machine, if it says so.
    fn boot_id(&self) -> Option<String>;
}

/// An open file. All access is by position, so that readers and the writer share it.
pub trait File: fmt::Debug + Send + Sync {
    /// Reads into `buffer` at `position`; fewer bytes near the end of the file.
    ///
    /// # Errors
    /// As the file system says.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes some of `slices` (at most 1024 of them) at `position`.
    ///
    /// # Errors
    /// As the file system says; bytes may have been written nonetheless.
    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize>;
    /// Size in bytes.
    ///
    /// # Errors
    /// As the file system says.
    fn size(&self) -> io::Result<u64>;
    /// Cuts or extends the file.
    ///
    /// # Errors
    /// As the file system says.
    fn set_size(&self, size: u64) -> io::Result<()>;
    /// Makes the bytes and the size durable.
    ///
    /// # Errors
    /// After an error nothing is known of what is durable (B-18).
    fn sync(&self) -> io::Result<()>;
    /// When the file was last written, in milliseconds since 1970.
    ///
    /// # Errors
    /// As the file system says.
    fn modified_ms(&self) -> io::Result<i64>;
    /// The descriptor, for `sendfile`; `None` if there is no real file behind.
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;
}

/// Whether `error` means that the disk or the quota is full.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether `error` means that no file can be opened just now: an answer to an open only, which has
/// changed nothing.
pub(crate) fn is_too_many_files(error: &io::Error) -> bool {
    /// `EMFILE` and `ENFILE` of Linux.
    const NUMBERS: [i32; 2] = [24, 23];
    error
        .raw_os_error()
        .is_some_and(|number| NUMBERS.contains(&number))
}

/// Writes all of `slices` at `position`.
pub(crate) fn write_all_at(
    file: &dyn File,
    mut slices: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_at(&slices[..slices.len().min(SLICES_MAX)], position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                position += written as u64;
                IoSlice::advance_slices(&mut slices, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes `bytes` at `position`.
pub(crate) fn write_bytes_at(file: &dyn File, bytes: &[u8], position: u64) -> io::Result<()> {
    write_all_at(file, &mut [IoSlice::new(bytes)], position)
}

/// Reads until `buffer` is full or the file ends; says how much was read.
pub(crate) fn read_full_at(file: &dyn File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The content of a small file; `None` if there is no such file, an error beyond `bytes_max`.
pub(crate) fn read_small_file(
    files: &dyn Files,
    path: &Path,
    bytes_max: usize,
) -> io::Result<Option<Vec<u8>>> {
    let file = match files.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = usize::try_from(file.size()?).unwrap_or(usize::MAX);
    if size > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is too large to be one",
        ));
    }
    let mut bytes = vec![0; size];
    let read = read_full_at(&*file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}
