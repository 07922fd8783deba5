//! A local colluder: two names that trade places as fast as they can until it is dropped.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::plant;

/// A thread that repeats one deed.
pub struct Flipper {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flipper {
    /// Exchanges two names, again and again.
    pub fn exchanging(one: &Path, other: &Path) -> Self {
        let (one, other): (PathBuf, PathBuf) = (one.to_owned(), other.to_owned());
        Self::repeating(move |_| {
            let _ = plant::exchange(&one, &other);
        })
    }

    /// Repeats a deed, which is told how often it was done before.
    pub fn repeating(mut deed: impl FnMut(u64) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                deed(counted.fetch_add(1, Ordering::Relaxed));
            }
        });
        Self {
            stop,
            count,
            thread: Some(thread),
        }
    }

    /// How often it was done.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Flipper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
