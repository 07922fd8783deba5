//! What the source has in a directory, beside what the target has there: the two ascend together,
//! and an entry of the target's is gone when it was looked at.

use std::cmp::Ordering;

use super::Failure;
use super::alphabet::{Kind, Meta, Payload, Time};
use super::greeting::Welcome;
use super::listing::{Section, Status, Theirs};
use super::own::Entry;

/// What is to be done about an entry of the source's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It is there, as it is here.
    Same,
    /// Only owner, mode or time differ.
    Mend { sets_time: bool },
    /// Nothing is in its way.
    Make,
    /// A directory is where something else should be, or the other way round.
    Replace,
    /// Both are directories; do their own properties differ?
    Enter { differs: bool },
}

/// One directory while its listing comes in.
pub(super) struct Merge {
    own: Vec<Entry>,
    verdicts: Vec<Verdict>,
    /// The name that came last.
    last: Vec<u8>,
    extra: Vec<Vec<u8>>,
    keeps_extra: bool,
}

/// One directory when both sides are known.
pub(super) struct Merged {
    pub(super) entries: Vec<(Entry, Verdict)>,
    /// What only the target has.
    pub(super) extra: Vec<Vec<u8>>,
    pub(super) status: Status,
}

impl Merge {
    /// `own` ascends; names that only the target has are kept where they are asked for.
    pub(super) fn new(own: Vec<Entry>, keeps_extra: bool) -> Self {
        Self {
            own,
            verdicts: Vec::new(),
            last: Vec::new(),
            extra: Vec::new(),
            keeps_extra,
        }
    }

    pub(super) fn take_section(
        &mut self,
        section: Section,
        payload: &mut Payload<'_>,
        welcome: &Welcome,
    ) -> Result<(), Failure> {
        let mut name = Vec::new();
        for _ in 0..section.entries {
            let theirs = Theirs::read(payload, &mut name)?;
            if name <= self.last {
                return Err(Failure::protocol("a listing does not ascend"));
            }
            self.last.clone_from(&name);
            self.meet(&theirs, welcome);
        }
        Ok(())
    }

    /// The target has an entry of the name that came last.
    fn meet(&mut self, theirs: &Theirs, welcome: &Welcome) {
        while let Some(own) = self.own.get(self.verdicts.len()) {
            match own.name.cmp(&self.last) {
                Ordering::Less => self.verdicts.push(Verdict::Make),
                Ordering::Equal => {
                    self.verdicts.push(judge(own, theirs, welcome));
                    return;
                }
                Ordering::Greater => break,
            }
        }
        if self.keeps_extra {
            self.extra.push(self.last.clone());
        }
    }

    /// The last section was taken.
    pub(super) fn finish(mut self, status: Status) -> Merged {
        self.verdicts.resize(self.own.len(), Verdict::Make);
        Merged {
            entries: self.own.into_iter().zip(self.verdicts).collect(),
            extra: self.extra,
            status,
        }
    }
}

fn judge(own: &Entry, theirs: &Theirs, welcome: &Welcome) -> Verdict {
    let differs = differs(own.meta, theirs.meta, welcome);
    if own.kind == Kind::Directory && theirs.kind == Kind::Directory {
        return Verdict::Enter { differs };
    }
    if own.kind == Kind::Directory || theirs.kind == Kind::Directory {
        return Verdict::Replace;
    }
    let same_time = is_same_time(own.meta.mtime, theirs.meta.mtime);
    let same_content = own.kind == theirs.kind
        && match own.kind {
            Kind::File => own.size == theirs.size && same_time && !theirs.suspect,
            Kind::Symlink => own.size == theirs.size && same_time,
            Kind::CharacterDevice | Kind::BlockDevice => own.size == theirs.size,
            Kind::Fifo | Kind::Socket | Kind::Directory => true,
        };
    match (same_content, differs) {
        (false, _) => Verdict::Make,
        (true, true) => Verdict::Mend {
            sets_time: !same_time,
        },
        (true, false) => Verdict::Same,
    }
}

/// Is anything of the metadata other than it should be, as far as the target sets it?
pub(super) fn differs(own: Meta, theirs: Meta, welcome: &Welcome) -> bool {
    let wanted = if welcome.setid {
        own.permissions()
    } else {
        own.permissions() & 0o1777
    };
    let other_mode = own.kind() != Some(Kind::Symlink) && wanted != theirs.permissions();
    let other_owner = (own.uid, own.gid) != (theirs.uid, theirs.gid);
    other_mode || welcome.owners && other_owner || !is_same_time(own.mtime, theirs.mtime)
}

/// A target's file system may know seconds only.
fn is_same_time(own: Time, theirs: Time) -> bool {
    own.seconds == theirs.seconds && (own.nanos == theirs.nanos || theirs.nanos == 0)
}
