//! `End`, one descriptor of a byte stream, in the mode that its ring needs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags};

use crate::limits::PIPE_BYTES;

/// Whether a call on a descriptor waits until something can move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// Of a non-blocking descriptor the ring gives EAGAIN back at once, instead of waiting for it.
    Blocking,
    /// A socket is asked not to wait with each call, and stays as it is: behind a remote shell one socket is the
    /// stdin of one program and the stdout of another, who may not know what EAGAIN is.
    NonBlocking,
}

pub(super) struct End {
    fd: OwnedFd,
    pub(super) is_socket: bool,
    /// The flags to leave it with: whoever shares its open file description has them, too.
    as_found: Option<OFlags>,
}

impl End {
    pub(super) fn new(fd: OwnedFd, mode: Mode) -> Self {
        let file_type = rustix::fs::fstat(&fd).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if file_type == Ok(FileType::Fifo) {
            // A user with many pipes may not have large ones; a small one is only slower.
            let _ = rustix::pipe::fcntl_setpipe_size(&fd, PIPE_BYTES);
        }
        let is_socket = file_type == Ok(FileType::Socket);
        let found = rustix::fs::fcntl_getfl(&fd).unwrap_or(OFlags::empty());
        let fits = match mode {
            Mode::Blocking => !found.contains(OFlags::NONBLOCK),
            Mode::NonBlocking => is_socket || found.contains(OFlags::NONBLOCK),
        };
        let as_found = (!fits).then_some(found);
        if as_found.is_some() {
            // Where this fails, so will the operations, with an errno that says more.
            let _ = rustix::fs::fcntl_setfl(&fd, found.symmetric_difference(OFlags::NONBLOCK));
        }
        Self {
            fd,
            is_socket,
            as_found,
        }
    }
}

impl AsFd for End {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(flags) = self.as_found {
            // Nobody can be told, and it may be nobody else's.
            let _ = rustix::fs::fcntl_setfl(&self.fd, flags);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_others_share_stays_as_it_is_where_calls_need_not_wait() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        for found in [OFlags::empty(), OFlags::NONBLOCK] {
            rustix::fs::fcntl_setfl(&ours, found).unwrap();
            let end = End::new(ours.try_clone().unwrap().into(), Mode::NonBlocking);
            assert!(end.is_socket);
            let flags = rustix::fs::fcntl_getfl(&ours).unwrap();
            assert_eq!(flags & OFlags::NONBLOCK, found);
        }
        drop(theirs);
    }

    #[test]
    fn a_descriptor_that_others_share_gets_its_flags_back() {
        let flags = |fd: &OwnedFd| rustix::fs::fcntl_getfl(fd).unwrap();
        for found in [OFlags::empty(), OFlags::NONBLOCK] {
            for mode in [Mode::Blocking, Mode::NonBlocking] {
                let (ours, _theirs) = std::io::pipe().unwrap();
                let ours = OwnedFd::from(ours);
                rustix::fs::fcntl_setfl(&ours, found).unwrap();
                let shared = ours.try_clone().unwrap();
                let end = End::new(ours, mode);
                let is_blocking = !flags(&shared).contains(OFlags::NONBLOCK);
                assert_eq!(is_blocking, mode == Mode::Blocking);
                drop(end);
                assert_eq!(flags(&shared) & OFlags::NONBLOCK, found);
            }
        }
    }
}
