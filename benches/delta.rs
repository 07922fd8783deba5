//! How fast one core signs a basis and matches a new version against it, and what would travel:
//! `cargo bench --bench delta -- --mib 1024`. Where rsync is found it does the same files.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table, or why there is none, is what the bench is run for"
)]

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::{CommandFactory, Parser};
use sy::delta::block_size::{BlockSize, Layout};
use sy::delta::index::Index;
use sy::delta::matcher::{Matcher, Piece, Turn, Work};
use sy::delta::rolling::Rolling;
use sy::delta::signature::{Builder, SUM_BYTES, Sums};
use sy::delta::strong::{Key, Strong};
use sy::delta::tokens::RunWriter;
use sy::limits::{CHUNK_BYTES, FRAME_HEAD_BYTES, PAYLOAD_BYTES_MAX};
use sy::sim::prng::Prng;

/// Head of a frame, and file, codec, offset and digest of its chunk.
const CHUNK_HEAD_BYTES: usize = FRAME_HEAD_BYTES + 32;
const CHANGES: u64 = 1000;
const CHANGE_BYTES: usize = 4096;

#[derive(Parser)]
#[command(
    name = "delta",
    about = "Measures signing and matching on one core, beside rsync on the same files"
)]
struct Line {
    /// Size of the basis, in memory; three times as much more under --dir for rsync
    #[arg(long, value_name = "MIB")]
    mib: Option<usize>,
    /// Runs of each row; the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where rsync's files are made and removed again
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    dir: PathBuf,
    /// Only new versions whose names hold this
    #[arg(long, value_name = "WORD", default_value = "")]
    only: String,
    /// Leave rsync out
    #[arg(long)]
    alone: bool,
    /// Cargo adds this to every bench it starts
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let line = Line::parse();
    let Some(mib) = line.mib.filter(|mib| *mib > 1 && line.rounds > 0) else {
        // A bare `cargo bench` measures nothing. A closed stdout is not worth a word here.
        let _ = Line::command().print_help();
        return ExitCode::SUCCESS;
    };
    match measure(&line, mib << 20) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("delta: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(line: &Line, basis_bytes: usize) -> Result<(), Box<dyn Error>> {
    let mut prng = Prng::new(1);
    let mut basis = vec![0; basis_bytes];
    prng.fill(&mut basis);
    let layout = Layout::new(basis_bytes as u64, BlockSize::of_basis(basis_bytes as u64));
    let key = Key::new(&[3; 32]);
    let rounds = line.rounds;

    println!(
        "{} MiB of noise, blocks of {} bytes; one core; medians of {rounds}",
        basis_bytes >> 20,
        layout.block().bytes()
    );
    println!("{:26}{:>8}{:>10}", "", "GB/s", "s");
    let speed = |name: &str, bytes: usize, seconds: f64| {
        println!(
            "{name:26}{:8.2}{seconds:10.3}",
            bytes as f64 / seconds / 1e9
        );
    };
    let read = median(rounds, || {
        black_box(basis.chunks_exact(8).fold(0_u64, |all, word| {
            all ^ u64::from_le_bytes(word.try_into().expect("eight"))
        }));
    });
    speed("reading memory (xor)", basis_bytes, read);
    let mut copy = vec![0; CHUNK_BYTES];
    let copied = median(rounds, || {
        for chunk in basis.chunks(CHUNK_BYTES) {
            copy[..chunk.len()].copy_from_slice(chunk);
            black_box(&copy);
        }
    });
    speed("memcpy into one chunk", basis_bytes, copied);
    let blocks = || basis.chunks(layout.block().byte_len());
    let rolling = Rolling::new(&key, layout.block());
    let weak = median(rounds, || {
        blocks().for_each(|block| _ = black_box(rolling.sum(block)))
    });
    speed("weak sums", basis_bytes, weak);
    let strong = median(rounds, || {
        blocks().for_each(|block| _ = black_box(Strong::of(&key, block)))
    });
    speed("strong hashes", basis_bytes, strong);
    let mut signature = vec![0; blocks().count() * SUM_BYTES];
    let signed = median(rounds, || {
        let mut builder = Builder::new(layout, &key, 0);
        let mut at = 0;
        for chunk in basis.chunks(CHUNK_BYTES) {
            at += builder.build(chunk, &mut signature[at..]).written_bytes;
        }
    });
    speed("signature", basis_bytes, signed);
    let mut index = Index::new(layout);
    let indexed = median(rounds, || {
        index = Index::new(layout);
        let held = usize::try_from(index.wanted().end).expect("a window");
        let bytes = &signature[..held * SUM_BYTES];
        index.push(&Sums::decode(bytes, 0, &layout).expect("the builder's own"));
    });
    println!(
        "{:26}{:8}{indexed:10.3}   of {} blocks in {:.1} MiB, {:.1} ns each",
        "index",
        "",
        index.held().end,
        index.memory_bytes() as f64 / f64::from(1 << 20),
        indexed * 1e9 / index.held().end as f64
    );

    println!(
        "\n{:26}{:>8}{:>10}{:>10}{:>10}{:>12}{:>12}{:>10}{:>10}{:>10}",
        "new version",
        "GB/s",
        "s",
        "rolled",
        "hashed",
        "literal MB",
        "wire MB",
        "rsync s",
        "its MB",
        "wire, of"
    );
    let is_alone = line.alone || Command::new("rsync").arg("--version").output().is_err();
    for (name, new) in versions(&basis, &mut prng).filter(|(name, _)| name.contains(&line.only)) {
        let mut sent = Sent::default();
        let seconds = median(rounds, || sent = matched(&index, layout, &key, &new));
        let bytes = new.len() as f64;
        let wire = (signature.len() + sent.bytes) as f64 / 1e6;
        print!(
            "{name:26}{:8.2}{seconds:10.3}{:9.1}%{:9.1}%{:12.2}{wire:12.2}",
            bytes / seconds / 1e9,
            sent.work.rolled_bytes as f64 * 100.0 / bytes,
            sent.work.hashed_bytes as f64 * 100.0 / bytes,
            sent.literal_bytes as f64 / 1e6,
        );
        if is_alone {
            println!("{:>10}", "skipped");
            continue;
        }
        let (seconds, bytes) = rsync(&line.dir, &basis, &new, rounds.min(3))?;
        println!(
            "{seconds:10.3}{:10.2}{:10.2}",
            bytes / 1e6,
            wire * 1e6 / bytes
        );
    }
    Ok(())
}

/// New versions, one at a time: each takes as much memory as the basis.
fn versions<'a>(
    basis: &'a [u8],
    prng: &'a mut Prng,
) -> impl Iterator<Item = (&'static str, Vec<u8>)> + 'a {
    // In proportion to the row of the table, which has 1 GiB.
    let changes = (CHANGES * basis.len() as u64) >> 30;
    let middle = basis.len() / 2;
    (0..8).map(move |shape| {
        let mut new = basis.to_vec();
        let mut change = |align: usize, new: &mut [u8]| {
            for _ in 0..changes.max(1) {
                let at = prng.index(new.len() - CHANGE_BYTES) / align * align;
                prng.fill(&mut new[at..at + CHANGE_BYTES]);
            }
        };
        let mut inserted = vec![0; 1 << 20];
        Prng::new(9).fill(&mut inserted);
        let name = match shape {
            0 => "unchanged",
            1 => {
                change(CHANGE_BYTES, &mut new);
                "4 KiB changes, pages"
            }
            2 => {
                change(1, &mut new);
                "4 KiB changes, anywhere"
            }
            3 => {
                new.splice(middle..middle, inserted);
                "1 MiB inserted"
            }
            4 => {
                change(CHANGE_BYTES, &mut new);
                new.splice(middle..middle, inserted);
                "pages and 1 MiB"
            }
            5 => {
                change(1, &mut new);
                new.splice(middle..middle, inserted);
                "anywhere and 1 MiB"
            }
            6 => {
                new.insert(0, 1);
                "a byte in front"
            }
            _ => {
                prng.fill(&mut new);
                "all noise"
            }
        };
        (name, new)
    })
}

#[derive(Default)]
struct Sent {
    bytes: usize,
    literal_bytes: u64,
    work: Work,
}

fn matched(index: &Index, layout: Layout, key: &Key, new: &[u8]) -> Sent {
    let mut out = vec![0; PAYLOAD_BYTES_MAX];
    let mut matcher = Matcher::new(layout, key);
    let mut sent = Sent::default();
    for start in (0..new.len()).step_by(CHUNK_BYTES) {
        let end = new.len().min(start + CHUNK_BYTES);
        let seen = new.len().min(end + layout.block().byte_len());
        let piece = Piece {
            here: &new[start..end],
            ahead: &new[end..seen],
            is_end: seen == new.len(),
        };
        let mut writer = RunWriter::new(&mut out);
        let turn = matcher.step(index, &piece, &mut writer, &mut usize::MAX.clone());
        sent.bytes += CHUNK_HEAD_BYTES;
        if turn == Turn::Runs {
            sent.bytes += writer.written_bytes();
            sent.literal_bytes += writer.literal_bytes();
        } else {
            sent.bytes += piece.here.len();
            sent.literal_bytes += piece.here.len() as u64;
        }
    }
    sent.work = matcher.work();
    sent
}

/// Seconds and bytes both ways of a local `rsync` that makes a delta: its two processes share
/// both cores, read both files, and write the new one.
fn rsync(
    dir: &Path,
    basis: &[u8],
    new: &[u8],
    rounds: usize,
) -> Result<(f64, f64), Box<dyn Error>> {
    let dir = dir.join(format!(".sy-delta.{}", std::process::id()));
    fs::create_dir(&dir)?;
    let result = rsync_rounds(&dir, basis, new, rounds);
    fs::remove_dir_all(&dir)?;
    result
}

fn rsync_rounds(
    dir: &Path,
    basis: &[u8],
    new: &[u8],
    rounds: usize,
) -> Result<(f64, f64), Box<dyn Error>> {
    let (from, to) = (dir.join("new"), dir.join("to"));
    fs::write(&from, new)?;
    let mut times = Vec::new();
    let mut bytes = 0.0;
    for _ in 0..rounds {
        fs::write(&to, basis)?;
        let begin = Instant::now();
        let done = Command::new("rsync")
            .args(["-I", "--no-whole-file", "--stats"])
            .args([&from, &to])
            .stderr(Stdio::inherit())
            .output()?;
        times.push(begin.elapsed().as_secs_f64());
        if !done.status.success() {
            return Err(format!("rsync: {}", done.status).into());
        }
        bytes = ["Total bytes sent: ", "Total bytes received: "]
            .iter()
            .filter_map(|label| {
                let stats = String::from_utf8_lossy(&done.stdout);
                let line = stats.lines().find_map(|line| line.strip_prefix(label))?;
                line.replace(',', "").trim().parse::<f64>().ok()
            })
            .sum();
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], bytes))
}

fn median(rounds: usize, mut run: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
