//! The files that sections are in, read from the front and compared with their manifest.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::error::{CheckpointError, Result, disk};
use super::manifest::SectionEntry;
use super::tally::Sum;
use super::{CHUNK, unreadable};

/// A file that a section is in.
#[derive(Clone, Debug)]
pub struct SectionFile {
    path: PathBuf,
    length: u64,
    checksum: String,
    /// It holds what has changed since the file before, not all of the section.
    pub is_increment: bool,
}

impl SectionFile {
    pub(super) fn new(directory: &Path, entry: &SectionEntry) -> Self {
        let (length, checksum) = entry.file();
        Self {
            path: directory.join(&entry.name),
            length,
            checksum: checksum.to_owned(),
            is_increment: entry.increment.is_some(),
        }
    }

    /// What it holds, checked.
    ///
    /// # Errors
    /// If it is missing on disk or differs from the manifest.
    pub fn content(&self) -> Result<Vec<u8>> {
        // Opened first: a length that no file has here must not be asked of memory.
        let mut reader = self.reader()?;
        let mut bytes = Vec::with_capacity(usize::try_from(self.length).unwrap_or(0));
        reader.read_to_end(&mut bytes).map_err(disk(|| unreadable(&self.path)))?;
        reader.finish()?;
        Ok(bytes)
    }

    /// Reads it from the front; it is checked once all has been read.
    ///
    /// # Errors
    /// If it is missing on disk or has another length than the manifest says.
    pub fn reader(&self) -> Result<SectionReader<'_>> {
        let file = self.open()?;
        Ok(SectionReader { file, of: self, chunk: Vec::new(), at: 0, sum: Sum::default() })
    }

    /// Bytes, by the manifest.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn open(&self) -> Result<File> {
        let file = fs::metadata(&self.path).and_then(|found| match found.is_file() {
            true => File::open(&self.path),
            // A pipe would wait for its writer.
            false => Err(io::Error::other("not a file")),
        });
        let opened = file.and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(disk(|| unreadable(&self.path)))?;
        if length != self.length {
            return Err(CheckpointError::Damaged(format!(
                "{} has {length} bytes, the manifest says {}: it was damaged after it was written",
                self.path.display(),
                self.length
            )));
        }
        Ok(file)
    }
}

/// A section's file that is being read.
pub struct SectionReader<'f> {
    file: File,
    of: &'f SectionFile,
    chunk: Vec<u8>,
    /// What has been taken of the chunk.
    at: usize,
    sum: Sum,
}

impl SectionReader<'_> {
    /// Reads what is left, and compares all of it with the manifest.
    ///
    /// # Errors
    /// If it cannot be read or differs.
    pub fn finish(mut self) -> Result<()> {
        let path = &self.of.path;
        while self.refill().map_err(disk(|| unreadable(path)))? {}
        if self.sum.finish().1 != self.of.checksum {
            return Err(CheckpointError::Damaged(format!(
                "{} differs from its checksum in the manifest: it was damaged after it was written",
                path.display()
            )));
        }
        Ok(())
    }

    /// Reads the next chunk; false: there is none.
    fn refill(&mut self) -> io::Result<bool> {
        self.at = 0;
        self.chunk.clear();
        self.chunk.reserve_exact(CHUNK);
        (&self.file).take(CHUNK as u64).read_to_end(&mut self.chunk)?;
        self.sum.add(&self.chunk);
        Ok(!self.chunk.is_empty())
    }
}

impl Read for SectionReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !self.refill()? {
            return Ok(0);
        }
        let read = (&self.chunk[self.at..]).read(out)?;
        self.at += read;
        Ok(read)
    }
}
