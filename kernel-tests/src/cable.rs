//! Two hosts with a cable between them: network namespaces of the test's own, joined by a veth.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Two namespaces, removed when dropped. Nothing but each other is reachable from either.
pub struct Cable {
    namespaces: [String; 2],
}

/// Addresses of the two ends.
pub const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

impl Cable {
    #[track_caller]
    pub fn lay() -> Self {
        Self::try_lay().expect("namespaces can be made and joined")
    }

    pub fn works() -> bool {
        static WORKS: OnceLock<bool> = OnceLock::new();
        *WORKS.get_or_init(|| Self::try_lay().is_some())
    }

    fn try_lay() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end| format!("sy-test-{}-{count}-{end}", std::process::id());
        let cable = Self {
            namespaces: [name("a"), name("b")],
        };
        let [a, b] = &cable.namespaces;
        let is_laid = ip(&["netns", "add", a])
            && ip(&["netns", "add", b])
            && ip(&[
                "link", "add", "cable", "netns", a, "type", "veth", "peer", "name", "cable",
                "netns", b,
            ])
            && cable
                .namespaces
                .iter()
                .zip(ADDRESSES)
                .all(|(namespace, address)| {
                    let address = format!("{address}/24");
                    ip(&["-n", namespace, "addr", "add", &address, "dev", "cable"])
                        && ip(&["-n", namespace, "link", "set", "lo", "up"])
                        && ip(&["-n", namespace, "link", "set", "cable", "up"])
                });
        is_laid.then_some(cable)
    }

    /// A listener of ours at one end. What it accepts can be handed on here.
    #[track_caller]
    pub fn listener(&self, end: usize) -> TcpListener {
        let path = format!("/run/netns/{}", self.namespaces[end]);
        let namespace = File::open(path).expect("iproute2 keeps them there");
        // A thread of its own, since it can't be sure to come back.
        let bound = std::thread::spawn(move || {
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), network).map_err(std::io::Error::from)?;
            TcpListener::bind((ADDRESSES[end], 0))
        });
        let bound = bound.join().expect("the thread does not panic");
        bound.expect("the end has its address")
    }

    /// From now on this part of what arrives at either end is lost, and packets are small: a mobile network on
    /// a bad day.
    #[track_caller]
    pub fn spoil(&self, lost: f64, packet_bytes: u32) {
        for end in 0..2 {
            let drop = format!(
                "iptables -w -A INPUT -i cable -m statistic --mode random --probability {lost} -j DROP"
            );
            // Large packets that a kernel hands on in one piece would be few.
            let shrink = format!("ip link set cable mtu {packet_bytes} gso_max_segs 1");
            for command in [drop, shrink] {
                let words: Vec<&str> = self.at(end).into_iter().chain(command.split(' ')).collect();
                assert!(run(words[0], &words[1..]), "{command}");
            }
        }
    }

    /// Packets that were lost at one end so far.
    #[track_caller]
    pub fn lost_count(&self, end: usize) -> u64 {
        let listing = Command::new("ip")
            .args(&self.at(end)[1..])
            .args(["iptables", "-w", "-nvxL", "INPUT"])
            .output()
            .expect("iproute2 is there");
        let listing = String::from_utf8(listing.stdout).expect("it is text");
        let rule = listing.lines().find(|line| line.contains("DROP"));
        let count = rule.and_then(|line| line.split_whitespace().next());
        count
            .and_then(|count| count.parse().ok())
            .expect("the cable is spoilt")
    }

    /// The words that run the rest of a command at one end.
    pub fn at(&self, end: usize) -> [&str; 4] {
        ["ip", "netns", "exec", &self.namespaces[end]]
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            ip(&["netns", "delete", namespace]);
        }
    }
}

fn ip(words: &[&str]) -> bool {
    run("ip", words)
}

fn run(program: &str, words: &[&str]) -> bool {
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
