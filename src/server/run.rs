//! The server's life: modules are opened, listeners bound, shards started; a signal drains them.

use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::acceptor::{Arrival, Listener, Origin, Signals, accept_until};
use super::config::{self, Listen, ServerConfig};
use super::log::{Log, SessionLine};
use super::stdio;
use crate::engine::bell::Waker;
use crate::engine::disk::PosixDisk;
use crate::engine::figures::Figures;
use crate::engine::lanes::LaneTable;
use crate::engine::posix::EngineChoice;
use crate::engine::probe;
use crate::engine::setup::SetupError;
use crate::engine::shard::PortKey;
use crate::engine::start::{self, PosixShard};
use crate::limits::{DRAIN_SECONDS_MAX, IDLE_SECONDS_MAX, POOL_THREADS};
use crate::model::module::{Module, ModuleTable};
use crate::model::report::Exit;
use crate::ops::{Disk, Errno};
use crate::session::target::Exports;
use crate::session::{Session, SessionError, Target};
use crate::wire::hello::Rights;

/// Serves until a signal ends it; the exit code of the program.
pub fn serve(config: ServerConfig, log: Log) -> Exit {
    start::prepare_process();
    let log = Arc::new(log);
    let ended = match &config.doors {
        config::Doors::Stdio => stdio::serve(&config, &log),
        config::Doors::Listen(listen) => Server::start(&config, listen, &log).map(Server::run),
    };
    ended.unwrap_or_else(|error| {
        log.say(format_args!("{}: {}", error.what, error.why), error.hint);
        error.exit
    })
}

/// Prints what this host gives the engine.
pub fn doctor() -> Exit {
    let here = std::env::current_dir().map(|dir| dir.as_os_str().as_bytes().to_vec());
    let found = probe::doctor(here.as_deref().ok(), &LaneTable::default());
    // Nobody is left to be told that the terminal is closed.
    let _ = io::Write::write_all(&mut io::stdout(), format!("{found}\n").as_bytes());
    Exit::Ok
}

/// Why a server does not serve.
pub(super) struct StartError {
    pub(super) what: String,
    pub(super) why: String,
    pub(super) hint: Option<&'static str>,
    pub(super) exit: Exit,
}

/// The figures of all shards. Each adds its own on its own thread, and who lets go of it last has
/// the sum: nobody waits for anybody.
#[derive(Default)]
struct Sum(Mutex<Figures>);

impl Sum {
    fn add(&self, figures: &Figures) {
        let mut sum = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sum.add(figures);
    }

    /// Lets go of it.
    fn leave(self: Arc<Self>, log: &Log) {
        if let Some(Self(figures)) = Arc::into_inner(self) {
            log.figures(&figures.into_inner().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// What the acceptor and a shard share.
struct Desk {
    arrivals: Mutex<Vec<Arrival>>,
    /// Where the shard is to add its figures.
    sums: Mutex<Vec<Arc<Sum>>>,
    sessions_count: AtomicUsize,
    is_draining: AtomicBool,
}

struct ShardHandle {
    desk: Arc<Desk>,
    waker: Waker,
    thread: JoinHandle<()>,
}

/// Who may do what, by where the connection came from.
pub(super) struct Doors {
    /// The server's own user.
    pub(super) own: Arc<Exports>,
    anyone: Arc<Exports>,
}

struct Server {
    listeners: Vec<Listener>,
    shards: Vec<ShardHandle>,
    signals: Signals,
    /// Where each shard adds its figures when it ends.
    last_sum: Arc<Sum>,
    alarm: Arc<Alarm>,
    connections_max: usize,
    log: Arc<Log>,
}

/// Rung by a shard that ends before its time.
///
/// The server then ends, as at SIGTERM but with an error: the other shards share nothing with the
/// broken one and may finish what they do. To go on without it would be to serve in a state that
/// nobody knows, with a part of the machine; whoever watches over the server starts a sound one.
struct Alarm {
    is_rung: AtomicBool,
    /// The other end of what stops the acceptor.
    stop: UnixStream,
    log: Arc<Log>,
}

impl Alarm {
    /// Runs a shard to its end. One that fails or panics says so in one line and rings.
    fn watch(&self, number: usize, serve: impl FnOnce() -> Result<(), Errno>) {
        // Its rings and streams are closed on the way out: its peers know at once.
        let why = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(serve)) {
            Ok(Ok(())) => return,
            Ok(Err(errno)) => format!("the ring failed: {}", io::Error::from(errno)),
            Err(_) => "an internal error, as told above".to_owned(),
        };
        self.log.say(
            format_args!("shard {number}: {why}; the server ends"),
            Some("start it again (Restart=on-failure), and please report it"),
        );
        self.is_rung.store(true, Ordering::Relaxed);
        // Where it is full or closed, the acceptor is stopping already.
        let _ = io::Write::write(&mut &self.stop, b"!");
    }
}

impl Server {
    fn start(config: &ServerConfig, listen: &[Listen], log: &Arc<Log>) -> Result<Self, StartError> {
        // Before anybody can connect: from then on a signal drains.
        let (signals, ring) = watch_signals().map_err(|error| StartError {
            what: "signals".to_owned(),
            why: error.to_string(),
            hint: None,
            exit: Exit::Start,
        })?;
        let alarm = Arc::new(Alarm {
            is_rung: AtomicBool::new(false),
            stop: ring,
            log: Arc::clone(log),
        });
        let doors = Arc::new(open_doors(&config.modules)?);
        let made =
            |dir: &Path| log.say(format_args!("{}: made for the socket", dir.display()), None);
        let listeners = listen.iter().map(|listen| {
            Listener::bind(listen, made).map_err(|error| StartError {
                what: listen.place(),
                why: format!("cannot listen: {error}"),
                hint: listen_hint(&error),
                exit: Exit::Socket,
            })
        });
        let listeners: Vec<Listener> = listeners.collect::<Result<_, _>>()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards_count = config.shards.map_or(cores, usize::from);
        let connections_max = connections_max(shards_count, config.max_connections)?;
        let pool_threads = config.pool_threads.map_or(POOL_THREADS, usize::from);
        let last_sum = Arc::default();
        let worker = |desk| Worker {
            desk,
            doors: Arc::clone(&doors),
            log: Arc::clone(log),
            last_sum: Arc::clone(&last_sum),
        };
        let shards = start_shards((shards_count, pool_threads), config.engine, worker, &alarm)?;
        let connections_max = connections_max.min(start::connections_max(shards.len(), None));
        let modules = match config.modules.len() {
            1 => "1 module".to_owned(),
            count => format!("{count} modules"),
        };
        for listener in &listeners {
            log.say(
                format_args!("listening on {}, {modules}", listener.place(),),
                None,
            );
        }
        Ok(Self {
            listeners,
            shards,
            signals,
            last_sum,
            alarm,
            connections_max,
            log: Arc::clone(log),
        })
    }

    fn run(self) -> Exit {
        let Self {
            listeners,
            shards,
            signals,
            last_sum,
            alarm,
            connections_max,
            log,
        } = self;
        let sessions_count =
            |shard: &ShardHandle| shard.desk.sessions_count.load(Ordering::Relaxed);
        let give = |arrival: Arrival| {
            if shards.iter().map(sessions_count).sum::<usize>() >= connections_max {
                log.refused(&arrival.peer, "busy", start::now());
                return Err(arrival);
            }
            let least = shards.iter().min_by_key(|shard| sessions_count(shard));
            let shard = least.expect("there is at least one shard");
            shard.desk.sessions_count.fetch_add(1, Ordering::Relaxed);
            shard
                .desk
                .arrivals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(arrival);
            shard.waker.wake();
            Ok(())
        };
        let complain = |error: &io::Error| log.not_accepted(error, start::now());
        let asked = || {
            let sum = Arc::<Sum>::default();
            for shard in &shards {
                let mut sums = shard
                    .desk
                    .sums
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                sums.push(Arc::clone(&sum));
                drop(sums);
                shard.waker.wake();
            }
            sum.leave(&log);
        };
        accept_until(&listeners, &signals, connections_max, give, complain, asked);
        drop(listeners);
        log.say(format_args!("shutting down"), None);
        for shard in &shards {
            shard.desk.is_draining.store(true, Ordering::Relaxed);
            shard.waker.wake();
        }
        for shard in shards {
            // Its own panic it has told by the alarm.
            let _ = shard.thread.join();
        }
        last_sum.leave(&log);
        if alarm.is_rung.load(Ordering::Relaxed) {
            Exit::Stream
        } else {
            Exit::Ok
        }
    }
}

/// What the config says, as far as the rings can carry it, or what this host bears.
fn connections_max(shards_count: usize, asked: Option<u32>) -> Result<usize, StartError> {
    let by_rings = start::connections_max(shards_count, None);
    match asked.map(|count| usize::try_from(count).unwrap_or(usize::MAX)) {
        None => Ok(start::connections_max(
            shards_count,
            start::open_files_max(),
        )),
        Some(count) if count <= by_rings => Ok(count),
        Some(count) => Err(StartError {
            what: format!("max_connections = {count}"),
            why: format!("is not from 1 to {by_rings}, which is what {shards_count} shards carry"),
            hint: Some("leave it out, or raise --shards"),
            exit: Exit::Usage,
        }),
    }
}

/// What to try where a listener can't be had.
fn listen_hint(error: &io::Error) -> Option<&'static str> {
    match Errno::from_io_error(error)? {
        Errno::ADDRINUSE => Some(
            "end the server that is there, or name another --socket PATH or --listen ADDR:PORT",
        ),
        Errno::ACCESS | Errno::PERM => Some(
            "--socket PATH in a directory that the server's user may write to, or a port from 1024",
        ),
        Errno::NOENT => Some("make the directory above it, or --socket PATH elsewhere"),
        Errno::ADDRNOTAVAIL => Some("--listen 127.0.0.1:7873"),
        _ => None,
    }
}

/// Who may do what in which module. Their directories are opened by each session, and once here: one that is not there
/// is better told at the start. What the operator's links name then holds for good.
pub(super) fn open_doors(modules: &ModuleTable) -> Result<Doors, StartError> {
    let mut resolved = ModuleTable::default();
    for module in modules.iter() {
        let cannot = |error: io::Error| StartError {
            what: module.root.display().to_string(),
            why: format!("cannot open the module's directory: {error}"),
            hint: None,
            exit: Exit::Start,
        };
        let root = std::fs::canonicalize(&module.root).map_err(cannot)?;
        let opened = PosixDisk.open_module_dir(root.as_os_str().as_bytes());
        opened.map_err(|errno| cannot(errno.into()))?;
        let module = Module {
            root,
            ..module.clone()
        };
        resolved.insert(module).expect("their names differ");
    }
    let is_root = PosixDisk.identity().is_root;
    let own = Rights {
        owners: is_root,
        setid: true,
        nodes: is_root,
    };
    let with = |rights| {
        Arc::new(Exports {
            modules: resolved.clone(),
            rights,
        })
    };
    Ok(Doors {
        own: with(own),
        anyone: with(Rights::default()),
    })
}

/// The streams that signals make readable, and the other end of the one that stops.
fn watch_signals() -> io::Result<(Signals, UnixStream)> {
    use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
    use signal_hook::low_level::pipe::register;
    let (stop, signal) = UnixStream::pair()?;
    let (ask, question) = UnixStream::pair()?;
    let ring = signal.try_clone()?;
    register(SIGINT, signal.try_clone()?)?;
    register(SIGTERM, signal)?;
    register(SIGUSR1, question)?;
    Ok((Signals { stop, ask }, ring))
}

/// Starts so many shards, or fewer where there is no locked memory for more rings.
fn start_shards(
    (count, pool_threads): (usize, usize),
    mut engine: EngineChoice,
    worker: impl Fn(Arc<Desk>) -> Worker,
    alarm: &Arc<Alarm>,
) -> Result<Vec<ShardHandle>, StartError> {
    let mut shards = Vec::with_capacity(count);
    for number in 0..count {
        let why = match start_shard(number, engine, pool_threads, &worker, alarm) {
            Ok((shard, chosen, refused)) => {
                if let Some(refused) = refused {
                    alarm.log.portable(refused);
                }
                // All of them are alike.
                engine = chosen;
                shards.push(shard);
                continue;
            }
            Err(NoShard::Setup(SetupError::Memlock)) if number > 0 => {
                let text = format_args!("{number} of {count} shards: {}", SetupError::Memlock);
                alarm
                    .log
                    .say(text, Some(&probe::Advice::RaiseMemlock.to_string()));
                break;
            }
            Err(NoShard::Setup(error)) => error.to_string(),
            Err(NoShard::Thread(why)) => why,
        };
        return Err(StartError {
            what: format!("shard {number}"),
            why,
            hint: Some("sy-server doctor"),
            exit: Exit::Start,
        });
    }
    Ok(shards)
}

/// Why there is no shard.
enum NoShard {
    Setup(SetupError),
    Thread(String),
}

fn start_shard(
    number: usize,
    engine: EngineChoice,
    pool_threads: usize,
    worker: impl Fn(Arc<Desk>) -> Worker,
    alarm: &Arc<Alarm>,
) -> Result<(ShardHandle, EngineChoice, Option<SetupError>), NoShard> {
    let desk = Arc::new(Desk {
        arrivals: Mutex::new(Vec::new()),
        sums: Mutex::new(Vec::new()),
        sessions_count: AtomicUsize::new(0),
        is_draining: AtomicBool::new(false),
    });
    let (tell, told) = std::sync::mpsc::channel();
    let worker = worker(Arc::clone(&desk));
    let alarm = Arc::clone(alarm);
    let thread = std::thread::Builder::new()
        .name(format!("sy-shard-{number}"))
        .spawn(move || {
            alarm.watch(number, || {
                // A ring belongs to the thread that makes it.
                let started = start::shard(engine, pool_threads);
                let mut shard = match started {
                    Ok(shard) => shard,
                    Err(error) => {
                        let _ = tell.send(Err(error));
                        return Ok(());
                    }
                };
                let ring = shard.ring_mut();
                let _ = tell.send(Ok((ring.waker(), ring.choice(), ring.refused())));
                worker.run(shard)
            });
        });
    let thread = thread.map_err(|error| NoShard::Thread(error.to_string()))?;
    let started = told
        .recv()
        .map_err(|_| NoShard::Thread("it did not start".to_owned()))?;
    let (waker, chosen, refused) = started.map_err(NoShard::Setup)?;
    let shard = ShardHandle {
        desk,
        waker,
        thread,
    };
    Ok((shard, chosen, refused))
}

/// The thread of one shard.
struct Worker {
    desk: Arc<Desk>,
    doors: Arc<Doors>,
    log: Arc<Log>,
    last_sum: Arc<Sum>,
}

impl Worker {
    /// Serves until the server drains and its last session is over.
    fn run(&self, mut shard: PosixShard) -> Result<(), Errno> {
        let ended = self.serve(&mut shard);
        self.last_sum.add(shard.ring_mut().figures());
        ended
    }

    fn serve(&self, shard: &mut PosixShard) -> Result<(), Errno> {
        let mut peers: HashMap<PortKey, String> = HashMap::new();
        let mut drain_until = None;
        loop {
            let arrivals = std::mem::take(
                &mut *self
                    .desk
                    .arrivals
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            for arrival in arrivals {
                let key = self.open(shard, arrival.stream, arrival.origin);
                peers.insert(key, arrival.peer);
            }
            self.answer(shard);
            if self.desk.is_draining.load(Ordering::Relaxed) {
                let until = *drain_until.get_or_insert_with(|| {
                    shard.now().plus(Duration::from_secs(DRAIN_SECONDS_MAX))
                });
                if self.drain(shard, until) {
                    return Ok(());
                }
            }
            shard.turn(drain_until)?;
            while let Some((key, session, opened)) = shard.next_finished() {
                self.desk.sessions_count.fetch_sub(1, Ordering::Relaxed);
                let peer = peers.remove(&key).unwrap_or_default();
                if let Session::Target(target) = session {
                    self.log(&target, &peer, shard.now().since(opened), shard.now());
                }
            }
        }
    }

    fn open(
        &self,
        shard: &mut PosixShard,
        stream: std::os::fd::OwnedFd,
        origin: Origin,
    ) -> PortKey {
        let exports = match origin {
            Origin::Own => Arc::clone(&self.doors.own),
            Origin::Anyone => Arc::clone(&self.doors.anyone),
        };
        let stream = shard.ring_mut().add_stream(stream);
        let session = Session::Target(Box::new(Target::new(exports, true)));
        shard.open(session, stream, Some(Duration::from_secs(IDLE_SECONDS_MAX)))
    }

    /// Adds its figures where they were asked for.
    fn answer(&self, shard: &mut PosixShard) {
        let sums = std::mem::take(
            &mut *self
                .desk
                .sums
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        for sum in sums {
            sum.add(shard.ring_mut().figures());
            sum.leave(&self.log);
        }
    }

    /// Ends idle sessions now and busy ones when their time is up; whether all are gone.
    fn drain(&self, shard: &mut PosixShard, until: crate::model::time::Moment) -> bool {
        let is_late = shard.now() >= until;
        for key in shard.keys() {
            if is_late || !shard.session(key).is_greeted() {
                shard.break_off(key, SessionError::ShuttingDown);
            }
        }
        let is_hopeless = shard.now() >= until.plus(Duration::from_secs(DRAIN_SECONDS_MAX));
        shard.sessions_count() == 0 || is_hopeless
    }

    fn log(
        &self,
        target: &Target<PosixDisk>,
        peer: &str,
        elapsed: Duration,
        now: crate::model::time::Moment,
    ) {
        let why = target.error().map(ToString::to_string);
        let why = why.or_else(|| target.fatal_why());
        let Some(hello) = target.hello() else {
            return self
                .log
                .refused(peer, why.as_deref().unwrap_or("no greeting"), now);
        };
        self.log.session(&SessionLine {
            session: hello.session,
            files: target.names_files_by(),
            peer,
            module: &hello.module,
            totals: &target.totals(),
            dry_run: hello.policy.dry_run,
            durability: target.has_reported().then_some(hello.policy.durability),
            exit: target.exit(),
            why: why.as_deref(),
            elapsed,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that is up, without a listener.
    fn server() -> (Server, Arc<Mutex<Vec<u8>>>) {
        struct Paper(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Paper {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let paper = Arc::default();
        let log = Arc::new(Log::to(Box::new(Paper(Arc::clone(&paper)))));
        let (stop, ring) = UnixStream::pair().unwrap();
        let ask = stop.try_clone().unwrap();
        let alarm = Arc::new(Alarm {
            is_rung: AtomicBool::new(false),
            stop: ring,
            log: Arc::clone(&log),
        });
        let server = Server {
            listeners: Vec::new(),
            shards: Vec::new(),
            signals: Signals { stop, ask },
            last_sum: Arc::default(),
            alarm,
            connections_max: 1,
            log,
        };
        (server, paper)
    }

    #[test]
    fn a_shard_that_breaks_ends_the_server_with_one_line_and_an_error() {
        let broken: [fn() -> Result<(), Errno>; 2] =
            [|| panic!("a test's own"), || Err(Errno::BADF)];
        for (serve, why) in broken.into_iter().zip(["internal error", "ring failed"]) {
            let (server, paper) = server();
            let alarm = Arc::clone(&server.alarm);
            let shard = std::thread::spawn(move || alarm.watch(3, serve));
            // Nothing but the alarm ends it.
            assert_eq!(server.run(), Exit::Stream);
            shard.join().unwrap();
            let text = String::from_utf8(paper.lock().unwrap().clone()).unwrap();
            let told = text.lines().filter(|line| line.contains("shard 3: "));
            assert_eq!(told.count(), 1, "{text}");
            assert!(text.contains(why), "{text}");
        }
    }

    #[test]
    fn a_server_whose_shards_are_sound_ends_well() {
        let (server, _) = server();
        server.alarm.watch(0, || Ok(()));
        io::Write::write_all(&mut &server.alarm.stop, b"signal").unwrap();
        assert_eq!(server.run(), Exit::Ok);
    }
}
