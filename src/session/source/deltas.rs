//! The source's part in deltas: asks for sums, takes them in, and has chunks matched.

use super::{Action, SessionError, Source};
use crate::job::Work;
use crate::job::matching::MatchChunk;
use crate::limits::FRAME_HEAD_BYTES;
use crate::model::id::{FileId, ROOT};
use crate::model::report::{Tell, Why};
use crate::model::time::Moment;
use crate::ops::{BlockPool, Disk};
use crate::stage::sender::{After, Large};
use crate::wire::cursor::{Reader, Writer};
use crate::wire::report::Stop;
use crate::wire::sign::Section;
use crate::wire::{FrameKind, WireError};

impl<D: Disk> Source<D> {
    pub(super) fn poll_delta(&mut self, blocks: &BlockPool) -> Option<Action<D>> {
        let deltas = self.sender.deltas.as_ref()?;
        let (has_asks, has_chunk) = (deltas.has_asks(), deltas.has_chunk());
        if !has_asks && !has_chunk {
            return None;
        }
        let mut buf = self.take_block(blocks)?;
        if !has_asks {
            return match self.sender.next_match(buf) {
                Ok(job) => Some(Action::Job(Work::Match(Box::new(job)))),
                Err(_) => {
                    self.blocks_held -= 1;
                    None
                }
            };
        }
        let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        self.sender.deltas.as_mut()?.ask(&mut writer);
        let payload_bytes = writer.at();
        self.send(buf, FrameKind::Sign, payload_bytes);
        self.send_next(Moment::default())
    }

    pub(super) fn signature(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let mut reader = Reader::new(payload, "SIGNATURE frame");
        while !reader.is_at_end() {
            let section = Section::decode(&mut reader)?;
            let sums_bytes = section.sums.map_or(0, |(_, sums)| sums.len());
            self.totals.signature_bytes += sums_bytes as u64;
            self.sender.signed(&section)?;
        }
        Ok(())
    }

    pub(super) fn matched(&mut self, job: MatchChunk<D>) {
        let (file, offset) = (job.file, job.offset);
        if let Some(deltas) = &mut self.sender.deltas {
            deltas.matched(file, job.matching, job.scratch);
        }
        let digest = job.matched.as_ref().map(|matched| matched.digest);
        match job.matched {
            Some(matched) => {
                self.totals.literal_bytes += matched.literal_bytes;
                self.totals.matched_bytes += matched.copied_bytes;
                self.send(job.buf, matched.kind, matched.payload_bytes);
            }
            None => self.blocks_held -= 1,
        }
        match self.sender.chunk_read(file, offset, digest) {
            After::Check { .. } if job.is_unchanged => {
                self.finish_large(file, true, Why::Changing);
            }
            after @ (After::More | After::Check { .. } | After::Abandon) => {
                self.after_chunk(file, after);
            }
        }
    }

    fn resends(&mut self, file: FileId) {
        let Some(Large { plan, index, .. }) = self.sender.delta_of(file) else {
            return;
        };
        let entry = plan.listing.get(*index);
        let dir = self.scan.path(plan.id);
        let path = match &*dir {
            [] => entry.name.bytes().to_vec(),
            dir => [dir, b"/", entry.name.bytes()].concat(),
        };
        self.totals.files_resent += 1;
        self.tells.push_back(Tell::Resent { path });
    }

    pub(super) fn stops(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let mut reader = Reader::new(payload, "STOP frame");
        while !reader.is_at_end() {
            match Stop::decode(&mut reader)? {
                Stop::Dir(dir) => {
                    if let Some(node) = self.scan.node(dir) {
                        // Lost, it would never be declared, and what is asked for below it needs that.
                        if !node.is_declared && dir != ROOT {
                            return Err(WireError::UnknownDir(dir.0).into());
                        }
                        node.is_lost = true;
                    }
                }
                Stop::File(file) | Stop::Settled(file)
                    if let Some(large) = self.sender.settled(file) =>
                {
                    self.large_ended(large.plan.id);
                }
                Stop::Settled(_) => {}
                Stop::Again(file) => {
                    self.resends(file);
                    let after = self.sender.wanted_again(file);
                    self.after_chunk(file, after);
                }
                Stop::File(file) => {
                    let after = self.sender.stop(file);
                    self.after_chunk(file, after);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{plan, sources};
    use crate::limits::BLOCK_BYTES;
    use crate::model::entry::{Kind, Meta};
    use crate::model::id::{DirId, SessionId};
    use crate::model::policy::Policy;
    use crate::model::time::Mtime;
    use crate::ops::op::{Job, Progress};
    use crate::session::{Env, Event};
    use crate::sim::tree::Entry;
    use crate::sim::{DiskOptions, SimClock, SimDisk, Tree};
    use crate::wire::hello::{Hello, Rights, Welcome};
    use crate::wire::{Head, seal};

    /// Lets the source do what it can; the frames that it sends.
    fn turn(source: &mut Source<SimDisk>, disk: &SimDisk, blocks: &BlockPool) -> Vec<FrameKind> {
        let now = Moment(0);
        let mut sent = Vec::new();
        while let Some(action) = source.poll_action(&Env { now, blocks }) {
            match action {
                Action::Send { buf, .. } => {
                    sent.push(Head::decode(buf.first_chunk().unwrap()).unwrap().kind);
                    source.handle(Event::Sent);
                }
                Action::Job(mut work) => {
                    while work.run(disk) == Progress::Again {}
                    source.handle(Event::JobDone(work, true));
                }
                Action::End => break,
                Action::Read { .. } | Action::Write { .. } => panic!("nothing is large"),
            }
        }
        sent
    }

    fn tell(
        source: &mut Source<SimDisk>,
        blocks: &BlockPool,
        kind: FrameKind,
        fill: impl FnOnce(&mut Writer<'_>),
    ) {
        let mut buf = blocks.take().unwrap();
        let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        fill(&mut writer);
        let payload_bytes = writer.at();
        seal(&mut buf, kind, payload_bytes);
        let head = Head::decode(buf.first_chunk().unwrap()).unwrap();
        source.handle(Event::Frame { head, buf });
    }

    #[test]
    fn a_stop_of_a_directory_that_was_not_declared_yet_is_the_targets_error() {
        let disk = SimDisk::new(DiskOptions::default(), SimClock::default(), 1);
        let tree = Tree::empty().with(b"d", Entry::dir(0o755));
        disk.plant(b"/src", &tree).unwrap();
        let block = || &mut *Box::leak(vec![0; BLOCK_BYTES].into_boxed_slice());
        let blocks = BlockPool::new((0..4).map(|_| block()).collect());
        let typed = plan::Source {
            path: b"/src/".to_vec(),
            contents: true,
        };
        let hello = Hello {
            session: SessionId(7),
            policy: Policy::default(),
            patience: None,
            boot_id: [1; 16],
            sum_key: [0; 32],
            module: Vec::new(),
            dest: vec![b"t".to_vec()],
            dest_is_dir: true,
            dest_is_relative: false,
            single_file: false,
        };
        let mut source = Source::new(hello, false, false, sources::open(&disk, &[typed]));
        let sent = turn(&mut source, &disk, &blocks);
        assert_eq!(sent, [FrameKind::Hello, FrameKind::List]);
        let welcome = Welcome {
            rights: Rights::default(),
            file_named_by_dest: false,
            root: Meta {
                kind: Kind::Dir,
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: Mtime { sec: 1, nsec: 1 },
            },
            root_is_absent: false,
            root_dev: 1,
            root_ino: 1,
            boot_id: [2; 16],
        };
        tell(&mut source, &blocks, FrameKind::Welcome, |writer| {
            welcome.encode(writer);
        });
        // `d` is read, and asked for when ROOT's LISTING is there.
        assert_eq!(turn(&mut source, &disk, &blocks), []);
        tell(&mut source, &blocks, FrameKind::Stop, |writer| {
            Stop::Dir(DirId(1)).encode(writer);
        });
        let unknown = SessionError::Wire(WireError::UnknownDir(1));
        assert_eq!(source.outcome(), Err(&unknown));
    }
}
