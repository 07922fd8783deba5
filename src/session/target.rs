//! The target of a push: joins the frames of one session to the jobs that list, apply and
//! commit. Operations apply in stream order, one PACK after the other; the content of large
//! files passes them by.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::digesting::Digesting;
pub use super::door::{Doorkeeper, Exports, OwnRights};
use super::owners::Owners;
use super::weaving::Weaving;
use super::{Action, Env, Event, SessionError};
use crate::job::Work;
use crate::job::apply_pack::{ApplyPack, Begun, Pass};
use crate::job::basis::Basis;
use crate::job::dest::{Finish, OpenDest, Retire};
use crate::job::large::Release;
use crate::job::list::{ListTarget, TargetDir};
use crate::job::prune::Prune;
use crate::job::tree::{Fatal, Outcomes, Tree};
use crate::limits::{
    ENDS_RUNNING_MAX, FRAME_HEAD_BYTES, INCOMING_FILES_MAX, LISTS_WAITING_MAX, NOTICES_WAITING_MAX,
    PACKS_MAKING_MAX, RECV_BLOCKS_PER_SESSION_MAX, SEND_BLOCKS_PER_SESSION_MAX,
};
use crate::model::entry::Kind;
use crate::model::id::{FileId, SessionId};
use crate::model::policy::Durability;
use crate::model::report::{Attempt, Exit, Totals, Why};
use crate::ops::disk::SharedFd;
use crate::ops::{BlockPool, Buf, Disk, Errno};
use crate::wire::cursor::{Reader, Writer};
use crate::wire::data::{DATA_HEAD_BYTES, DataHead, End};
use crate::wire::head::FileDigest;
use crate::wire::hello::{Hello, Refusal, Refused, Welcome};
use crate::wire::list::Request;
use crate::wire::report::{Done, NOTICE_BYTES_MAX, NOTICE_PATH_BYTES_MAX, Notice, Report, Stop};
use crate::wire::{FrameKind, Head, WireError, seal};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Next: Opening, Over.
    AwaitingHello,
    /// DEST is looked for. Next: Serving, Over.
    Opening,
    /// Next: Finishing.
    Serving,
    /// The last job runs. Next: Reporting.
    Finishing,
    /// REPORT is on its way, or was sent; the source hangs up. Next: Over.
    Reporting,
    Over,
}

mod deltas;
mod files;

/// A large file on its way in.
struct Incoming<D: Disk> {
    /// `None`: it could not be made, its content is dropped.
    fd: Option<SharedFd<D>>,
    /// What its TOKENS copy from.
    basis: Option<Basis<D>>,
    /// The source waits to hear that it has settled.
    is_delta: bool,
    /// Its basis was not what its sums said: it is dropped, and comes again.
    is_wrong: bool,
    /// It is updated where it stands, and had so many bytes.
    standing_bytes: Option<u64>,
    size: u64,
    has_holes: bool,
    received: u64,
    /// Of these, what the basis had.
    copied: u64,
    digest: FileDigest,
    writes_in_flight: u32,
    failed: Option<Errno>,
    end: Option<End>,
}

impl<D: Disk> Incoming<D> {
    /// Counts a chunk. Together they are no longer than BEGIN said, or it would be written for ever.
    fn enter(&mut self, file: FileId, head: &DataHead, bytes: u64) -> Result<(), WireError> {
        let is_inside = head
            .offset
            .checked_add(bytes)
            .is_some_and(|end| end <= self.size);
        let received = self.received.saturating_add(bytes);
        if self.end.is_some() || bytes == 0 || !is_inside || received > self.size {
            return Err(WireError::BeyondSize(file.0));
        }
        self.received = received;
        self.digest.add(head.offset, head.digest);
        Ok(())
    }
}

/// A frame that waits for the PACK before it.
struct Held {
    head: Head,
    buf: Buf,
}

pub struct Target<D: Disk> {
    state: State,
    doorkeeper: Arc<dyn Doorkeeper>,
    /// A server that stays syncs after the REPORT and removes the marker.
    stays: bool,
    hello: Option<Hello>,
    tree: Option<Arc<Tree<D>>>,
    jobs: VecDeque<Work<D>>,
    packs: VecDeque<(Buf, usize)>,
    is_applying: bool,
    /// A PACK that had much to tell and waits until that is told.
    applying: Option<Box<ApplyPack<D>>>,
    /// The deletion that a session broke off in.
    prune: Option<Prune<D>>,
    /// PACKs whose entries are still to be made.
    making: VecDeque<Box<ApplyPack<D>>>,
    making_running: usize,
    owners: Owners,
    /// What is done with the bases of files.
    weaving: Weaving<D>,
    digesting: Digesting<D>,
    requests: VecDeque<TargetDir<D>>,
    is_listing: bool,
    /// A list job whose frame went out and that wants another block.
    listing: Option<Box<ListTarget<D>>>,
    incoming: HashMap<FileId, Incoming<D>>,
    writes: VecDeque<(FileId, SharedFd<D>, Buf, usize, u64)>,
    held: Option<Held>,
    ends_running: usize,
    /// Of these, files of which nothing is kept.
    drops_running: usize,
    /// Holes that are made count as writes.
    writes_running: usize,
    is_done: bool,
    notices: VecDeque<Note>,
    stops: VecDeque<Stop>,
    outbox: VecDeque<(Buf, usize)>,
    is_sending: bool,
    recv_held: usize,
    send_held: usize,
    owed: Option<Owed>,
    is_retiring: bool,
    is_retired: bool,
    fatal: Option<Fatal>,
    error: Option<SessionError>,
    finished: bool,
    peak_rss_bytes: u64,
    /// What the last sync made true.
    reached: Durability,
    totals: Totals,
    /// Its direction of the stream has ended after all that counts; it may listen still.
    source_is_through: bool,
    /// It does not listen any more.
    source_hung_up: bool,
}

/// A frame that waits for a block.
enum Owed {
    Welcome(Welcome),
    Refused(Refused),
    Report,
}

/// What a NOTICE will say.
enum Note {
    Deleted(bool, Vec<u8>),
    Failed(Attempt, Why, Vec<u8>),
}

impl<D: Disk> Target<D> {
    pub fn new(doorkeeper: Arc<dyn Doorkeeper>, stays: bool) -> Self {
        Self {
            state: State::AwaitingHello,
            doorkeeper,
            stays,
            hello: None,
            tree: None,
            jobs: VecDeque::new(),
            packs: VecDeque::new(),
            is_applying: false,
            applying: None,
            prune: None,
            making: VecDeque::new(),
            making_running: 0,
            owners: Owners::default(),
            weaving: Weaving::default(),
            digesting: Digesting::default(),
            requests: VecDeque::new(),
            is_listing: false,
            listing: None,
            incoming: HashMap::new(),
            writes: VecDeque::new(),
            held: None,
            ends_running: 0,
            drops_running: 0,
            writes_running: 0,
            is_done: false,
            notices: VecDeque::new(),
            stops: VecDeque::new(),
            outbox: VecDeque::new(),
            is_sending: false,
            recv_held: 0,
            send_held: 0,
            owed: None,
            is_retiring: false,
            is_retired: false,
            fatal: None,
            error: None,
            finished: false,
            peak_rss_bytes: 0,
            reached: Durability::None,
            totals: Totals::default(),
            source_is_through: false,
            source_hung_up: false,
        }
    }

    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    pub fn is_greeted(&self) -> bool {
        self.tree.is_some()
    }

    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// The number that its temp files and its marker bear.
    pub fn names_files_by(&self) -> Option<SessionId> {
        self.tree.as_ref().map(|tree| tree.session)
    }

    pub fn error(&self) -> Option<&SessionError> {
        self.error.as_ref()
    }

    /// Frames of the source that it still answers for; none once it is over.
    pub fn frames_held_count(&self) -> usize {
        self.recv_held
    }

    /// Whether it got to its REPORT.
    pub fn has_reported(&self) -> bool {
        self.finished
    }

    pub fn exit(&self) -> Exit {
        match &self.error {
            Some(error) => error.exit(),
            None => self.report_exit(),
        }
    }

    /// Why it could not go on, where that was its disk's or DEST's doing.
    pub fn fatal_why(&self) -> Option<String> {
        let fatal = self.fatal.as_ref();
        fatal.map(|fatal| std::io::Error::from(fatal.errno).to_string())
    }

    /// The target's counts.
    pub fn totals(&self) -> Totals {
        let mut totals = self.totals;
        if let Some(tree) = &self.tree {
            let counts = tree.counts();
            totals.files_sent = counts.files_made;
            totals.literal_bytes += counts.literal_bytes;
            totals.dirs_made = counts.dirs_made;
            totals.meta_fixed = counts.meta_fixed;
            totals.files_deleted = counts.deleted;
            totals.deletes_skipped = counts.deletes_skipped;
            totals.errors = counts.errors;
        }
        totals
    }

    pub fn wants_frame(&self) -> bool {
        let has_room = self.recv_held < RECV_BLOCKS_PER_SESSION_MAX
            && self.held.is_none()
            && self.notices.len() < NOTICES_WAITING_MAX
            && self.stops.len() < NOTICES_WAITING_MAX
            && self.requests.len() < LISTS_WAITING_MAX;
        match self.state {
            State::AwaitingHello | State::Reporting => true,
            State::Serving => has_room && !self.is_done,
            State::Opening | State::Finishing | State::Over => false,
        }
    }

    /// The source has ended its direction of the stream; whether it had said all that counts.
    pub fn heard_end(&mut self) -> bool {
        self.source_is_through = self.state == State::Reporting;
        self.source_is_through
    }

    pub fn handle(&mut self, event: Event<D>) {
        let outcome = match event {
            Event::Frame { head, buf } => {
                self.totals.wire_received_bytes += (FRAME_HEAD_BYTES + head.payload_bytes) as u64;
                self.recv_held += 1;
                self.frame(head, buf)
            }
            Event::Sent => {
                self.is_sending = false;
                self.send_held -= 1;
                Ok(())
            }
            Event::JobDone(work, is_good) => self.job_done(work, is_good),
            Event::Written { file, result } => {
                self.recv_held -= 1;
                self.writes_running -= 1;
                self.written(file, result);
                Ok(())
            }
            Event::Read { .. } => unreachable!("a target reads files in jobs only"),
            Event::Broken(error) => {
                // A frame that is not allowed leaves the stream standing: the source hears why.
                self.source_hung_up = !matches!(error, SessionError::Wire(_));
                if self.state == State::Reporting && self.finished {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            Event::Stopped(error) => {
                self.source_hung_up |= self.state == State::Reporting;
                Err(error)
            }
        };
        if let Err(error) = outcome {
            self.fail(error);
        }
    }

    fn fail(&mut self, error: SessionError) {
        if self.error.is_none() && !self.finished {
            self.error = Some(error);
        }
    }

    /// The next thing to do, or `None` until another event.
    pub fn poll_action(&mut self, env: &Env<'_>) -> Option<Action<D>> {
        if self.state == State::Over {
            return None;
        }
        if self.error.is_some() || self.source_hung_up || self.fatal.is_some() {
            self.break_off();
        }
        if let Some(work) = self.jobs.pop_front() {
            return Some(Action::Job(work));
        }
        if let Some(action) = self.send_next() {
            return Some(action);
        }
        if let Some((file, fd, buf, len, offset)) = self.writes.pop_front() {
            self.writes_running += 1;
            return Some(Action::Write {
                file,
                fd,
                buf,
                at: FRAME_HEAD_BYTES + DATA_HEAD_BYTES,
                len,
                offset,
            });
        }
        let has_notes = self.has_notes();
        if has_notes && !self.source_hung_up && matches!(self.owed, Some(Owed::Report)) {
            return self.poll_notices(env.blocks); // All that is to be told comes before the REPORT.
        }
        if let Some(owed) = self.owed.take_if(|_| !self.source_hung_up)
            && let Some(action) = self.pay(owed, env.blocks)
        {
            return Some(action);
        }
        match self.state {
            State::Serving => self.poll_serving(env),
            State::Reporting => self.poll_reporting(),
            State::AwaitingHello | State::Opening | State::Finishing | State::Over => None,
        }
    }

    /// Sends what is owed, as soon as there is a block for it.
    fn pay(&mut self, owed: Owed, blocks: &BlockPool) -> Option<Action<D>> {
        let Some(mut buf) = self.take_block(blocks) else {
            self.owed = Some(owed);
            return None;
        };
        let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        let kind = match &owed {
            Owed::Welcome(welcome) => {
                welcome.encode(&mut writer);
                FrameKind::Welcome
            }
            Owed::Refused(refused) => {
                refused.encode(&mut writer);
                FrameKind::Refused
            }
            Owed::Report => {
                self.report().encode(&mut writer);
                FrameKind::Report
            }
        };
        let payload_bytes = writer.at();
        self.finished |= kind == FrameKind::Report;
        self.send(buf, kind, payload_bytes);
        self.send_next()
    }

    fn report(&self) -> Report {
        let counts = self.tree().counts();
        let place = match &self.fatal {
            Some(fatal) if !fatal.path.is_empty() => &*fatal.path,
            Some(_) | None => b"DEST",
        };
        let text = self.fatal_why();
        let text = text.map(|why| [place, b": ", why.as_bytes()].concat());
        Report {
            exit: self.report_exit(),
            durability: self.reached,
            files_made: counts.files_made,
            dirs_made: counts.dirs_made,
            meta_fixed: counts.meta_fixed,
            deleted: counts.deleted,
            deletes_skipped: counts.deletes_skipped,
            errors: counts.errors,
            peak_rss_bytes: self.peak_rss_bytes,
            text: text.unwrap_or_default(),
        }
    }

    fn poll_reporting(&mut self) -> Option<Action<D>> {
        // Who has hung up, or is silent for too long, does not read what is still to be sent.
        let is_saying = self.is_sending || !self.outbox.is_empty();
        if (is_saying && !self.source_hung_up) || self.is_retiring {
            return None;
        }
        let must_retire = self.stays && self.finished && !self.is_retired && self.fatal.is_none();
        if must_retire {
            self.is_retiring = true;
            return Some(Action::Job(Work::Retire(Retire::new(self.tree()))));
        }
        // The source hangs up when it has read the last word; closing before could cut it off.
        let nothing_was_said = self.error.is_some() && self.refusal().is_none();
        let all_was_said = self.source_is_through && self.owed.is_none();
        if self.source_hung_up || nothing_was_said || all_was_said {
            self.state = State::Over;
            return Some(Action::End);
        }
        None
    }

    fn poll_serving(&mut self, env: &Env<'_>) -> Option<Action<D>> {
        let may_go_on = |held: &mut Held| {
            self.incoming.contains_key(&held.file()) || (!self.is_applying && self.packs.is_empty())
        };
        if let Some(held) = self.held.take_if(may_go_on) {
            if let Err(error) = self.frame(held.head, held.buf) {
                self.fail(error);
            }
            return self.poll_action(env);
        }
        let may_tell_more =
            self.notices.len() < NOTICES_WAITING_MAX && self.stops.len() < NOTICES_WAITING_MAX;
        if may_tell_more && let Some(job) = self.applying.take() {
            return Some(Action::Job(Work::Apply(job)));
        }
        if may_tell_more
            && self.making_running < PACKS_MAKING_MAX
            && let Some(job) = self.making.pop_front()
        {
            self.making_running += 1;
            return Some(Action::Job(Work::Apply(job)));
        }
        if let Some(tree) = &self.tree
            && let Some(job) = self.owners.next_job(tree)
        {
            return Some(Action::Job(Work::ResolveOwners(job)));
        }
        if !self.is_applying
            && may_tell_more
            && self.owners.are_known()
            && self.ends_running < ENDS_RUNNING_MAX
            && !self.is_letting_go()
            && let Some((buf, payload_bytes)) = self.packs.pop_front()
        {
            self.is_applying = true;
            let job = ApplyPack::new(self.tree(), buf, payload_bytes);
            return Some(Action::Job(Work::Apply(Box::new(job))));
        }
        if let Some(action) = self.poll_weaving(env.blocks) {
            return Some(action);
        }
        if let Some(job) = self.digesting.next_job() {
            return Some(Action::Job(Work::Digest(job)));
        }
        let has_notes = self.has_notes();
        if has_notes && let Some(action) = self.poll_notices(env.blocks) {
            return Some(action);
        }
        if self.owners.has_news()
            && let Some(mut buf) = self.take_block(env.blocks)
        {
            let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
            self.owners.tell(&mut writer);
            let payload_bytes = writer.at();
            self.send(buf, FrameKind::Mapped, payload_bytes);
            return self.send_next();
        }
        if self.digesting.has_answer()
            && let Some(mut buf) = self.take_block(env.blocks)
        {
            let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
            self.digesting.answer(&mut writer);
            let payload_bytes = writer.at();
            self.send(buf, FrameKind::Digests, payload_bytes);
            if let Some(action) = self.send_next() {
                return Some(action);
            }
        }
        if !self.is_listing
            && self.owners.are_told()
            && (self.listing.is_some() || !self.requests.is_empty())
            && let Some(buf) = self.take_block(env.blocks)
        {
            self.is_listing = true;
            let job = match self.listing.take() {
                Some(mut job) => {
                    job.buf = Some(buf);
                    job.payload_bytes = 0;
                    job
                }
                None => Box::new(ListTarget::new(
                    self.tree(),
                    self.requests.drain(..).collect(),
                    buf,
                )),
            };
            return Some(Action::Job(Work::ListTarget(job)));
        }
        if self.is_done && self.is_quiet() && !has_notes {
            if let Some(file) = self.incoming.keys().next() {
                let error = WireError::UnknownFile(file.0).into();
                self.fail(error);
                // No event would come of itself before the next sign of life.
                return self.poll_action(env);
            }
            self.state = State::Finishing;
            return Some(Action::Job(Work::Finish(Finish::new(self.tree(), false))));
        }
        None
    }

    /// Nothing of the session is under way any more, but for what is being sent.
    fn is_quiet(&self) -> bool {
        self.packs.is_empty()
            && !self.is_applying
            && self.making.is_empty()
            && self.making_running == 0
            && !self.is_listing
            && self.listing.is_none()
            && self.requests.is_empty()
            && self.ends_running == 0
            && self.writes_running == 0
            && self.writes.is_empty()
            && self.held.is_none()
            && self.weaving.is_idle()
            && self.digesting.is_idle()
            && self.owners.are_told()
    }

    /// The session can't go on: what is under way comes back, leftovers go, the source hears why.
    fn break_off(&mut self) {
        if let Some(job) = self.applying.take() {
            self.is_applying = false;
            self.recv_held -= 1;
            self.prune = job.into_prune();
        }
        self.recv_held -= self.packs.len() + self.making.len() + usize::from(self.held.is_some());
        self.packs.clear();
        self.making.clear();
        self.held = None;
        self.recv_held -= self.weaving.drop_waiting();
        self.digesting.drop_waiting();
        self.requests.clear();
        self.listing = None;
        self.owners.drop_waiting();
        match self.state {
            State::AwaitingHello => self.owe_last(),
            State::Serving if self.is_quiet() => {
                self.state = State::Finishing;
                let mut finish = Finish::new(self.tree(), true);
                finish.prune = self.prune.take();
                finish.kept = self.worth_keeping();
                self.jobs.push_back(Work::Finish(finish));
            }
            State::Serving | State::Opening | State::Finishing | State::Reporting | State::Over => {
            }
        }
    }

    /// REPORT, or REFUSED where somebody still listens.
    fn owe_last(&mut self) {
        self.state = State::Reporting;
        self.owed = match self.error {
            Some(_) => self
                .refusal()
                .filter(|_| !self.source_hung_up)
                .map(Owed::Refused),
            None => Some(Owed::Report),
        };
    }

    fn refusal(&self) -> Option<Refused> {
        let (refusal, text) = match self.error.as_ref()? {
            SessionError::Refused(refused) => return Some(refused.clone()),
            SessionError::Wire(WireError::NotSy(_)) => return None,
            SessionError::Wire(error @ WireError::Version { .. }) => {
                (Refusal::Version, error.to_string())
            }
            SessionError::Wire(error) => (Refusal::Protocol, error.to_string()),
            error @ (SessionError::Silent(_) | SessionError::Slow(_)) => {
                (Refusal::Timeout, error.to_string())
            }
            SessionError::ShuttingDown => (Refusal::ShuttingDown, String::new()),
            SessionError::Internal => (Refusal::Protocol, "internal error".to_owned()),
            SessionError::Lost(_)
            | SessionError::Disk { .. }
            | SessionError::EmptySource
            | SessionError::OntoItself
            | SessionError::Signal(_) => return None,
        };
        Some(Refused {
            refusal,
            text: text.into_bytes(),
        })
    }

    fn tree(&self) -> Arc<Tree<D>> {
        Arc::clone(self.tree.as_ref().expect("serving"))
    }

    fn take_block(&mut self, blocks: &BlockPool) -> Option<Buf> {
        if self.send_held >= SEND_BLOCKS_PER_SESSION_MAX {
            return None;
        }
        let buf = blocks.take()?;
        self.send_held += 1;
        Some(buf)
    }

    fn send(&mut self, mut buf: Buf, kind: FrameKind, payload_bytes: usize) {
        let len = seal(&mut buf, kind, payload_bytes);
        self.outbox.push_back((buf, len));
    }

    fn send_next(&mut self) -> Option<Action<D>> {
        if self.is_sending {
            return None;
        }
        let (buf, len) = self.outbox.pop_front()?;
        if self.source_hung_up {
            self.send_held -= 1;
            return None;
        }
        self.is_sending = true;
        self.totals.wire_sent_bytes += len as u64;
        Some(Action::Send { buf, len })
    }

    fn has_notes(&self) -> bool {
        !self.notices.is_empty() || !self.stops.is_empty()
    }

    fn poll_notices(&mut self, blocks: &BlockPool) -> Option<Action<D>> {
        let mut buf = self.take_block(blocks)?;
        let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        let kind = if self.stops.is_empty() {
            FrameKind::Notice
        } else {
            FrameKind::Stop
        };
        if kind == FrameKind::Stop {
            while writer.room() >= NOTICE_BYTES_MAX
                && let Some(stop) = self.stops.pop_front()
            {
                stop.encode(&mut writer);
            }
        }
        while kind == FrameKind::Notice
            && writer.room() >= NOTICE_BYTES_MAX
            && let Some(note) = self.notices.pop_front()
        {
            note.encode(&mut writer);
        }
        let payload_bytes = writer.at();
        self.send(buf, kind, payload_bytes);
        self.send_next()
    }

    // ---- frames of the source ----

    fn frame(&mut self, head: Head, buf: Buf) -> Result<(), SessionError> {
        let payload_bytes = head.payload_bytes;
        let is_over =
            self.error.is_some() || self.fatal.is_some() || self.state == State::Reporting;
        if is_over || head.kind == FrameKind::Ignorable {
            self.recv_held -= 1; // What is still coming down the stream is read and dropped.
            return Ok(());
        }
        let out_of_order = WireError::OutOfOrder {
            frame: head.kind.name(),
        };
        if self.state == State::AwaitingHello {
            self.recv_held -= 1;
            if head.kind != FrameKind::Hello {
                return Err(out_of_order.into());
            }
            return self.greeted(Hello::decode(&buf[FRAME_HEAD_BYTES..][..payload_bytes])?);
        }
        match head.kind {
            FrameKind::Pack => {
                self.packs.push_back((buf, payload_bytes));
                return Ok(());
            }
            FrameKind::Data | FrameKind::Tokens | FrameKind::End => {
                return self.file_frame(head, buf);
            }
            FrameKind::List
            | FrameKind::Sign
            | FrameKind::Check
            | FrameKind::Owners
            | FrameKind::Done => {}
            FrameKind::Hello
            | FrameKind::Welcome
            | FrameKind::Listing
            | FrameKind::Notice
            | FrameKind::Stop
            | FrameKind::Report
            | FrameKind::Refused
            | FrameKind::Signature
            | FrameKind::Mapped
            | FrameKind::Digests
            | FrameKind::Ignorable => {
                self.recv_held -= 1;
                return Err(out_of_order.into());
            }
        }
        self.recv_held -= 1;
        let payload = &buf[FRAME_HEAD_BYTES..][..payload_bytes];
        if head.kind == FrameKind::List {
            return self.listed(payload);
        }
        if head.kind == FrameKind::Sign {
            return Ok(self.weaving.asked(payload)?);
        }
        if head.kind == FrameKind::Check {
            return Ok(self.digesting.asked(payload, &self.tree())?);
        }
        if head.kind == FrameKind::Owners {
            let tree = self.tree();
            let are_set = tree.rights.owners && !tree.policy.numeric_ids;
            return Ok(self.owners.take(payload, are_set)?);
        }
        Done::decode(payload)?;
        let is_settled = self.packs.is_empty() && !self.is_applying;
        let unfinished = self
            .incoming
            .iter()
            .find(|(_, incoming)| is_settled && incoming.end.is_none());
        if let Some((file, _)) = unfinished {
            return Err(WireError::UnknownFile(file.0).into());
        }
        self.is_done = true;
        Ok(())
    }

    fn greeted(&mut self, hello: Hello) -> Result<(), SessionError> {
        let admitted = self.doorkeeper.admit(&hello.module);
        self.weaving.set_key(&hello.sum_key);
        self.digesting.set_key(&hello.sum_key);
        self.hello = Some(hello.clone());
        let (scope, rights) = admitted.map_err(|refusal| {
            SessionError::Refused(Refused {
                refusal,
                text: hello.module.clone(),
            })
        })?;
        self.state = State::Opening;
        self.jobs.push_back(Work::OpenDest(Box::new(OpenDest::new(
            hello, scope, rights,
        ))));
        Ok(())
    }

    fn listed(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let tree = self.tree();
        let mut reader = Reader::new(payload, "LIST frame");
        while !reader.is_at_end() {
            let Request {
                dir: id,
                parent,
                name,
            } = Request::decode(&mut reader)?;
            let (dir, is_absent) = tree.declare(id, parent, name)?;
            self.requests.push_back(TargetDir { id, dir, is_absent });
        }
        Ok(())
    }

    // ---- jobs that came back ----

    fn job_done(&mut self, work: Work<D>, is_good: bool) -> Result<(), SessionError> {
        match work {
            Work::OpenDest(job) => self.opened(*job)?,
            Work::ResolveOwners(job) => self.owners.resolved(job.mapped),
            Work::ListTarget(job) => self.list_done(job),
            Work::Apply(job) => self.applied(job)?,
            Work::Sign(job) => self.signed(*job),
            Work::Digest(job) => self.digesting.came_back(job),
            Work::Weave(job) => self.woven(*job)?,
            Work::Punch(job) => self.punched(job),
            Work::EndLarge(mut job) => {
                self.ends_running -= 1;
                self.drops_running -= usize::from(job.is_dropped());
                let outcomes = std::mem::take(&mut job.outcomes);
                self.jobs.extend(Release::of(job).map(Work::Release));
                self.take_outcomes(outcomes)?;
            }
            Work::Release(_) => {}
            Work::Finish(job) => self.finish_done(job)?,
            Work::Retire(_) => {
                self.is_retiring = false;
                self.is_retired = true;
            }
            Work::ListSource(_)
            | Work::Pack(_)
            | Work::OpenLarge(_)
            | Work::Match(_)
            | Work::CheckLarge(_) => unreachable!("jobs of the source"),
        }
        if is_good {
            Ok(())
        } else {
            Err(SessionError::Internal)
        }
    }

    fn opened(&mut self, job: OpenDest<D>) -> Result<(), SessionError> {
        self.state = State::AwaitingHello; // Until it is certain that there is a tree.
        let outcome = job.outcome.ok_or(SessionError::Internal)?;
        let (tree, welcome) = outcome.map_err(SessionError::Refused)?;
        self.tree = Some(tree);
        self.state = State::Serving;
        self.owed = Some(Owed::Welcome(welcome));
        Ok(())
    }

    fn list_done(&mut self, mut job: Box<ListTarget<D>>) {
        self.is_listing = false;
        for trouble in job.troubles.drain(..) {
            self.tree().count(|counts| counts.errors += 1);
            self.notices
                .push_back(Note::Failed(trouble.what, trouble.why, trouble.path));
        }
        let Some(buf) = job.buf.take() else { return };
        if job.payload_bytes > 0 && self.error.is_none() && self.fatal.is_none() {
            self.send(buf, FrameKind::Listing, job.payload_bytes);
        } else {
            self.send_held -= 1;
        }
        if !job.is_finished() {
            self.listing = Some(job);
        }
    }

    fn applied(&mut self, mut job: Box<ApplyPack<D>>) -> Result<(), SessionError> {
        let outcomes = std::mem::take(&mut job.outcomes);
        let begun = std::mem::take(&mut job.begun);
        let is_over = outcomes.error.is_some() || outcomes.fatal.is_some();
        let (pass, is_through) = (job.pass(), job.is_through());
        match pass {
            Pass::First if !is_through && !is_over => self.applying = Some(job),
            Pass::First => {
                self.is_applying = false;
                if !is_over && job.turn_to_entries() {
                    self.making.push_back(job);
                } else {
                    self.recv_held -= 1;
                }
            }
            Pass::Second => {
                self.making_running -= 1;
                if !is_through && !is_over {
                    self.making.push_front(job);
                } else {
                    self.recv_held -= 1;
                }
            }
        }
        for Begun {
            file,
            size,
            fd,
            basis,
            is_delta,
            standing_bytes,
        } in begun
        {
            let is_lost = fd.is_none();
            let incoming = Incoming {
                fd,
                basis,
                is_delta,
                is_wrong: false,
                standing_bytes,
                size,
                has_holes: false,
                received: 0,
                copied: 0,
                digest: FileDigest::default(),
                writes_in_flight: 0,
                failed: None,
                end: None,
            };
            if self.incoming.insert(file, incoming).is_some() {
                return Err(WireError::FileTwice(file.0).into());
            }
            if self.incoming.len() > INCOMING_FILES_MAX {
                return Err(WireError::TooMany {
                    what: "large files under way",
                    max: INCOMING_FILES_MAX,
                }
                .into());
            }
            if is_lost {
                self.stops.push_back(Stop::File(file));
            }
        }
        self.take_outcomes(outcomes)
    }

    fn take_outcomes(&mut self, outcomes: Outcomes) -> Result<(), SessionError> {
        let Outcomes {
            troubles,
            deleted,
            stopped_dirs,
            fatal,
            error,
        } = outcomes;
        self.notices.extend(
            deleted
                .into_iter()
                .map(|(is_dir, path)| Note::Deleted(is_dir, path)),
        );
        self.notices.extend(
            troubles
                .into_iter()
                .map(|(attempt, why, path)| Note::Failed(attempt, why, path)),
        );
        self.stops.extend(stopped_dirs.into_iter().map(Stop::Dir));
        if self.fatal.is_none() {
            self.fatal = fatal;
        }
        error.map_or(Ok(()), |error| Err(error.into()))
    }

    fn finish_done(&mut self, job: Finish<D>) -> Result<(), SessionError> {
        let is_synced = job
            .outcomes
            .troubles
            .iter()
            .all(|(attempt, ..)| *attempt != Attempt::Sync);
        if is_synced && !job.is_abandoned && !self.tree().has_failed_sync() {
            self.reached = self.tree().policy.durability;
        }
        self.peak_rss_bytes = job.peak_rss_bytes;
        let outcomes = self.take_outcomes(job.outcomes);
        self.owe_last();
        outcomes
    }

    fn report_exit(&self) -> Exit {
        let counts = self
            .tree
            .as_ref()
            .map(|tree| tree.counts())
            .unwrap_or_default();
        match &self.fatal {
            Some(fatal) => fatal.exit(),
            None if counts.errors > 0 => Exit::Partial,
            None if counts.deletes_skipped > 0 => Exit::DeleteLimit,
            None => Exit::Ok,
        }
    }
}

impl Held {
    /// The file that a DATA or END frame is about; one too short to say is about none.
    fn file(&self) -> FileId {
        let payload = &self.buf[FRAME_HEAD_BYTES..][..self.head.payload_bytes];
        FileId(
            payload
                .first_chunk()
                .map_or(0, |id| u32::from_le_bytes(*id)),
        )
    }
}

impl Note {
    fn encode(&self, writer: &mut Writer<'_>) {
        let notice = match self {
            Self::Deleted(is_dir, path) => Notice::Deleted {
                kind: if *is_dir { Kind::Dir } else { Kind::File },
                path: shorten(path),
            },
            Self::Failed(attempt, why, path) => Notice::Failed {
                attempt: *attempt,
                why: *why,
                path: shorten(path),
            },
        };
        notice.encode(writer);
    }
}

/// A path too deep to tell loses its beginning: the end says more.
fn shorten(path: &[u8]) -> &[u8] {
    &path[path.len().saturating_sub(NOTICE_PATH_BYTES_MAX)..]
}
