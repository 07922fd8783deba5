//! `sy-load`: many pushes to one server at once, by the second implementation of the protocol.

#![allow(clippy::print_stdout, reason = "what it measures is printed")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use hdrhistogram::Histogram;
use kernel_tests::second::load::{self, Load, Loaded, Timed};
use kernel_tests::second::{Address, Wishes};

/// Pushes the contents of SRC many times at once, each into a directory of its own, and says how
/// long each took
#[derive(Parser)]
#[command(name = "sy-load")]
struct Words {
    /// 127.0.0.1:7873, or the path of a UNIX socket
    #[arg(long, value_name = "ADDR", value_parser = address)]
    server: Address,
    #[arg(long)]
    module: String,
    /// How many push
    #[arg(long, value_name = "N", default_value_t = 1)]
    clients: usize,
    /// How many are connected beside them and do nothing
    #[arg(long, value_name = "N", default_value_t = 0)]
    connections_idle: usize,
    /// Remove what SRC does not have
    #[arg(long)]
    delete: bool,
    /// After so long a push is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    seconds_max: u64,
    src: PathBuf,
    /// Behind it comes the number of the client
    #[arg(value_name = "DEST-PREFIX")]
    dest_prefix: String,
}

fn address(word: &str) -> Result<Address, String> {
    if word.contains('/') {
        return Ok(Address::Unix(word.into()));
    }
    let address: Result<SocketAddr, _> = word.parse();
    address.map(Address::Tcp).map_err(|why| why.to_string())
}

fn main() -> ExitCode {
    let words = Words::parse();
    let load = Load {
        server: words.server,
        module: words.module,
        source: words.src,
        dest_prefix: words.dest_prefix,
        clients: words.clients,
        idle: words.connections_idle,
        wishes: Wishes {
            delete: words.delete,
            ..Wishes::default()
        },
        time_max: Duration::from_secs(words.seconds_max),
    };
    let loaded = load::run(&load);
    for timed in &loaded.pushes {
        println!("{}", line_of(timed));
    }
    let all_well = tell(&load, &loaded);
    if all_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn line_of(timed: &Timed) -> String {
    let (client, seconds) = (timed.client, timed.took.as_secs_f64());
    match &timed.result {
        Ok(pushed) => {
            let (files, bytes) = (pushed.counts.files_sent, pushed.counts.bytes_sent);
            let exit = pushed.exit();
            format!(
                "{client:>5}  {seconds:>9.3} s  {files:>8} files  {bytes:>12} bytes  exit {exit}"
            )
        }
        Err(failure) => {
            let exit = failure.exit();
            format!("{client:>5}  {seconds:>9.3} s  {failure}  exit {exit}")
        }
    }
}

/// The summary, for people and as JSON; did everything go well?
fn tell(load: &Load, loaded: &Loaded) -> bool {
    let time_max_us = load
        .time_max
        .as_micros()
        .try_into()
        .unwrap_or(u64::MAX)
        .max(2);
    let mut times = Histogram::<u64>::new_with_bounds(1, time_max_us, 3).expect("bounds that fit");
    let (mut files, mut bytes, mut failed) = (0, 0, 0);
    for timed in &loaded.pushes {
        times.saturating_record(timed.took.as_micros().try_into().unwrap_or(u64::MAX));
        match &timed.result {
            Ok(pushed) if pushed.exit() == 0 => {
                files += pushed.counts.files_sent;
                bytes += pushed.counts.bytes_sent;
            }
            Ok(_) | Err(_) => failed += 1,
        }
    }
    let seconds = |microseconds: u64| Duration::from_micros(microseconds).as_secs_f64();
    let (median, slowest) = (seconds(times.value_at_quantile(0.5)), seconds(times.max()));
    let all = loaded.took.as_secs_f64();
    let idle_lost = load.idle - loaded.idle_ended_well;
    println!(
        "{} clients: slowest {slowest:.3} s, median {median:.3} s, all {all:.3} s; {failed} failed, \
         {idle_lost} of {} idle ones lost",
        load.clients, load.idle,
    );
    let line = serde_json::json!({
        "clients": load.clients,
        "failed": failed,
        "files": files,
        "bytes": bytes,
        "seconds_slowest": slowest,
        "seconds_median": median,
        "seconds_all": all,
        "idle": load.idle,
        "idle_lost": idle_lost,
    });
    println!("{line}");
    failed == 0 && idle_lost == 0
}
