//! `Walk`, a look at all files of a tree at the target, some thousand at a time: what a crash left in
//! doubt may be where the session has no business.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::dir::{Dir, FdCache};
use super::own_name::{OwnName, parse};
use super::prune::{names_of, take_name};
use crate::limits::DIR_FDS_OPEN_MAX;
use crate::model::entry::Kind;
use crate::model::time::Mtime;
use crate::ops::op::Progress;
use crate::ops::{Disk, Errno};

pub struct Walk<D: Disk> {
    /// Its own: what it opens is nothing that the session went through.
    cache: FdCache<D>,
    /// Next: looked at from the end.
    dirs: Vec<Arc<Dir<D>>>,
    here: Option<Here<D>>,
    has_seen_all: bool,
}

/// The directory under way, and what is left of it.
struct Here<D: Disk> {
    dir: Arc<Dir<D>>,
    fd: D::Fd,
    /// As `names_of` has them.
    names: Vec<u8>,
}

impl<D: Disk> Walk<D> {
    pub fn new(root: &Arc<Dir<D>>) -> Self {
        Self {
            cache: FdCache::new(DIR_FDS_OPEN_MAX),
            dirs: vec![Arc::clone(root)],
            here: None,
            has_seen_all: true,
        }
    }

    /// Nothing was out of reach.
    pub fn has_seen_all(&self) -> bool {
        self.has_seen_all
    }

    /// Hands the time of change of each file to `each`, until that breaks off or `budget` ends.
    pub fn run(
        &mut self,
        disk: &D,
        budget: &mut usize,
        mut each: impl FnMut(Mtime) -> ControlFlow<()>,
    ) -> Progress {
        loop {
            while let Some(here) = &mut self.here {
                if *budget == 0 {
                    return Progress::Again;
                }
                let Some(name) = take_name(&mut here.names) else {
                    break;
                };
                *budget -= 1;
                let is_own = !matches!(parse(&name), OwnName::Unknown);
                match disk.stat_at(&here.fd, &name) {
                    Ok(stat) if stat.kind == Kind::Dir => {
                        self.dirs.push(Arc::new(Dir::child(&here.dir, &name)));
                    }
                    Ok(stat) if stat.kind == Kind::File && !is_own => {
                        if each(stat.ctime).is_break() {
                            return Progress::Done;
                        }
                    }
                    Ok(_) | Err(Errno::NOENT) => {}
                    Err(_) => self.has_seen_all = false,
                }
            }
            let Some(dir) = self.dirs.pop() else {
                return Progress::Done;
            };
            self.here = match self.enter(disk, dir) {
                Ok(here) => Some(here),
                Err(Errno::NOENT) => None,
                Err(_) => {
                    self.has_seen_all = false;
                    None
                }
            };
        }
    }

    fn enter(&self, disk: &D, dir: Arc<Dir<D>>) -> Result<Here<D>, Errno> {
        // Somebody may be listing by the descriptor that there is.
        let fd = disk.reopen_dir(&*dir.fd(disk, &self.cache)?)?;
        let names = names_of(disk, &fd)?;
        Ok(Here { dir, fd, names })
    }
}
