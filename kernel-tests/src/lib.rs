//! The black-box suite: the real `sy` and `sy-server`, on a real kernel, against real trees.
//!
//! A test takes a [`Scene`] (a source, a destination, a server if the route needs one, and a
//! sentinel tree that nobody may touch), pushes, and compares. [`Tree`] is the oracle, `rsync` the
//! second one ([`twin`]), and "push again and nothing happens" the third.
//!
//! Environment:
//! - `SY_BIN_DIR`: where `sy` and `sy-server` are; else next to the test binaries.
//! - `SY_TESTS_REQUIRE=1`: a missing tool fails a test instead of skipping it.
//! - `SY_TESTS_DIR`: where trees are made; else `/dev/shm`, else the temp directory.
//! - `SY_TESTS_SEED`: the seed of everything random; printed by each test that draws.
//! - `SY_TESTS_HANG_SECONDS`: how long anything may take before it counts as hung.
//! - `SY_TESTS_KEEP=1`: leave the trees of failed tests behind.
//! - `SY_TESTS_SUBJECT=rsync`: run `rsync` in sy's place, to test these tests.

#![allow(
    clippy::print_stdout,
    reason = "what a failed test drew, skipped and saw is printed"
)]

pub mod cable;
pub mod chance;
pub mod content;
pub mod deep;
pub mod evil;
pub mod flipper;
pub mod guard;
pub mod held;
pub mod holes;
pub mod invariant;
pub mod machine;
pub mod mount;
pub mod need;
pub mod plant;
pub mod proxy;
pub mod push;
pub mod scene;
pub mod second;
pub mod server;
pub mod sshd;
pub mod subject;
pub mod tree;
pub mod twin;
pub mod usage;
pub mod variety;
pub mod versions;
pub mod writes;
pub mod yard;

pub use chance::Chance;
pub use need::Need;
pub use push::{Outcome, Push, Running};
pub use scene::{Route, Scene};
pub use server::Server;
pub use sshd::Sshd;
pub use tree::Tree;
pub use yard::Yard;

/// Ends the test early where the machine lacks something: as a pass that says so, or as a failure
/// under `SY_TESTS_REQUIRE=1`.
#[macro_export]
macro_rules! require {
    ($($need:expr),+ $(,)?) => {
        $(
            if let Err(what) = $need.met() {
                $crate::need::missing(&what);
                return;
            }
        )+
    };
}

/// One scenario, run once for each route it names.
#[macro_export]
macro_rules! on_routes {
    ($($route:ident),+; fn $name:ident($scene:ident) $body:block) => {
        mod $name {
            #[allow(unused_imports, reason = "a scenario takes what it needs of its file's imports")]
            use super::*;

            #[allow(unused_variables, unused_mut, reason = "not every scenario changes its scene")]
            fn scenario(mut $scene: &mut $crate::Scene) $body

            $(
                #[test]
                fn $route() {
                    $crate::Scene::play($crate::Route::$route(), scenario);
                }
            )+
        }
    };
}
