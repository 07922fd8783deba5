//! A tree copied on this machine by a plain program on tokio-uring: one task per file, so many at
//! once, each of which opens, asks, reads, writes and closes on the ring. It answers "why not just
//! tokio-uring?" with a number. It keeps no times and no modes, which costs it nothing.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::fs::{File, OpenOptions, create_dir};

use super::failure::{Doing, Result};

const IN_FLIGHT_MAX: usize = 64;
const BLOCK_BYTES: u64 = 256 << 10;
/// Entries of the ring: a file has one operation in flight.
const ENTRIES: u32 = 256;

#[derive(Args)]
pub struct Options {
    source: PathBuf,
    target: PathBuf,
}

pub fn copy(options: &Options) -> Result<bool> {
    tokio_uring::builder()
        .entries(ENTRIES)
        .start(copy_tree(&options.source, &options.target))
        .doing(|| format!("naive, copying {}", options.source.display()))?;
    Ok(true)
}

async fn copy_tree(source: &Path, target: &Path) -> io::Result<()> {
    let mut dirs = vec![(source.to_path_buf(), target.to_path_buf())];
    let mut tasks = VecDeque::with_capacity(IN_FLIGHT_MAX);
    while let Some((from, to)) = dirs.pop() {
        create_dir(&to).await?;
        // The ring can't list a directory.
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            if entry.file_type()?.is_dir() {
                dirs.push((from, to));
                continue;
            }
            if tasks.len() == IN_FLIGHT_MAX
                && let Some(oldest) = tasks.pop_front()
            {
                ended(oldest.await)?;
            }
            tasks.push_back(tokio_uring::spawn(copy_file(from, to)));
        }
    }
    for task in tasks {
        ended(task.await)?;
    }
    Ok(())
}

/// A task that panicked is an error, too.
fn ended<E: std::error::Error + Send + Sync + 'static>(
    task: std::result::Result<io::Result<()>, E>,
) -> io::Result<()> {
    task.map_err(io::Error::other)?
}

async fn copy_file(from: PathBuf, to: PathBuf) -> io::Result<()> {
    let source = File::open(&from).await?;
    let bytes = source.statx().await?.stx_size;
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&to)
        .await?;
    let room = usize::try_from(bytes.min(BLOCK_BYTES)).expect("a block fits");
    let mut block = Vec::with_capacity(room);
    let mut offset = 0;
    while offset < bytes {
        let (read, full) = source.read_at(block, offset).await;
        let read = read?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (written, slice) = target.write_all_at(full.slice(..read), offset).await;
        written?;
        block = slice.into_inner();
        offset += read as u64;
    }
    source.close().await?;
    target.close().await
}
