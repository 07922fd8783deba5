//! One connection: the reader, the writer, and the desk on which they leave things for the
//! planner.

use std::cell::RefCell;
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::alphabet::{Payload, Put};
use super::answers::{Notice, Report, Stop, is_early};
use super::frame::{self, Frame, HEAD_BYTES, Head};
use super::greeting::{self, Welcome};
use super::listing::{Section, Status};
use super::merge::{Merge, Merged};
use super::stream::Stream;
use super::{Aim, Failure, Wishes};

/// Frames handed to the writer and not yet on the stream.
const FRAMES_WAITING_MAX: usize = 8;
const NOTICES_KEPT_MAX: usize = 10_000;
const CONNECT_PATIENCE: Duration = Duration::from_secs(20);
const QUIET_MAX: Duration = Duration::from_secs(15);
/// Every so many frames one goes ahead that the target has to read over.
const FRAMES_PER_IGNORABLE: u8 = 64;

/// What the reader leaves and the planner takes.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) welcome: Option<Welcome>,
    /// Asked for and not answered, in the order of asking.
    pub(super) awaited: VecDeque<(u32, Merge)>,
    /// A section came that was not the last of its directory.
    is_within: bool,
    pub(super) merged: VecDeque<(u32, Merged)>,
    pub(super) stopped_dirs: HashSet<u32>,
    pub(super) stopped_files: HashSet<u32>,
    pub(super) notices: Vec<Notice>,
    /// DONE was handed to the writer.
    pub(super) is_done: bool,
    /// Nothing more will come.
    pub(super) last: Option<Result<Report, Failure>>,
}

pub(super) struct Session {
    pub(super) desk: Rc<RefCell<Desk>>,
    news: Rc<Notify>,
    stream: Rc<Stream>,
    frames: Option<mpsc::Sender<Vec<u8>>>,
    frames_until_ignorable: u8,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

/// The session is over; the desk says why.
#[derive(Debug)]
pub(super) struct Over;

impl Session {
    pub(super) async fn open(
        aim: &Aim,
        wishes: &Wishes,
        single_file: bool,
    ) -> Result<Self, Failure> {
        let stream = match timeout(CONNECT_PATIENCE, Stream::connect(&aim.server)).await {
            Ok(Ok(stream)) => Rc::new(stream),
            Ok(Err(why)) => return Err(Failure::Connect(why.to_string())),
            Err(_) => return Err(Failure::Connect("it takes too long".to_owned())),
        };
        let desk = Rc::new(RefCell::new(Desk::default()));
        let news = Rc::new(Notify::new());
        let reader = Reader {
            stream: Rc::clone(&stream),
            desk: Rc::clone(&desk),
            patience: wishes.patience,
            single_file,
            dry_run: wishes.dry_run,
            is_first: true,
        };
        let (frames, taken) = mpsc::channel(FRAMES_WAITING_MAX);
        let quiet = QUIET_MAX.min(wishes.patience / 4);
        let reader = tokio_uring::spawn(reader.run(Rc::clone(&news)));
        let writer = tokio_uring::spawn(write(Rc::clone(&stream), taken, quiet));
        let mut session = Self {
            desk,
            news,
            stream,
            frames: Some(frames),
            // The first one follows HELLO.
            frames_until_ignorable: 1,
            reader,
            writer,
        };
        // If it can't be sent, the reader finds out why.
        let _ = session
            .send(greeting::hello(aim, wishes, single_file))
            .await;
        Ok(session)
    }

    /// Hands a frame to the writer, when there is room.
    pub(super) async fn send(&mut self, frame: Vec<u8>) -> Result<(), Over> {
        if self.frames_until_ignorable == 0 {
            self.frames_until_ignorable = FRAMES_PER_IGNORABLE;
            let mut noise = Frame::new();
            noise.put(b"to be read over");
            self.hand_over(noise.seal(frame::IGNORABLE_LAST)).await?;
        }
        self.frames_until_ignorable -= 1;
        self.hand_over(frame).await
    }

    async fn hand_over(&self, frame: Vec<u8>) -> Result<(), Over> {
        if self.is_over() {
            return Err(Over);
        }
        let frames = self.frames.as_ref().ok_or(Over)?;
        // The writer takes frames until it can't write; while the stream stands it makes room.
        frames.send(frame).await.map_err(|_| Over)
    }

    pub(super) fn is_over(&self) -> bool {
        self.desk.borrow().last.is_some()
    }

    /// Waits until the reader left something new since this was called last.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// The target's rights, or `Over`.
    pub(super) async fn welcome(&self) -> Result<Welcome, Over> {
        loop {
            if let Some(welcome) = self.desk.borrow().welcome {
                return Ok(welcome);
            }
            if self.is_over() {
                return Err(Over);
            }
            self.news().await;
        }
    }

    /// Sends DONE.
    pub(super) async fn finish(&mut self, failed: u64) -> Result<(), Over> {
        let mut done = Frame::new();
        done.put(&failed.to_le_bytes());
        self.desk.borrow_mut().is_done = true;
        self.send(done.seal(frame::DONE)).await
    }

    /// Waits for the last word, and closes.
    pub(super) async fn close(mut self) -> (Result<Report, Failure>, Vec<Notice>) {
        while !self.is_over() {
            self.news().await;
        }
        self.hang_up().await;
        let mut desk = self.desk.borrow_mut();
        let last = desk.last.take().expect("it is over");
        (last, std::mem::take(&mut desk.notices))
    }

    /// Closes without waiting for a word.
    pub(super) async fn hang_up(&mut self) {
        self.frames = None;
        self.stream.hang_up();
        let _ = (&mut self.reader).await;
        let _ = (&mut self.writer).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stream.hang_up();
    }
}

/// Writes frames as they come, and a sign of life where none comes for long.
async fn write(stream: Rc<Stream>, mut frames: mpsc::Receiver<Vec<u8>>, quiet: Duration) {
    loop {
        let frame = match timeout(quiet, frames.recv()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(_) => Frame::new().seal(frame::SIGN_OF_LIFE),
        };
        if stream.write_all(frame).await.is_err() {
            return;
        }
    }
}

struct Reader {
    stream: Rc<Stream>,
    desk: Rc<RefCell<Desk>>,
    patience: Duration,
    single_file: bool,
    dry_run: bool,
    is_first: bool,
}

impl Reader {
    async fn run(mut self, news: Rc<Notify>) {
        loop {
            let heard = match self.next_frame().await {
                Ok((kind, payload)) => self.hear(kind, &payload),
                Err(failure) => Err(failure),
            };
            if let Err(failure) = heard {
                self.desk.borrow_mut().last = Some(Err(failure));
            }
            let over = self.desk.borrow().last.is_some();
            news.notify_one();
            if over {
                // Who waits for room to send need not wait any longer.
                self.stream.hang_up();
                return;
            }
        }
    }

    async fn next_frame(&mut self) -> Result<(u8, Vec<u8>), Failure> {
        loop {
            let bytes = self.read(HEAD_BYTES).await?;
            let head = bytes.first_chunk().expect("it was read whole");
            let head = Head::read(head).map_err(|failure| {
                if self.is_first {
                    Failure::AnotherProtocol
                } else {
                    failure
                }
            })?;
            self.is_first = false;
            let payload = self.read(head.payload_bytes).await?;
            head.check(&payload)?;
            if !head.is_ignorable() {
                return Ok((head.kind, payload));
            }
        }
    }

    async fn read(&self, len: usize) -> Result<Vec<u8>, Failure> {
        match timeout(self.patience, self.stream.read(len)).await {
            Ok(Ok(bytes)) if bytes.len() == len => Ok(bytes),
            Ok(Ok(_)) => Err(Failure::Lost("it ended before the report".to_owned())),
            Ok(Err(why)) => Err(Failure::Lost(why.to_string())),
            Err(_) => Err(Failure::Silent),
        }
    }

    fn hear(&self, kind: u8, payload: &[u8]) -> Result<(), Failure> {
        let desk = &mut *self.desk.borrow_mut();
        let mut payload = Payload(payload);
        match (kind, desk.welcome) {
            (frame::REFUSED, _) => return Err(greeting::read_refused(payload)?),
            (frame::WELCOME, None)
                if payload.0.get(..2) != Some(&greeting::VERSION.to_le_bytes()) =>
            {
                return Err(Failure::AnotherVersion);
            }
            (frame::WELCOME, None) => {
                desk.welcome = Some(Welcome::read(payload, self.single_file, self.dry_run)?);
            }
            (frame::LISTING, Some(welcome)) => {
                while !payload.is_empty() {
                    desk.hear_section(&mut payload, &welcome)?;
                }
            }
            (frame::NOTICE, Some(_)) => {
                while !payload.is_empty() {
                    let notice = Notice::read(&mut payload)?;
                    if desk.notices.len() < NOTICES_KEPT_MAX {
                        desk.notices.push(notice);
                    }
                }
            }
            (frame::STOP, Some(_)) => {
                while !payload.is_empty() {
                    match Stop::read(&mut payload)? {
                        Stop::Below(dir) => desk.stopped_dirs.insert(dir),
                        Stop::File(file) => desk.stopped_files.insert(file),
                    };
                }
            }
            (frame::REPORT, Some(_)) => {
                let report = Report::read(payload)?;
                if !desk.is_done && !is_early(report.exit) {
                    return Err(Failure::protocol("a report before DONE"));
                }
                desk.last = Some(Ok(report));
            }
            _ => {
                return Err(Failure::Protocol(format!(
                    "a frame {kind:#04x} out of turn"
                )));
            }
        }
        Ok(())
    }
}

impl Desk {
    fn hear_section(
        &mut self,
        payload: &mut Payload<'_>,
        welcome: &Welcome,
    ) -> Result<(), Failure> {
        let section = Section::read(payload)?;
        let Some((dir, merge)) = self.awaited.front_mut() else {
            return Err(Failure::protocol("a listing that nobody asked for"));
        };
        if *dir != section.dir {
            return Err(Failure::protocol("a listing out of turn"));
        }
        if section.status == Status::Absent && self.is_within {
            return Err(Failure::protocol(
                "a directory is absent after its first part",
            ));
        }
        merge.take_section(section, payload, welcome)?;
        self.is_within = section.status == Status::Part;
        if !self.is_within
            && let Some((dir, merge)) = self.awaited.pop_front()
        {
            self.merged.push_back((dir, merge.finish(section.status)));
        }
        Ok(())
    }
}
