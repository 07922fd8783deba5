//! Many pushes at once, and sessions that only stand there beside them.

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::planner::Guest;
use super::{Address, Aim, Failure, Pushed, Wishes, push};

/// What is to be done to a server.
#[derive(Clone, Debug)]
pub struct Load {
    pub server: Address,
    pub module: String,
    pub source: PathBuf,
    /// The numbers of the clients are put behind it.
    pub dest_prefix: String,
    pub clients: usize,
    /// Sessions that are greeted, send nothing but signs of life, and end in order after the
    /// pushes.
    pub idle: usize,
    pub wishes: Wishes,
    /// After that a push is given up.
    pub time_max: Duration,
}

/// One client's push.
pub struct Timed {
    pub client: usize,
    pub took: Duration,
    pub result: Result<Pushed, Failure>,
}

/// How it went.
pub struct Loaded {
    /// In the order of the clients.
    pub pushes: Vec<Timed>,
    pub took: Duration,
    /// Idle sessions that came to their REPORT.
    pub idle_ended_well: usize,
}

/// Runs all of it, on a thread and a ring for each core.
pub fn run(load: &Load) -> Loaded {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (are_greeted, greeted) = mpsc::channel();
    let (leave, may_leave) = oneshot::channel();
    thread::scope(|scope| {
        let idle =
            scope.spawn(move || tokio_uring::start(stand_idle(load, are_greeted, may_leave)));
        // Their end without a word is heard too.
        let _ = greeted.recv();
        let start = Instant::now();
        let threads: Vec<_> = (0..cores.min(load.clients))
            .map(|first| {
                let clients = (first..load.clients).step_by(cores).collect();
                scope.spawn(move || tokio_uring::start(push_all(load.clone(), clients)))
            })
            .collect();
        let mut pushes: Vec<Timed> = threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a client does not panic"))
            .collect();
        let took = start.elapsed();
        pushes.sort_by_key(|timed| timed.client);
        let _ = leave.send(());
        Loaded {
            pushes,
            took,
            idle_ended_well: idle.join().expect("an idle session does not panic"),
        }
    })
}

async fn push_all(load: Load, clients: Vec<usize>) -> Vec<Timed> {
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|client| tokio_uring::spawn(push_one(load.clone(), client)))
        .collect();
    let mut pushes = Vec::new();
    for task in tasks {
        pushes.push(task.await.expect("a client does not panic"));
    }
    pushes
}

async fn push_one(load: Load, client: usize) -> Timed {
    let dest = format!("{}{client}", load.dest_prefix);
    let aim = Aim::new(load.server, &load.module, &dest);
    let start = Instant::now();
    let pushed = timeout(load.time_max, push(&load.source, &aim, &load.wishes)).await;
    Timed {
        client,
        took: start.elapsed(),
        result: pushed.unwrap_or(Err(Failure::Silent)),
    }
}

/// How many of them ended well.
async fn stand_idle(
    load: &Load,
    are_greeted: mpsc::Sender<()>,
    may_leave: oneshot::Receiver<()>,
) -> usize {
    let aim = Aim::new(load.server.clone(), &load.module, "");
    let mut guests = Vec::new();
    for _ in 0..load.idle {
        if let Ok(guest) = Guest::greet(&aim, &load.wishes).await {
            guests.push(guest);
        }
    }
    let _ = are_greeted.send(());
    let _ = may_leave.await;
    let mut ended_well = 0;
    for guest in guests {
        let report = timeout(load.time_max, guest.leave()).await;
        ended_well += usize::from(matches!(report, Ok(Ok(report)) if report.exit == 0));
    }
    ended_well
}
