//! A push that is stopped in its middle, so that a test can change the world under it.

use std::time::Duration;

use rustix::process::Signal;

use crate::proxy::{Deed, Plan, Proxy, Way};
use crate::scene::slash;
use crate::{Outcome, Route, Running, Scene, guard};

/// A push that waits. Over TCP its bytes are held back; embedded the process is stopped as soon as
/// anything is seen at the destination, which may be late: then it has ended, and what is changed
/// afterwards must do no harm either.
pub struct Held {
    running: Running,
    proxy: Option<Proxy>,
}

impl Held {
    /// Starts `src/` to `dst` and holds it after so many bytes.
    #[track_caller]
    pub fn start(scene: &mut Scene, options: &[&str], after_bytes: u64) -> Self {
        let source = slash(scene.src());
        if scene.route == Route::Tcp {
            let port = scene.server().port();
            let plan = Plan {
                way: Way::ToServer,
                after_bytes,
                deed: Deed::Hold,
            };
            let proxy = Proxy::start(port, plan);
            let push = scene.push_to_port(scene.aimed_at(), proxy.port());
            let mut running = push.from(source).options(options).start();
            guard::wait_until("the push to be held", || {
                proxy.is_holding() || running.has_ended()
            });
            return Self {
                running,
                proxy: Some(proxy),
            };
        }
        let before = entries(scene);
        let mut running = scene
            .push_to(scene.aimed_at())
            .from(source)
            .options(options)
            .start();
        while entries(scene) == before && !running.has_ended() {
            std::thread::sleep(Duration::from_micros(200));
        }
        running.pause();
        Self {
            running,
            proxy: None,
        }
    }

    /// Lets it go on to its end.
    #[track_caller]
    pub fn finish(self) -> Outcome {
        if let Some(proxy) = &self.proxy {
            proxy.release();
        }
        self.running.resume();
        self.running.wait()
    }

    /// Ends it by a signal where it is.
    #[track_caller]
    pub fn signal(self, signal: Signal) -> Outcome {
        self.running.signal(signal);
        self.running.resume();
        self.running.wait()
    }
}

fn entries(scene: &Scene) -> usize {
    std::fs::read_dir(scene.dst()).map_or(0, Iterator::count)
}
