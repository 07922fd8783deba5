//! What is sent, and when: directories depth first, with listings asked for ahead, large files in
//! turns beside them.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::alphabet::{Kind, Meta, Put};
use super::frame::{self, Frame, PAYLOAD_BYTES_MAX};
use super::greeting::{self, Welcome};
use super::listing::{self, ROOT, Status};
use super::merge::{Merge, Merged, Verdict, differs};
use super::own::{self, Entry, Opened};
use super::pack::{self, CHUNK_BYTES, LINK_TARGET_BYTES_MAX};
use super::session::{Over, Session};
use super::{Aim, Counts, Failure, Pushed, Report, Wishes};

/// Directories asked for and not answered.
const LISTS_AWAITED_MAX: usize = 64;
const REQUESTS_PER_FRAME: usize = 16;
const LARGE_FILES_OPEN_MAX: usize = 8;
/// How often a file is read that changes while it is.
const ATTEMPTS_MAX: u32 = 3;
/// One of so many small files takes the way of the large ones.
const SMALL_FILES_PER_BEGIN: u64 = 16;
/// Odd, so that no number comes twice before all have come.
const NUMBER_STRIDE: u32 = 0x9e37_79b1;

pub(super) async fn push(source: &Path, aim: &Aim, wishes: &Wishes) -> Result<Pushed, Failure> {
    let trouble = |why: io::Error| Failure::Source(format!("{}: {why}", source.display()));
    let source = source.canonicalize().map_err(trouble)?;
    let name = source.file_name().unwrap_or_default();
    let entry = Entry::read(&source, name.as_bytes()).map_err(trouble)?;
    let is_tree = entry.kind == Kind::Directory;
    let list = if is_tree {
        Some(own::list(&source).map_err(trouble)?)
    } else {
        None
    };
    let is_empty = list.as_ref().is_some_and(|list| list.entries.is_empty());
    if is_empty && wishes.delete && !wishes.allow_empty_source {
        return Err(Failure::Source(
            "nothing to send, and all to delete".to_owned(),
        ));
    }
    let root = Dir {
        parent: ROOT,
        name: Vec::new(),
        path: source.clone(),
        meta: is_tree.then_some(entry.meta),
        changed: false,
        read_whole: true,
        waits_for: 1,
    };
    let mut planner = Planner {
        session: Session::open(aim, wishes, !is_tree).await?,
        wishes,
        welcome: None,
        dirs: HashMap::from([(ROOT, root)]),
        to_list: Vec::new(),
        fresh: Vec::new(),
        pack: Frame::new(),
        large_waiting: VecDeque::new(),
        large: VecDeque::new(),
        dirs_numbered: 0,
        files_numbered: 0,
        small_files: 0,
        counts: Counts::default(),
    };
    let greeted = match list {
        Some(list) => planner.greet_with_tree(list).await,
        None => planner.greet_with_file(entry, aim).await,
    };
    if greeted.is_ok() {
        // Where it is over before its time, the desk knows why.
        let _ = planner.run().await;
    }
    let counts = planner.counts;
    let (last, notices) = planner.session.close().await;
    Ok(Pushed {
        report: last?,
        notices,
        counts,
    })
}

/// A directory that is declared and not closed.
struct Dir {
    parent: u32,
    name: Vec<u8>,
    path: PathBuf,
    /// What it is to become; none where it is not the source's business.
    meta: Option<Meta>,
    /// CLOSE has to set its metadata.
    changed: bool,
    /// The source saw every entry it has.
    read_whole: bool,
    /// Its own entries, directories below that are not closed, large files that have not ended.
    waits_for: usize,
}

/// A file that is to go by BEGIN.
struct Large {
    dir: u32,
    name: Vec<u8>,
    path: PathBuf,
    attempt: u32,
}

/// A file that began.
struct Sending {
    file: Large,
    number: u32,
    opened: Opened,
    chunks_sent: u64,
    backwards: bool,
    digest: u128,
}

impl Sending {
    fn chunks(&self) -> u64 {
        self.opened.size.div_ceil(CHUNK_BYTES as u64)
    }
}

struct Planner<'a> {
    session: Session,
    wishes: &'a Wishes,
    welcome: Option<Welcome>,
    dirs: HashMap<u32, Dir>,
    /// The target has them: to be asked for.
    to_list: Vec<u32>,
    /// The target did not have them: MKDIR was sent, and nothing is below.
    fresh: Vec<u32>,
    pack: Frame,
    large_waiting: VecDeque<Large>,
    large: VecDeque<Sending>,
    dirs_numbered: u32,
    files_numbered: u32,
    small_files: u64,
    counts: Counts,
}

impl Planner<'_> {
    /// Asks for ROOT before the WELCOME is there.
    async fn greet_with_tree(&mut self, list: own::List) -> Result<(), Over> {
        self.note_unsendable(ROOT, list.unsendable);
        self.await_listing(ROOT, list.entries);
        self.ask_for(&[ROOT]).await?;
        let welcome = self.session.welcome().await?;
        self.welcome = Some(welcome);
        let root = self.dir(ROOT);
        root.changed = root
            .meta
            .is_some_and(|meta| differs(meta, welcome.root, &welcome));
        Ok(())
    }

    /// The name is known only after WELCOME.
    async fn greet_with_file(&mut self, mut entry: Entry, aim: &Aim) -> Result<(), Over> {
        let welcome = self.session.welcome().await?;
        self.welcome = Some(welcome);
        if welcome.file_named_by_dest
            && let Some(name) = aim.dest.last()
        {
            entry.name.clone_from(name);
        }
        self.await_listing(ROOT, vec![entry]);
        self.ask_for(&[ROOT]).await
    }

    async fn run(&mut self) -> Result<(), Over> {
        while self.dirs.contains_key(&ROOT) {
            let mut worked = self.take_merged().await?;
            worked |= self.take_fresh().await?;
            worked |= self.ask_ahead().await?;
            worked |= self.send_large().await?;
            if worked {
                tokio::task::yield_now().await;
                continue;
            }
            self.flush().await?;
            if self.session.is_over() {
                return Err(Over);
            }
            self.session.news().await;
        }
        self.flush().await?;
        self.session
            .finish(self.counts.failed + self.counts.vanished)
            .await
    }

    fn dir(&mut self, dir: u32) -> &mut Dir {
        self.dirs
            .get_mut(&dir)
            .expect("it is declared and not closed")
    }

    fn note_unsendable(&mut self, dir: u32, count: u64) {
        self.counts.failed += count;
        self.dir(dir).read_whole = count == 0;
    }

    fn await_listing(&self, dir: u32, own: Vec<Entry>) {
        let merge = Merge::new(own, self.wishes.delete);
        self.session
            .desk
            .borrow_mut()
            .awaited
            .push_back((dir, merge));
    }

    async fn ask_for(&mut self, dirs: &[u32]) -> Result<(), Over> {
        let mut frame = Frame::new();
        for id in dirs {
            let dir = self.dir(*id);
            listing::put_request(&mut frame, *id, dir.parent, &dir.name);
        }
        self.session.send(frame.seal(frame::LIST)).await
    }

    /// Lists directories here and asks for them there.
    async fn ask_ahead(&mut self) -> Result<bool, Over> {
        let awaited = self.session.desk.borrow().awaited.len();
        let room = LISTS_AWAITED_MAX
            .saturating_sub(awaited)
            .min(REQUESTS_PER_FRAME);
        let (mut asked, mut unreadable) = (Vec::new(), Vec::new());
        while asked.len() < room
            && let Some(id) = self.to_list.pop()
        {
            let list = own::list(&self.dir(id).path);
            match list {
                Ok(list) => {
                    self.note_unsendable(id, list.unsendable);
                    self.await_listing(id, list.entries);
                    asked.push(id);
                }
                Err(why) => {
                    self.note_trouble(&why);
                    unreadable.push(id);
                }
            }
        }
        if !asked.is_empty() {
            self.ask_for(&asked).await?;
        }
        for id in &unreadable {
            self.forget(*id).await?;
        }
        Ok(!asked.is_empty() || !unreadable.is_empty())
    }

    async fn take_merged(&mut self) -> Result<bool, Over> {
        let merged = self.session.desk.borrow_mut().merged.pop_front();
        let Some((dir, merged)) = merged else {
            return Ok(false);
        };
        if merged.status == Status::Failed {
            self.counts.failed += 1;
        } else if !self.is_stopped(dir) {
            self.plan(dir, merged).await?;
        }
        self.settle(dir).await?;
        Ok(true)
    }

    async fn plan(&mut self, dir: u32, merged: Merged) -> Result<(), Over> {
        if merged.status == Status::Absent && dir != ROOT && !self.wishes.dry_run {
            // It vanished after its parent was listed.
            self.make_listed_dir(dir).await?;
        }
        let complete = merged.status == Status::Complete;
        if complete && self.dir(dir).read_whole {
            for name in &merged.extra {
                self.counts.deletes_asked += 1;
                self.change(dir, pack::delete(dir, name, 0)).await?;
            }
        }
        for (entry, verdict) in merged.entries {
            self.act(dir, entry, verdict, complete).await?;
        }
        Ok(())
    }

    async fn act(
        &mut self,
        dir: u32,
        entry: Entry,
        verdict: Verdict,
        complete: bool,
    ) -> Result<(), Over> {
        if self.is_the_target(&entry) {
            return Ok(());
        }
        let is_node = !matches!(entry.kind, Kind::Directory | Kind::File | Kind::Symlink);
        if is_node && !self.welcome.is_some_and(|welcome| welcome.nodes) {
            self.counts.skipped += 1;
            return Ok(());
        }
        match verdict {
            Verdict::Same => Ok(()),
            Verdict::Mend { sets_time } => {
                self.counts.mended += 1;
                if self.wishes.dry_run {
                    return Ok(());
                }
                let op = pack::meta(dir, &entry.name, entry.meta, sets_time);
                self.operate(op).await
            }
            Verdict::Enter { differs } => {
                let id = self.declare(dir, &entry, differs);
                self.to_list.push(id);
                Ok(())
            }
            Verdict::Replace if !complete => {
                self.counts.failed += 1;
                Ok(())
            }
            Verdict::Replace => {
                let room = if entry.kind == Kind::Directory { 1 } else { 2 };
                self.change(dir, pack::delete(dir, &entry.name, room))
                    .await?;
                self.make(dir, entry).await
            }
            Verdict::Make => self.make(dir, entry).await,
        }
    }

    /// The target's own directory, met in the source.
    fn is_the_target(&self, entry: &Entry) -> bool {
        self.welcome.is_some_and(|welcome| {
            entry.kind == Kind::Directory
                && (entry.dev, entry.ino) == (welcome.root_dev, welcome.root_ino)
                && greeting::boot_id() == welcome.boot_id
        })
    }

    async fn make(&mut self, dir: u32, entry: Entry) -> Result<(), Over> {
        match entry.kind {
            Kind::Directory => {
                self.counts.dirs_made += 1;
                if self.wishes.dry_run {
                    return Ok(());
                }
                let id = self.declare(dir, &entry, true);
                let op = pack::mkdir(dir, &entry.name, id, entry.meta.permissions());
                self.fresh.push(id);
                self.change(dir, op).await
            }
            Kind::File => self.make_file(dir, &entry).await,
            Kind::Symlink => self.make_symlink(dir, &entry).await,
            Kind::Fifo | Kind::Socket | Kind::CharacterDevice | Kind::BlockDevice => {
                let op = pack::node(dir, &entry.name, entry.meta, entry.size);
                self.send_whole(dir, op).await
            }
        }
    }

    async fn make_file(&mut self, dir: u32, entry: &Entry) -> Result<(), Over> {
        if self.wishes.dry_run {
            self.counts.files_sent += 1;
            return Ok(());
        }
        let path = self.path_of(dir, &entry.name);
        if entry.size <= CHUNK_BYTES as u64 {
            self.small_files += 1;
            if !self.small_files.is_multiple_of(SMALL_FILES_PER_BEGIN) {
                match read_small(&path).await {
                    Ok(Some((meta, content))) => {
                        self.counts.bytes_sent += content.len() as u64;
                        return self
                            .send_whole(dir, pack::file(dir, &entry.name, meta, &content))
                            .await;
                    }
                    Ok(None) => {} // it grew
                    Err(why) => {
                        self.note_trouble(&why);
                        return Ok(());
                    }
                }
            }
        }
        self.dir(dir).waits_for += 1;
        self.large_waiting.push_back(Large {
            dir,
            name: entry.name.clone(),
            path,
            attempt: 1,
        });
        Ok(())
    }

    async fn make_symlink(&mut self, dir: u32, entry: &Entry) -> Result<(), Over> {
        match std::fs::read_link(self.path_of(dir, &entry.name)) {
            Ok(target) => {
                let target = target.as_os_str().as_bytes();
                if !(1..=LINK_TARGET_BYTES_MAX).contains(&target.len()) {
                    self.counts.failed += 1;
                    return Ok(());
                }
                let op = pack::symlink(dir, &entry.name, entry.meta, target);
                self.send_whole(dir, op).await
            }
            Err(why) => {
                self.note_trouble(&why);
                Ok(())
            }
        }
    }

    async fn make_listed_dir(&mut self, id: u32) -> Result<(), Over> {
        let dir = self.dir(id);
        dir.changed = true;
        let permissions = dir.meta.map_or(0o755, Meta::permissions);
        let (parent, op) = (
            dir.parent,
            pack::mkdir(dir.parent, &dir.name, id, permissions),
        );
        self.counts.dirs_made += 1;
        self.change(parent, op).await
    }

    /// An entry that goes by one operation.
    async fn send_whole(&mut self, dir: u32, op: Vec<u8>) -> Result<(), Over> {
        self.counts.files_sent += 1;
        if self.wishes.dry_run {
            return Ok(());
        }
        self.change(dir, op).await
    }

    async fn take_fresh(&mut self) -> Result<bool, Over> {
        let Some(id) = self.fresh.pop() else {
            return Ok(false);
        };
        if !self.is_stopped(id) {
            let list = own::list(&self.dir(id).path);
            match list {
                Ok(list) => {
                    self.note_unsendable(id, list.unsendable);
                    for entry in list.entries {
                        self.act(id, entry, Verdict::Make, false).await?;
                    }
                }
                Err(why) => self.note_trouble(&why),
            }
        }
        self.settle(id).await?;
        Ok(true)
    }

    /// A number for a directory; the caller sees to it that LIST or MKDIR declares it.
    fn declare(&mut self, parent: u32, entry: &Entry, changed: bool) -> u32 {
        self.dirs_numbered += 1;
        let id = self.dirs_numbered.wrapping_mul(NUMBER_STRIDE);
        let path = self.path_of(parent, &entry.name);
        self.dir(parent).waits_for += 1;
        let dir = Dir {
            parent,
            name: entry.name.clone(),
            path,
            meta: Some(entry.meta),
            changed,
            read_whole: true,
            waits_for: 1,
        };
        self.dirs.insert(id, dir);
        id
    }

    /// A directory that was never declared to the target.
    async fn forget(&mut self, id: u32) -> Result<(), Over> {
        let dir = self.dirs.remove(&id).expect("it has a number");
        self.settle(dir.parent).await
    }

    /// One of the things that a directory waits for is over; the last one closes it.
    async fn settle(&mut self, id: u32) -> Result<(), Over> {
        let mut id = id;
        loop {
            let dir = self.dir(id);
            dir.waits_for -= 1;
            if dir.waits_for > 0 {
                return Ok(());
            }
            let dir = self.dirs.remove(&id).expect("it was there");
            let sets = dir.changed && !self.wishes.dry_run;
            let op = pack::close(id, dir.meta.filter(|_| sets));
            self.operate(op).await?;
            if id == ROOT {
                return Ok(());
            }
            id = dir.parent;
        }
    }

    fn is_stopped(&self, dir: u32) -> bool {
        let stopped = &self.session.desk.borrow().stopped_dirs;
        if stopped.is_empty() {
            return false;
        }
        let mut id = dir;
        while id != ROOT && !stopped.contains(&id) {
            id = self.dirs[&id].parent;
        }
        stopped.contains(&id)
    }

    fn path_of(&self, dir: u32, name: &[u8]) -> PathBuf {
        let path = &self.dirs[&dir].path;
        if self.dirs[&dir].meta.is_none() {
            // The one entry of a push without a directory, whatever it will be called.
            path.clone()
        } else {
            path.join(OsStr::from_bytes(name))
        }
    }

    fn note_trouble(&mut self, why: &io::Error) {
        if why.kind() == io::ErrorKind::NotFound {
            self.counts.vanished += 1;
        } else {
            self.counts.failed += 1;
        }
    }

    /// An operation after which the directory has another time.
    async fn change(&mut self, dir: u32, op: Vec<u8>) -> Result<(), Over> {
        self.dir(dir).changed = true;
        self.operate(op).await
    }

    async fn operate(&mut self, op: Vec<u8>) -> Result<(), Over> {
        if self.pack.payload_bytes() + op.len() > PAYLOAD_BYTES_MAX {
            self.flush().await?;
        }
        self.pack.put(&op);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Over> {
        if self.pack.is_empty() {
            return Ok(());
        }
        let pack = std::mem::replace(&mut self.pack, Frame::new());
        self.session.send(pack.seal(frame::PACK)).await
    }

    /// One chunk of the large file whose turn it is.
    async fn send_large(&mut self) -> Result<bool, Over> {
        while self.large.len() < LARGE_FILES_OPEN_MAX
            && let Some(file) = self.large_waiting.pop_front()
        {
            self.begin(file).await?;
        }
        let Some(mut sending) = self.large.pop_front() else {
            return Ok(false);
        };
        self.flush().await?; // its BEGIN
        let is_stopped = self
            .session
            .desk
            .borrow()
            .stopped_files
            .contains(&sending.number);
        if is_stopped {
            self.end(sending, End::Stopped).await?;
        } else if sending.chunks_sent == sending.chunks() {
            self.end(sending, End::Sent).await?;
        } else {
            match read_chunk(&sending).await {
                Ok(Some((offset, content))) => {
                    let (frame, digest) = pack::data(sending.number, offset, &content);
                    self.counts.bytes_sent += content.len() as u64;
                    sending.digest = sending.digest.wrapping_add(digest);
                    sending.chunks_sent += 1;
                    self.session.send(frame).await?;
                    self.large.push_back(sending);
                }
                Ok(None) => self.end(sending, End::Changed).await?,
                Err(why) => {
                    self.note_trouble(&why);
                    self.end(sending, End::Unreadable).await?;
                }
            }
        }
        Ok(true)
    }

    async fn begin(&mut self, file: Large) -> Result<(), Over> {
        let opened = match Opened::open(&file.path) {
            Ok(opened) => opened,
            Err(why) => {
                self.note_trouble(&why);
                return self.settle(file.dir).await;
            }
        };
        self.files_numbered += 1;
        let number = self.files_numbered.wrapping_mul(NUMBER_STRIDE);
        let op = pack::begin(file.dir, &file.name, number, opened.meta, opened.size);
        self.large.push_back(Sending {
            backwards: self.files_numbered % 2 == 1,
            number,
            opened,
            chunks_sent: 0,
            digest: 0,
            file,
        });
        let dir = self.large.back().map_or(ROOT, |sending| sending.file.dir);
        self.change(dir, op).await
    }

    async fn end(&mut self, sending: Sending, end: End) -> Result<(), Over> {
        let changed = end == End::Changed || end == End::Sent && !sending.opened.is_unchanged();
        let digest = (end == End::Sent && !changed).then_some(sending.digest);
        self.session.send(pack::end(sending.number, digest)).await?;
        let dir = sending.file.dir;
        if changed && sending.file.attempt < ATTEMPTS_MAX {
            self.large_waiting.push_back(Large {
                attempt: sending.file.attempt + 1,
                ..sending.file
            });
            return Ok(());
        }
        if changed {
            self.counts.failed += 1;
        } else if end == End::Sent {
            self.counts.files_sent += 1;
        }
        self.settle(dir).await
    }
}

/// How the content of a large file came to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Sent,
    Stopped,
    Changed,
    Unreadable,
}

/// `None` where the file ended before its size.
async fn read_chunk(sending: &Sending) -> io::Result<Option<(u64, Vec<u8>)>> {
    let index = if sending.backwards {
        sending.chunks() - 1 - sending.chunks_sent
    } else {
        sending.chunks_sent
    };
    let offset = index * CHUNK_BYTES as u64;
    let left = usize::try_from(sending.opened.size - offset).unwrap_or(usize::MAX);
    let len = left.min(CHUNK_BYTES);
    let content = sending.opened.read(offset, len).await?;
    Ok((content.len() == len).then_some((offset, content)))
}

/// A whole small file; `None` where it is none any more.
async fn read_small(path: &Path) -> io::Result<Option<(Meta, Vec<u8>)>> {
    for _ in 0..ATTEMPTS_MAX {
        let opened = Opened::open(path)?;
        let size = usize::try_from(opened.size).unwrap_or(usize::MAX);
        if size > CHUNK_BYTES {
            return Ok(None);
        }
        let content = opened.read(0, size).await?;
        if content.len() == size && opened.is_unchanged() {
            return Ok(Some((opened.meta, content)));
        }
    }
    Err(io::Error::other("it changes all the time"))
}

/// A session that is greeted and does nothing.
pub struct Guest {
    session: Session,
}

impl Guest {
    pub async fn greet(aim: &Aim, wishes: &Wishes) -> Result<Self, Failure> {
        let session = Session::open(aim, wishes, false).await?;
        if session.welcome().await.is_ok() {
            return Ok(Self { session });
        }
        match session.close().await.0 {
            Err(failure) => Err(failure),
            Ok(_) => Err(Failure::protocol("a report before the WELCOME")),
        }
    }

    /// Ends it in order, with nothing done.
    pub async fn leave(mut self) -> Result<Report, Failure> {
        let mut pack = Frame::new();
        pack.put(&pack::close(ROOT, None));
        let closed = self.session.send(pack.seal(frame::PACK)).await;
        if closed.is_ok() {
            let _ = self.session.finish(0).await;
        }
        self.session.close().await.0
    }
}
