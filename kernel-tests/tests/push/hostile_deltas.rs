//! Asks for sums and chunks of runs that no sy would send: refused with a sentence, or answered with
//! nothing, in bounded memory.

use std::io::Write;
use std::sync::mpsc;

use kernel_tests::evil::{self, Bytes, Evil, EvilServer, Hello, Last, ROOT, meta};
use kernel_tests::scene::slash;
use kernel_tests::{Need, Push, Scene, Tree, content, guard, on_routes, plant, require};

const BLOCK: u32 = 4096;
const BASIS_BYTES: usize = 300_000;
const CHUNK: u32 = evil::CHUNK as u32;
/// Far above what a session holds, far below what these would take unbounded.
const GROWTH_MAX: u64 = 12 << 20;
/// What a push may take, whatever it sends.
const PEAK_MAX: u64 = 32 << 20;
/// CPU of a search in which all weak sums agree, relative to one in which none does: a strong hash for
/// each byte would cost hundreds of times as much. A build that isn't optimized takes 17.
const AGREEING_MULTIPLE_MAX: u64 = 60;

/// A server whose `dst/large` is this.
fn plant_basis(scene: &Scene) -> Vec<u8> {
    let basis = content::noise(40, BASIS_BYTES);
    plant::file(scene.dst().join("large"), &basis);
    basis
}

fn begin(size: u64, block_bytes: u32) -> Vec<u8> {
    let op = evil::op_begin_on(ROOT, b"large", 1, meta(evil::FILE), size, block_bytes);
    evil::pack(&[op])
}

/// A session that has begun the file 1 on the basis `dst/large`.
fn begun(scene: &mut Scene, size: u64, block_bytes: u32) -> Evil {
    let mut evil = Evil::connect(scene.server().port());
    evil.send(&Hello::to("m", "dst").frame());
    evil.send(&begin(size, block_bytes));
    evil
}

#[track_caller]
fn refuses(mut evil: Evil, attack: &[Vec<u8>], words: &str) {
    for frame in attack {
        evil.send(frame);
    }
    let last = evil.last();
    let is_refused = matches!(&last, Last::Refused(evil::PROTOCOL, text) if text.contains(words));
    assert!(is_refused, "should be refused for {words:?}: {last:?}");
}

/// Sessions that were left lying have tidied up.
#[track_caller]
fn assert_is_tidied(scene: &Scene) {
    guard::wait_until("the sessions to tidy up", || {
        Tree::read(scene.export()).litter().is_empty()
    });
}

fn sign(asks: &[Vec<u8>]) -> Vec<u8> {
    evil::frame(evil::SIGN, &asks.concat())
}

/// Whether each section of the next SIGNATURE has sums, and the bytes of the basis.
#[track_caller]
fn next_sections(evil: &mut Evil) -> Vec<(bool, u64)> {
    let payload = evil.next_of(evil::SIGNATURE).payload;
    let (mut at, mut sections) = (0, Vec::new());
    while at < payload.len() {
        let number = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("eight"));
        let count = u32::from_le_bytes(payload[at + 21..at + 25].try_into().expect("four"));
        sections.push((payload[at + 4] == 1, number(at + 5)));
        at += 25 + 12 * count as usize;
    }
    assert_eq!(at, payload.len());
    sections
}

on_routes! { tcp;
fn a_hand_made_delta_puts_a_file_together(scene) {
    require!(Need::Sy);
    let basis = plant_basis(scene);
    let (front, back) = (&basis[1000..][..200_000], &basis[..CHUNK as usize - 200_004]);
    let chunk = [front, b"more", back].concat();
    let mut evil = begun(scene, chunk.len() as u64 + 3, BLOCK);
    evil.send(&sign(&[evil::ask(1, 0, 10), evil::ask(1, 10, 64)]));
    let sections = [next_sections(&mut evil)];
    let sections = match sections.concat() {
        one if one.len() == 1 => [one, next_sections(&mut evil)].concat(),
        both => both,
    };
    assert_eq!(sections, [(true, BASIS_BYTES as u64); 2]);
    let runs = [
        evil::copy(1000, 200_000),
        evil::literal(b"more"),
        evil::copy(0, CHUNK - 200_004),
    ];
    let chunks = [(0, &chunk[..]), (evil::CHUNK as u64, &b"end"[..])];
    evil.send(&evil::tokens(1, 0, evil::digest(&chunk), &runs));
    evil.send(&evil::data(1, evil::CHUNK as u64, b"end"));
    evil.send(&evil::end(1, 0, evil::file_digest(&chunks)));
    let stop = evil.next_of(evil::STOP);
    assert_eq!(stop.payload, Bytes::new().u8(4).u32(1).0, "it is settled");
    evil.send(&evil::done());
    assert_eq!(evil.last(), Last::Report(0, 1, 0));
    plant::file(scene.twin().join("large"), [&chunk[..], b"end"].concat());
    let arrived = std::fs::read(scene.dst().join("large")).expect("it is there");
    assert!(arrived == std::fs::read(scene.twin().join("large")).expect("it was planted"));
}
}

on_routes! { tcp;
fn runs_that_leave_the_basis_or_the_chunk_are_refused(scene) {
    require!(Need::Sy);
    let basis = plant_basis(scene);
    let rss = scene.server().rss_bytes();
    let end = BASIS_BYTES as u64;
    for (runs, words) in [
        (vec![evil::copy(end - 10, 11)], "of a basis of 300000"),
        (vec![evil::copy(u64::MAX - 5, 10)], "of a basis of 300000"),
        (vec![evil::copy(1 << 63, 5)], "of a basis of 300000"),
        (vec![evil::copy(0, u32::MAX)], "of a basis of 300000"),
        (vec![evil::copy(0, 0)], "a run of no bytes"),
        (vec![evil::copy(0, 0); 100_000 / 13], "a run of no bytes"),
        (vec![evil::literal(b"")], "a run of no bytes"),
        (vec![evil::copy(0, CHUNK), evil::literal(b"x")], "more bytes than the chunk"),
        (vec![evil::copy(0, CHUNK); 133], "more bytes than the chunk"),
        (vec![evil::copy(0, 5)], "runs of 5 bytes"),
        (vec![], "runs of 0 bytes"),
        (vec![Bytes::new().u8(9).u64(0).u32(5).0], "unknown kind 9"),
        (vec![evil::copy(0, 1); 20_000], "more than 133 runs"),
        (vec![evil::copy(0, 5)[..12].to_vec()], "in the middle of one"),
        (vec![evil::literal(b"longer")[..8].to_vec()], "in the middle of one"),
    ] {
        let tokens = evil::tokens(1, 0, 0, &runs);
        refuses(begun(scene, 400_000, BLOCK), &[tokens], words);
    }
    let tokens = |offset| evil::tokens(1, offset, 0, &[evil::literal(b"x")]);
    for (offset, words) in [(400_000, "offset"), (2 * evil::CHUNK as u64, "beyond the announced size")] {
        refuses(begun(scene, 400_000, BLOCK), &[tokens(offset)], words);
    }
    let grown = scene.server().rss_bytes().saturating_sub(rss);
    assert!(grown <= GROWTH_MAX, "grown by {grown} bytes");
    let kept = std::fs::read(scene.dst().join("large")).expect("it is there");
    assert!(kept == basis, "the basis was written to");
}
}

on_routes! { tcp;
fn what_is_no_file_here_is_nobodys_basis(scene) {
    require!(Need::Sy);
    let tokens = evil::tokens(1, 0, 0, &[evil::copy(0, CHUNK)]);
    let refused = |scene: &mut Scene, block_bytes| {
        let mut evil = begun(scene, 400_000, block_bytes);
        if block_bytes > 0 {
            evil.send(&sign(&[evil::ask(1, 0, 1)]));
            assert_eq!(next_sections(&mut evil), [(false, 0)]);
        }
        refuses(evil, std::slice::from_ref(&tokens), "it has no basis");
    };
    plant::dir(scene.dst());
    refused(scene, BLOCK);
    plant::symlink(scene.outside().join("file"), scene.dst().join("large"));
    refused(scene, BLOCK);
    plant::remove(scene.dst().join("large"));
    plant::dir(scene.dst().join("large"));
    refused(scene, BLOCK);
    plant::remove(scene.dst().join("large"));
    plant_basis(scene);
    refused(scene, 0);
    // Larger blocks have to do for it.
    plant::sparse(scene.dst().join("large"), 1 << 40);
    refused(scene, BLOCK);
    plant::remove(scene.dst().join("large")); // Nobody has to read all of it.
    for block_bytes in [1, 2048, 5000, 2 * CHUNK, 1 << 31, u32::MAX] {
        refuses(begun(scene, 400_000, block_bytes), &[], "block");
    }
}
}

on_routes! { tcp;
fn asks_for_sums_are_few_and_small_and_never_twice(scene) {
    require!(Need::Sy);
    plant_basis(scene);
    for (asks, words) in [
        (vec![evil::ask(1, 0, 1); 2], "first block"),
        (vec![evil::ask(1, 5, 5), evil::ask(1, 9, 5)], "first block"),
        (vec![evil::ask(1, 0, 2049)], "bytes of blocks"),
        (vec![evil::ask(1, 0, u32::MAX)], "bytes of blocks"),
        (vec![evil::ask(1, 0, 0)], "count of blocks"),
        (vec![evil::ask(1, u64::MAX, 1)], "count of blocks"),
        ((0..65).map(|first| evil::ask(1, first, 1)).collect(), "more than 64"),
    ] {
        refuses(begun(scene, 400_000, BLOCK), &[sign(&asks)], words);
    }
    // More at once than a job sums, of larger blocks: none, and it is not forgotten what was asked before.
    let asks = [evil::ask(1, 0, 10), evil::ask(1, 10, 1025), evil::ask(1, 0, 10)];
    refuses(begun(scene, 400_000, 2 * BLOCK), &asks.map(|ask| sign(&[ask])), "first block");
    // Beyond its end, of more than it has, or of a file that nobody began.
    for ask in [evil::ask(1, 74, 1), evil::ask(1, 70, 5), evil::ask(2, 0, 1)] {
        let mut evil = begun(scene, 400_000, BLOCK);
        evil.send(&sign(&[ask]));
        assert_eq!(next_sections(&mut evil), [(false, 0)]);
    }
    assert_is_tidied(scene);
}
}

// The server sums a piece at a time, and others are served in between.
on_routes! { tcp;
fn a_huge_basis_is_summed_in_bounded_memory(scene) {
    require!(Need::Sy);
    plant::sparse(scene.dst().join("large"), 1 << 40);
    plant::file(scene.src().join("f"), "small");
    let mut evil = begun(scene, 1 << 40, CHUNK);
    evil.send(&sign(&[evil::ask(1, 0, 1)]));
    assert_eq!(next_sections(&mut evil), [(true, 1 << 40)]);
    let rss = scene.server().rss_bytes();
    for round in 0..4 {
        let asks: Vec<_> = (0..64).map(|at| evil::ask(1, 1 + (round * 64 + at) * 32, 32)).collect();
        evil.send(&sign(&asks));
        scene.push_to("beside").from(slash(scene.src())).run().ok();
        let mut answered = 0;
        while answered < 64 {
            let sections = next_sections(&mut evil);
            assert!(sections.iter().all(|section| *section == (true, 1 << 40)));
            answered += sections.len();
        }
    }
    let grown = scene.server().rss_bytes().saturating_sub(rss);
    assert!(grown <= GROWTH_MAX, "grown by {grown} bytes");
    drop(evil);
    plant::remove(scene.dst().join("large")); // Nobody has to read all of it.
    assert_is_tidied(scene);
}
}

// What one file may not, many may: each begins anew, and nothing of those before it is kept.
on_routes! { tcp;
fn a_huge_basis_that_is_begun_again_and_again_costs_bounded_memory(scene) {
    require!(Need::Sy);
    plant::sparse(scene.dst().join("large"), 1 << 40);
    plant::file(scene.src().join("f"), "small");
    let mut evil = begun(scene, 1 << 40, CHUNK);
    let (mut rss, mut file) = (0, 1);
    for round in 0..40 {
        evil.send(&sign(&[evil::ask(file, 0, 32), evil::ask(file, 1 << 21, 32)]));
        let mut answered = next_sections(&mut evil);
        while answered.len() < 2 {
            answered.extend(next_sections(&mut evil));
        }
        assert_eq!(answered, [(true, 1 << 40); 2]);
        if round == 0 {
            rss = scene.server().rss_bytes();
        }
        evil.send(&evil::end(file, 1, 0));
        file += 1;
        let op = evil::op_begin_on(ROOT, b"large", file, meta(evil::FILE), 1 << 40, CHUNK);
        evil.send(&evil::pack(&[op]));
    }
    scene.push_to("beside").from(slash(scene.src())).run().ok();
    let grown = scene.server().rss_bytes().saturating_sub(rss);
    assert!(grown <= GROWTH_MAX, "grown by {grown} bytes");
    let again = [evil::ask(file, 5, 32), evil::ask(file, 5, 32)].map(|ask| sign(&[ask]));
    refuses(evil, &again, "first block");
    plant::remove(scene.dst().join("large")); // Nobody has to read all of it.
    assert_is_tidied(scene);
}
}

on_routes! { tcp;
fn a_basis_that_was_changed_is_found_out_before_anything_is_written(scene) {
    require!(Need::Sy);
    let mut basis = plant_basis(scene);
    let chunk = basis[..evil::CHUNK].to_vec();
    let mut evil = begun(scene, evil::CHUNK as u64, BLOCK);
    evil.send(&sign(&[evil::ask(1, 0, 1)]));
    next_sections(&mut evil);
    basis[17] ^= 1;
    std::fs::write(scene.dst().join("large"), &basis).expect("it can be written");
    let tokens = evil::tokens(1, 0, evil::digest(&chunk), &[evil::copy(0, CHUNK)]);
    evil.send(&tokens);
    let stop = evil.next_of(evil::STOP);
    assert_eq!(stop.payload, Bytes::new().u8(3).u32(1).0, "it is wanted again");
    evil.send(&evil::end(1, 1, 0));
    evil.send(&evil::done());
    assert_eq!(evil.last(), Last::Report(0, 0, 0));
    assert!(std::fs::read(scene.dst().join("large")).expect("it is there") == basis);
}
}

/// The payload of a SIGNATURE for that of a SIGN.
type Forgery = fn(&[u8]) -> Vec<u8>;

/// A server that says what it has of `large`, and answers the first SIGN with this.
fn forger(answer: Forgery) -> EvilServer {
    EvilServer::start(move |mut stream| {
        let entry = evil::entry(b"large", evil::FILE, 1 << 20);
        let listing = evil::section(ROOT, evil::COMPLETE, 1, &[entry]);
        let _ = stream.write_all(&evil::welcome(evil::VERSION));
        while let Some(frame) = evil::read_frame(&mut stream) {
            let reply = match frame.kind {
                evil::LIST => evil::frame(evil::LISTING, &listing),
                evil::SIGN => evil::frame(evil::SIGNATURE, &answer(&frame.payload)),
                evil::END => {
                    evil::frame(evil::STOP, &Bytes::new().u8(4).raw(&frame.payload[..4]).0)
                }
                evil::DONE => evil::report(0),
                _ => continue,
            };
            if stream.write_all(&reply).is_err() {
                return;
            }
        }
    })
}

/// A section with sums for the first item of a SIGN, as many as it says.
fn section(asked: &[u8], basis_bytes: u64, sums: &[u8]) -> Vec<u8> {
    let bytes = Bytes::new().raw(&asked[..4]).u8(1).u64(basis_bytes);
    bytes.raw(&asked[4..16]).raw(sums).0
}

on_routes! { tcp;
fn forged_sums_end_the_push_or_only_cost_their_matches(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("large"), vec![0; 8 << 20]);
    let forgeries: [(Forgery, i32); 6] = [
        // All blocks have the same sums, which nothing has.
        (|asked| section(asked, 1 << 20, &[7; 12 * 256]), 0),
        // Sums of another file, of blocks that were not asked for, and fewer or more than those.
        (|asked| section(&[&[9, 0, 0, 0], &asked[4..]].concat(), 1 << 20, &[7; 12 * 256]), 12),
        (|asked| section(&[&asked[..4], &[3], &asked[5..]].concat(), 1 << 20, &[7; 12 * 256]), 12),
        (|asked| section(asked, 1 << 20, &[7; 12 * 255]), 12),
        (|asked| section(asked, 1 << 20, &[7; 12 * 257]), 12),
        // Twice, where they were asked for once.
        (|asked| section(asked, 1 << 20, &[7; 12 * 256]).repeat(2), 12),
    ];
    for (answer, code) in forgeries {
        let server = forger(answer);
        let dest = format!("sy://127.0.0.1:{}/m/dst", server.port());
        let outcome = Push::new(dest).from(slash(scene.src())).run();
        outcome.exits(code);
    }
}
}

/// What the source said of its file: where a chunk begins, and its bytes.
type Chunks = Vec<(u64, Vec<u8>)>;

/// A server that says it has a `large` of so many bytes, whose blocks all have sums of its choice.
/// What the client sends comes by the channel.
fn liar(basis_bytes: u64, sums: fn(u64) -> [u8; 12]) -> (EvilServer, mpsc::Receiver<Chunks>) {
    let (tell, heard) = mpsc::channel();
    let server = EvilServer::start(move |mut stream| {
        let entry = evil::entry(b"large", evil::FILE, basis_bytes);
        let listing = evil::section(ROOT, evil::COMPLETE, 1, &[entry]);
        let _ = stream.write_all(&evil::welcome(evil::VERSION));
        let mut chunks = Chunks::new();
        while let Some(frame) = evil::read_frame(&mut stream) {
            let reply = match frame.kind {
                evil::LIST => evil::frame(evil::LISTING, &listing),
                evil::SIGN => {
                    let answers = frame.payload.chunks(16).map(|asked| {
                        let number = |at: usize| {
                            u64::from_le_bytes(asked[at..at + 8].try_into().expect("eight"))
                        };
                        let count = u32::from_le_bytes(asked[12..].try_into().expect("four"));
                        let blocks = number(4)..number(4) + u64::from(count);
                        let sums: Vec<u8> = blocks.flat_map(sums).collect();
                        evil::frame(evil::SIGNATURE, &section(asked, basis_bytes, &sums))
                    });
                    answers.collect::<Vec<_>>().concat()
                }
                evil::DATA => {
                    let offset = frame.payload[8..16].try_into().expect("eight bytes");
                    chunks.push((u64::from_le_bytes(offset), frame.payload[32..].to_vec()));
                    continue;
                }
                evil::TOKENS => panic!("it has nothing of what was asked for"),
                evil::END => {
                    evil::frame(evil::STOP, &Bytes::new().u8(4).raw(&frame.payload[..4]).0)
                }
                evil::DONE => evil::report(0),
                _ => continue,
            };
            if stream.write_all(&reply).is_err() {
                break;
            }
        }
        let _ = tell.send(chunks);
    });
    (server, heard)
}

/// One that hardly any window has.
fn other_weak(block: u64) -> [u8; 4] {
    (block as u32 + 1).wrapping_mul(0x9e37_79b9).to_le_bytes()
}

fn sums(weak: [u8; 4], strong: u64) -> [u8; 12] {
    let mut sums = [0; 12];
    sums[..4].copy_from_slice(&weak);
    sums[4..].copy_from_slice(&strong.to_le_bytes());
    sums
}

// The server knows the key, and can have sums agree: the weak sum of nothing but zeros is 0 whatever
// the key, and a window of them stands at nearly every byte of this file.
on_routes! { tcp;
fn forged_sums_that_agree_at_every_byte_cost_little_and_match_nothing(scene) {
    require!(Need::Sy);
    const BYTES: usize = 32 << 20;
    let mut content = vec![0; BYTES];
    content.iter_mut().step_by(1 << 17).for_each(|byte| *byte = 1);
    plant::file(scene.src().join("large"), &content);
    type SumsOf = fn(u64) -> [u8; 12];
    let nothing: SumsOf = |block| sums(other_weak(block), block + 1);
    let strong_alike: SumsOf = |block| sums(other_weak(block), 7);
    let weak_alike: SumsOf = |block| sums([0; 4], block + 1);
    let all_alike: SumsOf = |_| sums([0; 4], 7);
    let mut honest_ticks = None;
    for (name, basis_bytes, sums_of) in [
        ("what an honest server has of another file", 1 << 30, nothing),
        ("strong hashes alike", 1 << 30, strong_alike),
        ("weak sums alike", 1 << 30, weak_alike),
        ("all sums alike", 1 << 30, all_alike),
        ("a basis larger than a window", 3 << 30, weak_alike),
    ] {
        let (server, heard) = liar(basis_bytes, sums_of);
        let dest = format!("sy://127.0.0.1:{}/m/dst", server.port());
        let push = Push::new(dest).from(slash(scene.src())).option("--json");
        let (outcome, ticks) = push.start().wait_with_cpu_ticks();
        let summary = outcome.ok().summary();
        println!("{name}: {ticks} ticks, {summary:?}");
        assert!(summary.signature_bytes > 1 << 20, "{name}: no sums were taken in");
        assert_eq!((summary.literal_bytes, summary.matched_bytes), (BYTES as u64, 0), "{name}");
        let honest = *honest_ticks.get_or_insert(ticks);
        assert!(ticks <= AGREEING_MULTIPLE_MAX * honest, "{name}: {ticks} ticks, {honest} where nothing agrees");
        assert!(summary.peak_rss_bytes[0] <= PEAK_MAX, "{name}: {summary:?}");
        let mut chunks = heard.recv().expect("the server tells what it heard");
        chunks.sort_unstable();
        let sent: Vec<u8> = chunks.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert!(sent == content, "{name}: other bytes were sent");
    }
}
}

on_routes! { tcp;
fn a_file_that_has_no_basis_is_not_wanted_again(scene) {
    require!(Need::Sy);
    plant::file(scene.src().join("large"), vec![7; 3 * evil::CHUNK]);
    let server = EvilServer::start(move |mut stream| {
        use std::io::Write;
        let again = |file: &[u8]| evil::frame(evil::STOP, &Bytes::new().u8(3).raw(file).0);
        let listing = evil::section(ROOT, evil::COMPLETE, 0, &[]);
        let _ = stream.write_all(&evil::welcome(evil::VERSION));
        while let Some(frame) = evil::read_frame(&mut stream) {
            let reply = match frame.kind {
                evil::LIST => evil::frame(evil::LISTING, &listing),
                evil::DATA | evil::END => again(&frame.payload[..4]),
                evil::DONE => evil::report(0),
                _ => continue,
            };
            if stream.write_all(&reply).is_err() {
                return;
            }
        }
    });
    let dest = format!("sy://127.0.0.1:{}/m/dst", server.port());
    let outcome = Push::new(dest).from(slash(scene.src())).option("--json").run().ok();
    assert_eq!(outcome.summary().literal_bytes, 3 * evil::CHUNK as u64, "it went once: {outcome}");
}
}
