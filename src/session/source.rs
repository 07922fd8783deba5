//! The source of a push: joins scan, generator, packer and sender to the frames of one session.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Action, Env, Event, SessionError};
use crate::job::Work;
use crate::job::dir::FdCache;
use crate::job::list::{ListSource, Origin, SourceDir};
use crate::job::owners::Met;
use crate::job::read_pack::{DirPlan, PackJob, Verdict, entry_bytes};
use crate::limits::{
    DIR_FDS_OPEN_MAX, FRAME_HEAD_BYTES, OWNERS_DECLARED_MAX, SEND_BLOCKS_PER_SESSION_MAX,
};
use crate::model::entry::{Kind, Meta, Stat};
use crate::model::id::{DirId, ROOT};
use crate::model::listing::Listing;
use crate::model::name::Name;
use crate::model::owner::OwnerMap;
use crate::model::policy::Durability;
use crate::model::report::{Attempt, Change, Exit, Side, Tell, Totals, Trouble, What, Why};
use crate::model::time::Moment;
use crate::ops::{BlockPool, Buf, Disk};
use crate::stage::checks::{CheckBounds, Checking, Checks};
use crate::stage::delta::{DeltaRules, Deltas};
use crate::stage::generator::{Merge, Merged, Rules, dir_differs};
use crate::stage::packer::{Building, Packer};
use crate::stage::scan::{Known, LookAhead, Node, Progress, Scan};
use crate::stage::sender::{Chunk, Sender};
use crate::wire::cursor::{Reader, Writer};
use crate::wire::data::{DATA_HEAD_BYTES, End};
use crate::wire::hello::{Hello, Refused, Welcome};
use crate::wire::list::{ListingReader, REQUEST_BYTES_MAX, Request, Section, Status};
use crate::wire::owners::Mapped;
use crate::wire::pack::{PackOp, Room};
use crate::wire::report::{Done, Notice, Report};
use crate::wire::{FrameKind, Head, WireError, seal};

mod checks;
mod deltas;
mod larges;

/// What is pushed.
pub struct Sources<D: Disk> {
    /// The directories that ROOT is made of.
    pub origins: Vec<Origin<D>>,
    /// Entries named on the command line, by their names in ROOT.
    pub given: Listing,
    /// The one file that is pushed, where DEST may give it another name: its name in the source.
    pub single_file: Option<Box<[u8]>>,
    /// DEST's last component: that other name.
    pub dest_name: Option<Box<[u8]>>,
    /// Sources that could not be used at all.
    pub troubles: Vec<Trouble>,
}

/// Frames that wait for their turn to be sent before no further chunk is read: the one that is next, and one in
/// reserve. More only fall out of the processor's cache until they are sent: with eight, 1 GiB took 0.77 s of the
/// client's CPU, with two 0.63.
const FRAMES_READY_MAX: usize = 2;
/// PACKs that are filled at the same time.
const PACKS_RUNNING_MAX: usize = 2;
/// List jobs that run at the same time.
const LISTS_RUNNING_MAX: usize = 2;

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    /// Next: Greeting.
    New,
    /// HELLO is out. Next: Pushing, Over.
    Greeting,
    /// Next: Reporting, Over.
    Pushing,
    /// DONE is out. Next: Over.
    Reporting,
    Over,
}

pub struct Source<D: Disk> {
    state: State,
    hello: Hello,
    allow_empty_source: bool,
    wants_items: bool,
    welcome: Option<Welcome>,
    sources: Option<Sources<D>>,
    single_file: Option<Box<[u8]>>,
    dest_name: Option<Box<[u8]>>,
    /// ROOT takes its metadata, and may lose entries: some source gives its contents.
    root_is_listed: bool,
    /// One source, by its name.
    has_one_name: bool,
    /// What ROOT is made of at the source, once it is listed; that may be before WELCOME tells the target's.
    root_stats: Vec<Stat>,
    cache: Arc<FdCache<D>>,
    /// Where owners go by name: those that were met.
    met: Option<Arc<Met>>,
    /// The target's numbers of them.
    owners: Arc<OwnerMap>,
    scan: Scan<D>,
    packer: Packer<D>,
    sender: Sender<D>,
    checks: Checks<D>,
    root_job: Option<SourceDir<D>>,
    /// The directory whose LISTING has more to come.
    listing_of: Option<DirId>,
    /// Directories whose LIST is to be sent.
    requests: VecDeque<DirId>,
    jobs: VecDeque<Work<D>>,
    ends: VecDeque<End>,
    outbox: VecDeque<(Buf, usize)>,
    is_sending: bool,
    lists_running: usize,
    /// Blocks that are filled, wait to be sent, or are being sent.
    blocks_held: usize,
    /// A source could not be read in full: no deletes from here on.
    scan_failed: bool,
    tells: VecDeque<Tell>,
    totals: Totals,
    report: Option<Report>,
    error: Option<SessionError>,
    first_payload: Option<Moment>,
    has_sent_done: bool,
}

impl<D: Disk> Source<D> {
    pub fn new(
        hello: Hello,
        allow_empty_source: bool,
        wants_items: bool,
        sources: Sources<D>,
    ) -> Self {
        let cache = Arc::new(FdCache::new(DIR_FDS_OPEN_MAX));
        let checks = Checks::new(&hello.sum_key);
        let root_is_listed = sources.origins.iter().any(|origin| origin.is_listed);
        let has_one_name = !root_is_listed && sources.given.len() == 1;
        Self {
            state: State::New,
            met: (!hello.policy.numeric_ids).then(Arc::default),
            owners: Arc::default(),
            hello,
            allow_empty_source,
            wants_items,
            welcome: None,
            single_file: sources.single_file.clone(),
            dest_name: sources.dest_name.clone(),
            root_is_listed,
            has_one_name,
            root_stats: Vec::new(),
            scan: Scan::new(sources.origins.clone()),
            sources: Some(sources),
            cache,
            packer: Packer::default(),
            sender: Sender::new(None),
            checks,
            root_job: None,
            listing_of: None,
            requests: VecDeque::new(),
            jobs: VecDeque::new(),
            ends: VecDeque::new(),
            outbox: VecDeque::new(),
            is_sending: false,
            lists_running: 0,
            blocks_held: 0,
            scan_failed: false,
            tells: VecDeque::new(),
            totals: Totals::default(),
            report: None,
            error: None,
            first_payload: None,
            has_sent_done: false,
        }
    }

    /// Bounds the scan's look-ahead by other figures than the usual ones.
    pub fn look_ahead(&mut self, look_ahead: LookAhead) {
        self.scan.look_ahead(look_ahead);
    }

    /// Asks for digests by other figures than the usual ones.
    pub fn bound_checks(&mut self, bounds: CheckBounds) {
        self.checks.bounds = bounds;
    }

    /// What changed goes as a delta, where these allow it.
    pub fn send_deltas(&mut self, rules: DeltaRules) {
        let in_place = self.hello.policy.in_place;
        self.sender.deltas = Some(Deltas::new(&self.hello.sum_key, rules, in_place));
    }

    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    pub fn is_greeted(&self) -> bool {
        self.welcome.is_some()
    }

    pub fn next_tell(&mut self) -> Option<Tell> {
        self.tells.pop_front()
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// When there is something to do again, without an event; as of the last `poll_action`.
    pub fn wakes_at(&self) -> Option<Moment> {
        let is_pushing = self.state == State::Pushing;
        self.sender.wakes_at().filter(|_| is_pushing)
    }

    /// No more files will be found to send.
    pub fn is_scanned(&self) -> bool {
        self.lists_running == 0 && self.scan.is_listed() && self.scan.order.is_empty()
    }

    /// When the first content left.
    pub fn first_payload(&self) -> Option<Moment> {
        self.first_payload
    }

    /// How it ended, once it is over.
    pub fn outcome(&self) -> Result<(Exit, Option<Durability>), &SessionError> {
        if let Some(error) = &self.error {
            return Err(error);
        }
        let report = self.report.as_ref();
        let target = report.map_or(Exit::Ok, |report| report.exit);
        let totals = &self.totals;
        let exit = match () {
            () if may_come_early(target) => target,
            () if totals.errors > totals.vanished => Exit::Partial,
            () if totals.vanished > 0 => Exit::Vanished,
            () => target,
        };
        Ok((exit, report.map(|report| report.durability)))
    }

    /// The target's own words on a fatal failure.
    pub fn report_text(&self) -> Option<&[u8]> {
        self.report
            .as_ref()
            .map(|report| &*report.text)
            .filter(|text| !text.is_empty())
    }

    pub fn handle(&mut self, event: Event<D>) {
        let outcome = match event {
            Event::Frame { head, buf } => {
                let payload = &buf[FRAME_HEAD_BYTES..FRAME_HEAD_BYTES + head.payload_bytes];
                self.totals.wire_received_bytes += (FRAME_HEAD_BYTES + head.payload_bytes) as u64;
                self.frame(&head, payload)
            }
            Event::Sent => {
                self.is_sending = false;
                self.blocks_held -= 1;
                Ok(())
            }
            Event::JobDone(_, false) => Err(SessionError::Internal),
            Event::JobDone(work, true) => {
                self.job_done(work);
                Ok(())
            }
            Event::Read {
                file,
                buf,
                offset,
                result,
            } => {
                self.chunk_read(file, buf, offset, result);
                Ok(())
            }
            Event::Written { .. } => unreachable!("a source writes nothing"),
            Event::Broken(error) | Event::Stopped(error) => Err(error),
        };
        if let Err(error) = outcome {
            self.fail(error);
        }
    }

    /// The next thing to do, or `None` until another event. A dry run and a real one differ in
    /// what is packed only.
    pub fn poll_action(&mut self, env: &Env<'_>) -> Option<Action<D>> {
        // What is polled may have made new jobs, too.
        self.poll_once(env)
            .or_else(|| self.jobs.pop_front().map(Action::Job))
    }

    fn poll_once(&mut self, env: &Env<'_>) -> Option<Action<D>> {
        if self.state == State::Over {
            self.outbox.clear();
            return Some(Action::End);
        }
        if let Some(work) = self.jobs.pop_front() {
            return Some(Action::Job(work));
        }
        if let Some(action) = self.send_next(env.now) {
            return Some(action);
        }
        if self.state != State::New && self.met.as_ref().is_some_and(|met| met.has_found()) {
            return self.declare_owners(env.blocks);
        }
        match self.state {
            State::New => self.say_hello(env.blocks),
            State::Greeting | State::Reporting => self.poll_requests(env.blocks),
            State::Pushing => self.poll_push(env.now, env.blocks),
            State::Over => None,
        }
    }

    fn send_next(&mut self, now: Moment) -> Option<Action<D>> {
        self.flush_packs();
        if self.is_sending {
            return None;
        }
        let (buf, len) = self.outbox.pop_front()?;
        self.is_sending = true;
        self.totals.wire_sent_bytes += len as u64;
        if self.first_payload.is_none() && self.totals.literal_bytes > 0 {
            self.first_payload = Some(now);
        }
        Some(Action::Send { buf, len })
    }

    fn say_hello(&mut self, blocks: &BlockPool) -> Option<Action<D>> {
        let mut buf = self.take_block(blocks)?;
        let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        self.hello.encode(&mut writer);
        let payload_bytes = writer.at();
        self.send(buf, FrameKind::Hello, payload_bytes);
        self.state = State::Greeting;
        let sources = self.sources.take().expect("taken once, here");
        for trouble in sources.troubles {
            self.scan_failed = true;
            self.trouble(trouble);
        }
        self.root_job = Some(SourceDir::new(ROOT, sources.origins, sources.given));
        self.start_root();
        self.send_next(Moment::default())
    }

    /// Comes before any block is taken for a frame that may show them.
    fn declare_owners(&mut self, blocks: &BlockPool) -> Option<Action<D>> {
        let mut buf = self.take_block(blocks)?;
        let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        if let Some(met) = &self.met {
            met.declare(&mut writer);
        }
        let payload_bytes = writer.at();
        self.send(buf, FrameKind::Owners, payload_bytes);
        self.send_next(Moment::default())
    }

    /// ROOT is listed at once, while HELLO travels, unless DEST may rename what is in it.
    fn start_root(&mut self) {
        let must_wait = self.single_file.is_some() && self.welcome.is_none();
        if !must_wait && let Some(root) = self.root_job.take() {
            self.lists_running += 1;
            self.jobs.push_back(Work::ListSource(ListSource::new(
                vec![root],
                Arc::clone(&self.cache),
                self.met.clone(),
            )));
        }
    }

    fn poll_requests(&mut self, blocks: &BlockPool) -> Option<Action<D>> {
        // ROOT's LISTING comes right behind the WELCOME, and may say that nothing is to be asked.
        let root = self.scan.peek(ROOT);
        let awaits_root = root.is_some_and(|root| matches!(root.progress, Progress::Asked { .. }));
        if self.requests.is_empty() || awaits_root {
            return None;
        }
        let mut buf = self.take_block(blocks)?;
        let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        while writer.room() >= REQUEST_BYTES_MAX
            && let Some(id) = self.requests.pop_front()
        {
            let Some(node) = self.scan.peek(id) else {
                continue;
            };
            let parent_is_new = id != ROOT
                && self
                    .scan
                    .peek(node.parent)
                    .is_some_and(|above| above.is_new);
            let node = self.scan.node(id).expect("looked up above");
            node.is_new |= parent_is_new;
            if node.is_new || !matches!(node.progress, Progress::Listed { .. }) {
                continue;
            }
            let Progress::Listed { listing } =
                std::mem::replace(&mut node.progress, Progress::Listing)
            else {
                unreachable!("matched above")
            };
            node.progress = Progress::Asked {
                merge: Box::new(Merge::new(&listing)),
                listing,
            };
            node.is_declared = true;
            let name = (id != ROOT).then(|| Name::any(&node.name).expect("scanned as a Name"));
            Request {
                dir: id,
                parent: node.parent,
                name,
            }
            .encode(&mut writer);
        }
        let payload_bytes = writer.at();
        if payload_bytes == 0 {
            self.blocks_held -= 1;
            return None;
        }
        self.send(buf, FrameKind::List, payload_bytes);
        self.send_next(Moment::default())
    }

    fn poll_push(&mut self, now: Moment, blocks: &BlockPool) -> Option<Action<D>> {
        // Comes first: it finds large files, and what it hands out lets the scan go on.
        self.build();
        if self.lists_running < LISTS_RUNNING_MAX {
            let batch = self.scan.take_batch();
            if !batch.is_empty() {
                self.lists_running += 1;
                return Some(Action::Job(Work::ListSource(ListSource::new(
                    batch,
                    Arc::clone(&self.cache),
                    self.met.clone(),
                ))));
            }
        }
        if let Some(action) = self.poll_requests(blocks) {
            return Some(action);
        }
        if let Some(action) = self.poll_checks(blocks) {
            return Some(action);
        }
        if let Some(job) = self.sender.open_next(now, &self.cache, self.met.as_ref()) {
            return Some(Action::Job(Work::OpenLarge(job)));
        }
        if let Some(action) = self.poll_pack(blocks) {
            return Some(action);
        }
        if let Some(action) = self.poll_end(blocks).or_else(|| self.poll_delta(blocks)) {
            return Some(action);
        }
        if self.outbox.len() < FRAMES_READY_MAX
            && self.sender.has_chunk()
            && let Some(buf) = self.take_block(blocks)
        {
            let Chunk {
                file,
                fd,
                offset,
                len,
            } = self.sender.next_chunk().expect("asked above");
            let at = FRAME_HEAD_BYTES + DATA_HEAD_BYTES;
            return Some(Action::Read {
                file,
                fd,
                buf,
                at,
                len,
                offset,
            });
        }
        self.poll_done(blocks)
    }

    fn poll_pack(&mut self, blocks: &BlockPool) -> Option<Action<D>> {
        if self.packer.building.is_empty()
            || (!self.packer.is_full() && self.packer.running_count() > 0)
        {
            return None;
        }
        if self.packer.running_count() >= PACKS_RUNNING_MAX {
            return None;
        }
        let mut buf = self.take_block(blocks)?;
        let (number, built) = self.packer.cut();
        if built.is_ready() {
            let payload_bytes = built.ready.len();
            buf[FRAME_HEAD_BYTES..][..payload_bytes].copy_from_slice(&built.ready);
            self.packer.filled(number, buf, payload_bytes);
            self.release_all(&built.dirs);
            return self.send_next(Moment::default());
        }
        let Building {
            steps, ready, dirs, ..
        } = built;
        Some(Action::Job(Work::Pack(PackJob::new(
            number,
            dirs,
            steps,
            ready,
            buf,
            Arc::clone(&self.cache),
        ))))
    }

    fn poll_end(&mut self, blocks: &BlockPool) -> Option<Action<D>> {
        let end = *self.ends.front()?;
        let mut buf = self.take_block(blocks)?;
        self.ends.pop_front();
        let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        end.encode(&mut writer);
        let payload_bytes = writer.at();
        self.send(buf, FrameKind::End, payload_bytes);
        self.send_next(Moment::default())
    }

    fn poll_done(&mut self, blocks: &BlockPool) -> Option<Action<D>> {
        let is_done = self.scan.is_done()
            && self.packer.is_idle()
            && self.sender.is_idle()
            && self.ends.is_empty();
        if !is_done || self.has_sent_done {
            return None;
        }
        let mut buf = self.take_block(blocks)?;
        self.has_sent_done = true;
        let mut writer = Writer::new(&mut buf[FRAME_HEAD_BYTES..]);
        Done {
            errors: self.totals.errors,
        }
        .encode(&mut writer);
        let payload_bytes = writer.at();
        self.send(buf, FrameKind::Done, payload_bytes);
        self.state = State::Reporting;
        self.send_next(Moment::default())
    }

    fn take_block(&mut self, blocks: &BlockPool) -> Option<Buf> {
        // The last block of all is for receiving: a source that can't hear can deadlock.
        if self.blocks_held >= SEND_BLOCKS_PER_SESSION_MAX || blocks.free_count() <= 1 {
            return None;
        }
        let buf = blocks.take()?;
        self.blocks_held += 1;
        Some(buf)
    }

    fn send(&mut self, mut buf: Buf, kind: FrameKind, payload_bytes: usize) {
        let len = seal(&mut buf, kind, payload_bytes);
        self.outbox.push_back((buf, len));
    }

    /// Moves PACKs that are filled, in order, to where they are sent from.
    fn flush_packs(&mut self) {
        while let Some((buf, payload_bytes, begins)) = self.packer.next_filled() {
            if payload_bytes == 0 {
                self.blocks_held -= 1; // Everything in it had vanished.
            } else {
                self.send(buf, FrameKind::Pack, payload_bytes);
            }
            for file in begins {
                let after = self.sender.begun(file);
                self.after_chunk(file, after);
            }
        }
    }

    // ---- frames of the target ----

    fn frame(&mut self, head: &Head, payload: &[u8]) -> Result<(), SessionError> {
        let out_of_order = || {
            Err(WireError::OutOfOrder {
                frame: head.kind.name(),
            }
            .into())
        };
        match head.kind {
            FrameKind::Ignorable => Ok(()),
            FrameKind::Refused => Err(SessionError::Refused(Refused::decode(payload)?)),
            FrameKind::Welcome if self.state == State::Greeting => {
                self.welcomed(Welcome::decode(payload)?)
            }
            FrameKind::Mapped if self.met.is_some() && self.welcome.is_some() => {
                self.mapped(payload)
            }
            FrameKind::Listing if self.welcome.is_some() => self.listing(payload),
            FrameKind::Notice if self.welcome.is_some() => self.notices(payload),
            FrameKind::Stop if self.welcome.is_some() => self.stops(payload),
            FrameKind::Signature if self.welcome.is_some() => self.signature(payload),
            FrameKind::Digests if self.welcome.is_some() => self.digests(payload),
            FrameKind::Report if self.welcome.is_some() => self.reported(payload),
            FrameKind::Welcome
            | FrameKind::Mapped
            | FrameKind::Listing
            | FrameKind::Notice
            | FrameKind::Stop
            | FrameKind::Signature
            | FrameKind::Digests
            | FrameKind::Report => out_of_order(),
            FrameKind::Hello
            | FrameKind::List
            | FrameKind::Pack
            | FrameKind::Data
            | FrameKind::End
            | FrameKind::Owners
            | FrameKind::Sign
            | FrameKind::Tokens
            | FrameKind::Check
            | FrameKind::Done => out_of_order(),
        }
    }

    fn welcomed(&mut self, welcome: Welcome) -> Result<(), SessionError> {
        self.state = State::Pushing;
        if welcome.file_named_by_dest && (self.single_file.is_none() || self.dest_name.is_none()) {
            return Err(WireError::Forbidden {
                what: "WELCOME flags",
                value: 8,
            }
            .into());
        }
        self.welcome = Some(welcome);
        if self.root_stats.iter().any(|stat| self.is_target(stat)) {
            return Err(SessionError::OntoItself);
        }
        if !welcome.rights.owners {
            self.met = None; // Nobody asks for their names any more.
        }
        if let Some(root) = self.root_job.as_mut()
            && welcome.file_named_by_dest
        {
            let name = self.dest_name.as_deref().expect("checked above");
            let mut renamed = Listing::default();
            for entry in root.given.iter() {
                let name = Name::new(name).map_err(WireError::from)?;
                renamed.push_entry(crate::model::listing::Entry { name, ..entry });
            }
            root.given = renamed;
        }
        if !welcome.file_named_by_dest {
            self.single_file = None;
        }
        self.start_root();
        Ok(())
    }

    fn mapped(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let mut reader = Reader::new(payload, "MAPPED frame");
        let owners = Arc::make_mut(&mut self.owners);
        while !reader.is_at_end() {
            let Mapped { owner, number } = Mapped::decode(&mut reader)?;
            owners.insert(owner, number);
            if owners.len() > OWNERS_DECLARED_MAX {
                return Err(WireError::TooMany {
                    what: "owners",
                    max: OWNERS_DECLARED_MAX,
                }
                .into());
            }
        }
        Ok(())
    }

    fn rules<'a>(&self, owners: &'a OwnerMap) -> Rules<'a> {
        let rights = self
            .welcome
            .as_ref()
            .map(|welcome| welcome.rights)
            .unwrap_or_default();
        Rules {
            rights,
            owners,
            delete: self.hello.policy.delete,
            sameness: self.hello.policy.sameness,
            delta_bytes_min: self.sender.deltas.as_ref().and_then(Deltas::old_bytes_min),
            resume: self.hello.policy.resume && self.sender.deltas.is_some(),
            in_place: self.hello.policy.in_place,
        }
    }

    fn listing(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let has_partials = self.hello.policy.partial;
        let mut reader = ListingReader::new(payload).with_partials(has_partials);
        let owners = Arc::clone(&self.owners);
        while let Some(Section { dir, status, .. }) = reader.section()? {
            if self.listing_of.is_some_and(|unfinished| unfinished != dir) {
                return Err(WireError::UnknownDir(dir.0).into()); // Sections of one follow each other.
            }
            self.listing_of = (status == Status::Part).then_some(dir);
            let rules = self.rules_in(dir, &owners);
            let Some(node) = self.scan.node(dir) else {
                return Err(WireError::UnknownDir(dir.0).into());
            };
            let Progress::Asked { listing, merge } = &mut node.progress else {
                return Err(WireError::UnknownDir(dir.0).into());
            };
            let mut items = Vec::new();
            let (totals, wants_items) = (&mut self.totals, self.wants_items);
            let is_dry = self.hello.policy.dry_run;
            let sizes = &*listing;
            let mut each = |index: usize, change: Change| {
                totals.plan(&change, sizes.size(index), is_dry);
                if wants_items {
                    items.push((index, change));
                }
            };
            while let Some(entry) = reader.entry()? {
                merge.take(listing, &entry, rules, &mut each)?;
            }
            if status == Status::Part {
                let items = with_names(listing, items);
                self.tell_items(dir, items);
                continue;
            }
            if status == Status::Absent {
                node.is_new =
                    dir != ROOT || self.welcome.is_some_and(|welcome| welcome.root_is_absent);
            }
            let Progress::Asked { listing, merge } =
                std::mem::replace(&mut node.progress, Progress::Listing)
            else {
                unreachable!("matched above")
            };
            if node.is_new {
                node.progress = Progress::Listed { listing };
                continue;
            }
            if let Status::Failed(errno) = status {
                node.is_lost = true; // What it has is not known: it stays as it is.
                let path = self.scan.path(dir);
                self.trouble(Trouble {
                    side: Side::Target,
                    path,
                    what: Attempt::List,
                    why: Why::Errno(errno),
                });
                continue;
            }
            let complete = status == Status::Complete;
            let merged = merge.finish(&listing, rules, complete, &mut |index, change| {
                totals.plan(&change, listing.size(index), is_dry);
                if wants_items {
                    items.push((index, change));
                }
            });
            self.totals.specials_skipped += merged.specials_skipped;
            let items = with_names(&listing, items);
            for (subdirs, known) in [
                (&merged.dirs_differ, Known::Differs),
                (&merged.dirs_absent, Known::Absent),
            ] {
                self.scan.subdirs_are(dir, subdirs, known);
            }
            self.plan(dir, listing, merged);
            self.tell_items(dir, items);
        }
        Ok(())
    }

    /// Deletes are for directories that were read whole, and stop at the first that was not.
    fn rules_in<'a>(&self, dir: DirId, owners: &'a OwnerMap) -> Rules<'a> {
        let rules = self.rules(owners);
        let is_whole = dir != ROOT || self.root_is_listed;
        let has_errors = self.scan.peek(dir).is_none_or(|node| node.has_errors);
        Rules {
            delete: rules.delete && is_whole && !has_errors && !self.scan_failed,
            ..rules
        }
    }

    fn notices(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let mut reader = Reader::new(payload, "NOTICE frame");
        while !reader.is_at_end() {
            match Notice::decode(&mut reader)? {
                Notice::Deleted { kind, path } => self.tells.push_back(Tell::Deleted {
                    kind,
                    path: path.to_vec(),
                }),
                Notice::Failed { attempt, why, path } => {
                    // Counted by the target, in its report.
                    let trouble = Trouble {
                        side: Side::Target,
                        path: path.to_vec(),
                        what: attempt,
                        why,
                    };
                    self.tells.push_back(Tell::Trouble(trouble));
                }
            }
        }
        Ok(())
    }

    fn reported(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        let report = Report::decode(payload)?;
        if self.state != State::Reporting && !may_come_early(report.exit) {
            return Err(WireError::OutOfOrder { frame: "REPORT" }.into());
        }
        let planned = self.totals;
        report.add_to(&mut self.totals);
        if self.hello.policy.dry_run {
            self.totals.files_sent = planned.files_sent;
            self.totals.dirs_made = planned.dirs_made;
            self.totals.meta_fixed = planned.meta_fixed;
        }
        self.report = Some(report);
        self.state = State::Over;
        Ok(())
    }

    fn fail(&mut self, error: SessionError) {
        if self.state != State::Over {
            self.state = State::Over;
            self.error = Some(error);
        }
    }

    // ---- jobs that came back ----

    fn job_done(&mut self, work: Work<D>) {
        match work {
            Work::ListSource(job) => self.listed(job),
            Work::Pack(job) => self.packed(job),
            Work::OpenLarge(job) => self.opened(job),
            Work::CheckLarge(job) => self.finish_large(job.file, job.is_consistent, Why::Changing),
            Work::Match(job) => self.matched(*job),
            Work::Digest(job) => self.digested(job),
            Work::OpenDest(_)
            | Work::ResolveOwners(_)
            | Work::ListTarget(_)
            | Work::Apply(_)
            | Work::Sign(_)
            | Work::Weave(_)
            | Work::Punch(_)
            | Work::EndLarge(_)
            | Work::Release(_)
            | Work::Finish(_)
            | Work::Retire(_) => unreachable!("jobs of the target"),
        }
    }

    fn listed(&mut self, job: ListSource<D>) {
        self.lists_running -= 1;
        for trouble in job.troubles {
            self.trouble(trouble);
        }
        for mut dir in job.dirs {
            let is_partly_target = dir.leave_out(|stat| self.is_target(stat));
            let SourceDir {
                id,
                listing,
                merged,
                stat,
                others,
                has_errors,
                ..
            } = dir;
            self.scan_failed |= has_errors;
            self.totals.deletes_stopped |= has_errors && self.hello.policy.delete;
            self.count_scanned(&listing);
            let is_empty_root = id == ROOT && listing.is_empty() && self.root_is_listed;
            if is_empty_root && self.hello.policy.delete && !self.allow_empty_source && !has_errors
            {
                return self.fail(SessionError::EmptySource);
            }
            let node = self.scan.node(id).expect("what is listed is under way");
            node.has_errors = has_errors;
            if id == ROOT
                && let Some(stat) = &stat
            {
                node.meta = Some(Meta::from(stat));
                let others = others.iter().map(|(_, stat)| *stat);
                self.root_stats = others.chain([*stat]).collect();
            }
            let is_new = node.is_new;
            let parent = node.parent;
            if is_partly_target && id != ROOT {
                let path = self.scan.path(id);
                self.tells.push_back(Tell::IsTarget { path });
            }
            if id == ROOT && self.root_stats.iter().any(|stat| self.is_target(stat)) {
                return self.fail(SessionError::OntoItself);
            }
            if stat.as_ref().is_some_and(|stat| self.is_target(stat)) {
                if parent == ROOT && self.has_one_name {
                    return self.fail(SessionError::OntoItself);
                }
                // The target inside its own source: not sent into itself.
                let node = self.scan.node(id).expect("looked up above");
                node.is_lost = true;
                self.scan.listed(id, Listing::default(), Vec::new());
                let path = self.scan.path(id);
                self.tells.push_back(Tell::IsTarget { path });
                continue;
            }
            self.scan.listed(id, listing, merged);
            let parent_is_new =
                id != ROOT && self.scan.peek(parent).is_some_and(|node| node.is_new);
            if is_new || parent_is_new {
                self.scan.node(id).expect("looked up above").is_new = true;
            } else {
                self.requests.push_back(id);
            }
        }
    }

    fn count_scanned(&mut self, listing: &Listing) {
        for index in 0..listing.len() {
            match listing.kind(index) {
                Kind::Dir => self.totals.dirs_scanned += 1,
                Kind::File => {
                    self.totals.files_scanned += 1;
                    let bytes = &mut self.totals.bytes_scanned;
                    *bytes = bytes.saturating_add(listing.size(index));
                }
                Kind::Symlink
                | Kind::Fifo
                | Kind::Socket
                | Kind::CharDevice
                | Kind::BlockDevice => {
                    self.totals.files_scanned += 1;
                }
            }
        }
    }

    fn is_target(&self, stat: &Stat) -> bool {
        self.welcome.is_some_and(|welcome| {
            (stat.dev, stat.ino) == (welcome.root_dev, welcome.root_ino)
                && welcome.boot_id == self.hello.boot_id
                && !welcome.root_is_absent
        })
    }

    fn packed(&mut self, job: PackJob<D>) {
        self.totals.literal_bytes += job.literal_bytes;
        self.totals.files_sent += job.files_count;
        self.packer.filled(job.number, job.buf, job.payload_bytes);
        for trouble in job.troubles {
            self.trouble(trouble);
        }
        for (plan, index, rest) in job.later {
            let node = self.scan.node(plan.id);
            node.expect("open until its packs are back").larges_wait(1);
            self.sender.queue_after(&plan, index, rest);
        }
        self.release_all(&job.dirs);
    }

    fn trouble(&mut self, trouble: Trouble) {
        self.totals.errors += 1;
        self.totals.vanished += u64::from(trouble.why == Why::Vanished);
        self.tells.push_back(Tell::Trouble(trouble));
    }

    // ---- plans and packs ----

    fn plan(&mut self, id: DirId, listing: Listing, merged: Merged) {
        let read_as = if id == ROOT {
            self.single_file.clone()
        } else {
            None
        };
        let node = self.scan.node(id).expect("planned while it is open");
        let plan = DirPlan {
            id,
            origins: node.origins.clone(),
            listing,
            verdicts: merged.verdicts,
            bases: merged.bases,
            read_as,
        };
        let checking = Checking::new(plan, merged.deletes, merged.unsure);
        if checking.is_settled() {
            node.progress = checking.ready(&mut |_, _, _| {});
        } else {
            node.progress = Progress::Checking(Box::new(checking));
            self.checks.queue(id);
        }
    }

    /// Fills the PACK under construction with what may go now.
    fn build(&mut self) {
        loop {
            if !self.packer.take_waiting() {
                return;
            }
            let Some(id) = self.scan.order.front().copied() else {
                return;
            };
            if !self.prepare(id) {
                return;
            }
            if !self.packer.take_waiting() || !self.build_dir(id) {
                return;
            }
            self.scan.order.pop_front();
            self.scan.packed(id);
            self.release(id);
        }
    }

    /// Brings the directory at the front to `Ready`; `false` while the target's answer is out.
    fn prepare(&mut self, id: DirId) -> bool {
        if self.welcome.is_none() {
            return false;
        }
        let parent = self.scan.peek(id).expect("in order while open").parent;
        let above = self
            .scan
            .peek(parent)
            .expect("a parent outlives its children");
        let (parent_is_new, parent_is_lost) = (above.is_new && id != ROOT, above.is_lost);
        let node = self.scan.node(id).expect("looked up above");
        node.is_lost |= parent_is_lost;
        // What was listed at the target is there, whatever became of the directory above.
        node.is_new |= parent_is_new && matches!(node.progress, Progress::Listed { .. });
        let is_new = node.is_new;
        if matches!(
            node.progress,
            Progress::Asked { .. } | Progress::Checking(_)
        ) {
            return false;
        }
        if node.is_lost {
            self.scan.leave_out(id);
            return true;
        }
        match &mut node.progress {
            Progress::Ready { .. } => return true,
            Progress::Listed { .. } if is_new => {}
            Progress::Listed { .. }
            | Progress::Asked { .. }
            | Progress::Checking(_)
            | Progress::Listing
            | Progress::Packed => return false,
        }
        let Progress::Listed { listing } = std::mem::replace(&mut node.progress, Progress::Listing)
        else {
            unreachable!("matched above")
        };
        let meta = node.meta;
        if id != ROOT {
            let mode = meta.map_or(0o755, |meta| meta.mode);
            let name: Box<[u8]> = node.name.clone();
            self.make_dir(id, parent, &name, mode);
        }
        let owners = Arc::clone(&self.owners);
        let rules = self.rules(&owners);
        let (mut items, wants_items, totals) = (Vec::new(), self.wants_items, &mut self.totals);
        let is_dry = self.hello.policy.dry_run;
        let merged = Merge::new(&listing).finish(&listing, rules, false, &mut |index, change| {
            totals.plan(&change, listing.size(index), is_dry);
            if wants_items {
                items.push((index, change));
            }
        });
        self.totals.specials_skipped += merged.specials_skipped;
        let items = with_names(&listing, items);
        self.plan(id, listing, merged);
        self.tell_items(id, items);
        true
    }

    fn make_dir(&mut self, id: DirId, parent: DirId, name: &[u8], mode: u16) {
        if self.wants_items {
            let path = self.scan.path(id);
            let change = Change::new(Kind::Dir, What::Make);
            self.tells.push_back(Tell::Item { change, path });
        }
        if self.hello.policy.dry_run {
            self.totals.dirs_made += 1;
            return;
        }
        let name = Name::any(name).expect("scanned as a Name");
        self.packer.queue(&PackOp::MakeDir {
            parent,
            name,
            id,
            mode,
        });
        self.scan
            .node(id)
            .expect("made while it is open")
            .is_declared = true;
    }

    /// Hands out what is left of a directory; `false` when the PACK is full.
    fn build_dir(&mut self, id: DirId) -> bool {
        let node = self.scan.node(id).expect("in order while open");
        let Progress::Ready {
            plan,
            deletes,
            next,
        } = &mut node.progress
        else {
            return true; // Lost, or left out.
        };
        if node.is_lost {
            return true;
        }
        let building = &mut self.packer.building;
        while let Some((name, room)) = deletes.peek() {
            // What could not be read may be the directory that wins this name: after a failed scan
            // none of the target's makes room for a file.
            if !self.scan_failed || room == Some(Room::ForDir) {
                let name = Name::new(name).expect("listed as a Name");
                let mut op = [0; crate::wire::pack::OP_BYTES_MAX];
                let mut writer = Writer::new(&mut op);
                PackOp::Delete {
                    dir: id,
                    name,
                    room,
                }
                .encode(&mut writer);
                let len = writer.at();
                if !building.push_op(&op[..len]) {
                    return false;
                }
                node.is_touched = true;
            }
            deletes.advance();
        }
        if self.hello.policy.dry_run {
            return true;
        }
        let plan = Arc::clone(plan);
        let mut run: Option<std::ops::Range<usize>> = None;
        let (mut is_full, mut larges_count) = (false, 0);
        while *next < plan.listing.len() {
            let index = *next;
            let verdict = plan.verdicts[index];
            if matches!(verdict, Verdict::Skip | Verdict::Leave) {
                *next += 1;
                continue;
            }
            let entry = plan.listing.get(index);
            node.is_touched |= verdict == Verdict::Send;
            if verdict == Verdict::Send && plan.goes_by_chunks(index, &entry) {
                larges_count += 1;
                self.sender.queue(&plan, index);
                *next += 1;
                continue;
            }
            if !building.reserve(entry_bytes(&entry, verdict)) {
                is_full = true;
                break;
            }
            run = Some(run.map_or(index, |run| run.start)..index + 1);
            *next += 1;
        }
        node.larges_wait(larges_count);
        if let Some(run) = run {
            node.open_count += 1;
            building.push_entries(&plan, run);
            building.dirs.push(id);
        }
        !is_full
    }

    fn release_all(&mut self, dirs: &[DirId]) {
        for dir in dirs {
            self.release(*dir);
        }
    }

    /// One thing less keeps a directory open; what closes by it is closed at the target too.
    fn release(&mut self, id: DirId) {
        let owners = Arc::clone(&self.owners);
        let (rules, welcome) = (self.rules(&owners), self.welcome);
        let (root_is_listed, dry_run) = (self.root_is_listed, self.hello.policy.dry_run);
        let packer = &mut self.packer;
        self.scan.release(id, |id, node| {
            let root_differs = id == ROOT
                && root_is_listed
                && welcome
                    .zip(node.meta)
                    .is_some_and(|(welcome, meta)| dir_differs(&meta, &welcome.root, rules));
            let differs = node.differs || root_differs;
            let has_meta = !node.is_lost && !dry_run && (id != ROOT || root_is_listed);
            let must_set = has_meta && (node.is_new || node.is_touched || differs);
            close(packer, id, &node, must_set);
        });
    }

    fn tell_items(&mut self, dir: DirId, items: Vec<(Box<[u8]>, Change)>) {
        if items.is_empty() {
            return;
        }
        let base = self.scan.path(dir);
        for (name, change) in items {
            let mut path = base.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            self.tells.push_back(Tell::Item { change, path });
        }
    }
}

/// Whether a REPORT with it may come at any time: the target can't go on.
fn may_come_early(exit: Exit) -> bool {
    matches!(exit, Exit::FileIo | Exit::Selection)
}

fn close<D: Disk>(packer: &mut Packer<D>, id: DirId, node: &Node<D>, must_set: bool) {
    if id == ROOT || node.is_declared {
        let meta = node.meta.filter(|_| must_set);
        packer.queue(&PackOp::Close { dir: id, meta });
    }
}

fn with_names(listing: &Listing, items: Vec<(usize, Change)>) -> Vec<(Box<[u8]>, Change)> {
    items
        .into_iter()
        .map(|(index, change)| (listing.name(index).into(), change))
        .collect()
}
