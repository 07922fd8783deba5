//! Every bound and tunable of the program, with its unit, its reason and its measurement.

/// Bytes of the fixed head of a frame (`wire::head`).
pub const FRAME_HEAD_BYTES: usize = 16;
/// Bytes of content that one chunk of a large file holds; the unit of its digest.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes a frame carries behind its head at most: one chunk and the words that place it.
pub const PAYLOAD_BYTES_MAX: usize = CHUNK_BYTES + 4096 - FRAME_HEAD_BYTES;
/// Bytes of one arena block: a whole frame, page-multiple so that blocks keep their alignment.
pub const BLOCK_BYTES: usize = CHUNK_BYTES + 4096;
/// Bytes of the arena of one shard. 31 blocks fill a 1 GiB push over loopback as well as 127 do.
pub const ARENA_BYTES: usize = 8 * 1024 * 1024;
/// Blocks of a pool that only senders may take, so that answers can always leave.
pub const SEND_RESERVE_BLOCKS: usize = 1;
/// Blocks that one session may hold for what it receives and has not applied yet.
pub const RECV_BLOCKS_PER_SESSION_MAX: usize = 8;
/// Blocks that one session may hold for what it prepares to send.
pub const SEND_BLOCKS_PER_SESSION_MAX: usize = 8;

/// Bytes of a file name (Linux `NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a symlink's target (Linux `PATH_MAX` less its NUL).
pub const LINK_TARGET_BYTES_MAX: usize = 4095;
/// Path components that a HELLO may name as DEST.
pub const DEST_COMPONENTS_MAX: usize = 4096;
/// Bytes of a module name.
pub const MODULE_NAME_BYTES_MAX: usize = 255;
/// Entries of one directory that a session holds in memory (40 bytes and a name each).
pub const DIR_ENTRIES_MAX: usize = 4_000_000;
/// Files up to this many bytes travel inside a PACK; larger ones as DATA.
pub const PACK_FILE_BYTES_MAX: usize = CHUNK_BYTES;

/// Bytes of the smallest block of a signature: a page, which is what databases and file systems
/// in files change at once. Half of it would double the signature to spare 2 KiB per change.
pub const DELTA_BLOCK_BYTES_MIN: u32 = 4096;
/// Bytes of the largest: a chunk, so that a block begins in one and ends in the next at most.
pub const DELTA_BLOCK_BYTES_MAX: u32 = 256 * 1024;
/// Blocks of a basis file whose sums a source holds at once, 32 bytes each: 8 MiB. Files up to
/// 2 GiB have no more.
pub const DELTA_WINDOW_BLOCKS: usize = 262_144;
/// Runs of tokens that make up one chunk: every block of the smallest size copied on its own,
/// one cut at either end, and literals between them.
pub const DELTA_RUNS_PER_CHUNK_MAX: usize = 2 * (CHUNK_BYTES / 4096 + 2) + 1;

/// Files smaller than this go whole, and have no basis, where the target is on the same host: what fits into a
/// PACK doesn't even wait for an answer. 10,000 files of 200 KiB, each with 4 KiB changed, took
/// 1.2 of rsync's time as deltas and 0.96 whole.
pub const DELTA_FILE_BYTES_MIN: u64 = CHUNK_BYTES as u64 + 1;
/// The same where it is on another one: a delta costs some 0.15 ms more of CPU, in which a Gbit/s carries
/// 19 KiB and ten of them 190.
pub const DELTA_FILE_BYTES_MIN_FAR: u64 = 64 * 1024;
/// Bytes of a basis that one item of SIGN may ask for: some milliseconds of reading and hashing.
pub const SIGN_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Items of SIGN that are not answered yet: at 12 KiB of sums for 4 MiB of basis they fill a round
/// trip of 100 ms at a gigabyte of basis a second.
pub const SIGNS_WAITING_MAX: usize = 64;
/// Bytes of the sums of one block.
pub const SUM_BYTES: usize = 12;
/// The sums of a basis take at most this part of a file's own bytes; otherwise it goes whole. With blocks of
/// 4 KiB the basis has up to 85 times its size then.
pub const DELTA_SUMS_SHARE: u64 = 4;
/// Bytes of memory for the sums that a source holds of all files at once; one file has at most 8 MiB.
pub const DELTA_SUMS_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Chunks of one session that are matched at the same time, and as many that are put together at
/// the target: what a pool has threads for, and each has half a MiB of memory of its own at most.
pub const DELTA_JOBS_MAX: usize = POOL_THREADS;
/// Files with a basis whose end a source has sent and the target has not confirmed, before it
/// begins more: some hundred bytes each.
pub const DELTA_ENDS_WAITING_MAX: usize = 1024;

/// Files that one CHECK asks for, some 40 bytes each: what a job reads in some milliseconds, if they are small.
pub const CHECK_FILES_MAX: usize = 1024;
/// CHECKs that are not answered yet. Full ones make 80,000 small files a second at a round trip of 100
/// ms, or 640 MiB/s of large ones; a target keeps at most 2 MiB for them.
pub const CHECKS_WAITING_MAX: usize = 8;
/// Bytes of files that are read for their digests before the job goes back in line, and at which a
/// CHECK is full: some milliseconds.
pub const DIGEST_BUDGET_BYTES: u64 = 8 * 1024 * 1024;
/// What opening a file takes, in bytes that could be read instead: 4 us.
pub const DIGEST_OPEN_BYTES: u64 = 16 * 1024;
/// Jobs of one side of a session that read files for their digests at the same time: what a pool has
/// threads for.
pub const DIGEST_JOBS_MAX: usize = POOL_THREADS;
/// Bytes of a large file from which what arrived is kept when a push with `--partial` breaks off: a chunk. On a link that
/// breaks off what takes seconds, a chunk is a fraction of one, as much as asking for the sums takes.
pub const PARTIAL_BYTES_MIN: u64 = CHUNK_BYTES as u64;
/// Seconds after its last byte that a partial file is kept: a link may be gone over a weekend and some days. Nobody who comes
/// later knows of it, and it may be as large as its file.
pub const PARTIAL_SECONDS_MAX: i64 = 7 * 24 * 3600;
/// Partial files of one directory that either side takes note of, 32 bytes each; the others are left alone until those
/// are gone. One push leaves 256 at most (`INCOMING_FILES_MAX`).
pub const PARTIALS_PER_DIR_MAX: usize = 1024;

/// Bytes of listings that the source holds ahead of the merge before it stops listing. Large trees fill it: with 4 MiB
/// a client took 1.39 times as much memory for 1M files as for 100,000, with 2 it takes 1.17, as fast.
pub const LOOKAHEAD_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Directories that one list job takes at once; the first ones of a push take fewer (stage/scan.rs).
pub const LIST_BATCH_DIRS_MAX: usize = 32;
/// Directory entries that a list job handles before it goes back in line.
pub const LIST_BUDGET_ENTRIES: usize = 4096;
/// Entries that a prune handles before it goes back in line.
pub const PRUNE_BUDGET_ENTRIES: usize = 1024;
/// Large files that a source reads at the same time.
pub const LARGE_FILES_OPEN_MAX: usize = 8;
/// The same, where files with a basis are among them: a round trip passes until the sums of each are there.
/// At 100 ms they are 640 files a second.
pub const DELTA_FILES_OPEN_MAX: usize = 64;
/// They take at most this part of the process's limit of open files: with a push to a path the target
/// has two more descriptors for each.
pub const DELTA_FILES_SHARE: u64 = 16;
/// Large files that a target has open for one session. A source has `LARGE_FILES_OPEN_MAX` and
/// some whose end is on its way; each costs a descriptor and a temp file.
pub const INCOMING_FILES_MAX: usize = 256;
/// Large files that are being given their names before the target begins more: each still has
/// its descriptor, and a slow fsync must not pile them up.
pub const ENDS_RUNNING_MAX: usize = 64;
/// Troubles and deletions that wait to be told before the target takes no further frames.
pub const NOTICES_WAITING_MAX: usize = 4096;
/// Troubles and deletions that one job gathers before it hands them over; a path may have 8 KiB.
pub const NOTICES_PER_JOB_MAX: usize = 1024;
/// Directory descriptors that one session keeps open; the rest are opened again when needed.
pub const DIR_FDS_OPEN_MAX: usize = 256;
/// File systems mounted below DEST (or subvolumes) that one session syncs; each keeps a descriptor. With more a sync
/// is told as failed.
pub const FILE_SYSTEMS_MAX: usize = 256;
/// They take at most this part of the process's limit of open files: a push to a path has two such
/// sessions, and files of each.
pub const DIR_FDS_SHARE: u64 = 8;
/// Open files without which a client does not begin: two sessions' large files at once, those of
/// the ring and the pool, and some directories. With it 300 directories of three levels and twenty
/// large files arrive; most hosts allow 1024.
pub const OPEN_FILES_MIN: u64 = 64;
/// Directories that a peer may hold declared and not yet closed in one session, some 400 bytes and
/// a name each. A source's look-ahead declares a few thousand.
pub const DIRS_DECLARED_MAX: usize = 262_144;
/// Ranges of numbers that a target remembers as used, of directories and of files, some 20 bytes
/// each. A source counts up and leaves out what it could not read or the target could not make.
pub const USED_RANGES_MAX: usize = 262_144;
/// Bytes of the name of a user or group. Linux itself makes none of more than 32; a directory
/// service may.
pub const OWNER_NAME_BYTES_MAX: usize = 255;
/// Owners whose names a source declares in one session, some 300 bytes each until they are looked
/// up. Users and groups of a large site; those beyond stay numbers.
pub const OWNERS_DECLARED_MAX: usize = 65_536;
/// Names that one job of a target looks up: a session that ends waits for no more of them, and a
/// directory service may take milliseconds for each.
pub const OWNERS_PER_JOB_MAX: usize = 64;
/// Directories that the end of a session closes up again, of those that it opened up and did not
/// come to close. There is one for each that it was in the middle of; a peer can make more.
pub const CLOSED_UP_DIRS_MAX: usize = 4096;
/// Directories asked for and not yet listed before the target takes no further frames.
pub const LISTS_WAITING_MAX: usize = 4096;

/// Entries of a ring's submission queue; more is submitted early or waits with us.
pub const RING_SUBMISSIONS: u32 = 256;
/// Entries of a ring's completion queue: all operations in flight and the ring's own, at once.
pub const RING_COMPLETIONS: u32 = 4096;
/// The same where RLIMIT_MEMLOCK has no room for those: two pages of locked memory a ring, so that
/// eight rings of a user fit into 64 KiB.
pub const RING_SUBMISSIONS_SMALL: u32 = 64;
/// The same for completions. What overflows is kept by the kernel and costs it an allocation each.
pub const RING_COMPLETIONS_SMALL: u32 = 128;
/// Operations that one ring has with the kernel at once; the rest waits in line.
pub const RING_OPS_MAX: usize = 4032;
/// Connections of a shard. Each keeps one operation with the kernel, for the next head; whatever
/// else it asks of the ring has a block, and of those there are few.
pub const CONNECTIONS_PER_SHARD_MAX: usize = 3584;
/// Connections that the acceptor takes from one listener before it looks at the others again, and
/// whether it is to stop. They are given away in microseconds each.
pub const ACCEPTS_PER_ROUND_MAX: usize = 64;
/// Connections beyond a server's limit that wait, refused, for their peers to hang up.
pub const TURNED_AWAY_MAX: usize = 32;
/// Bytes from which a send to a remote peer goes without a copy: pinning pages costs as much as
/// copying up to some 16 KiB on slow cards, 1 KiB on fast ones (`engine::zero_copy`).
pub const SEND_ZERO_COPY_BYTES_MIN: usize = 32 * 1024;
/// Blocks of a shard that the kernel may still read after they were sent: a quarter, so that a peer
/// far away leaves the others some. Beyond it, sends are copied.
pub const SEND_ZERO_COPY_BLOCKS_MAX: usize = 8;
/// Pushed operations at which a ring submits before the turn ends: batches of 16 to 32 get nearly
/// all of what batching saves (1324 cycles for a lone no-op, 283 each in 16, 248 in 32).
pub const RING_SUBMIT_EARLY: usize = 32;
/// Completions in one reap at which there may be more: from 6.13 on an enter runs at most 20.
pub const RING_REAP_FULL: usize = 20;
/// Entries that are made and synced one by one before their job goes back in line: some tens of
/// milliseconds on a disk, where a whole PACK could be seconds.
pub const SYNCED_BUDGET_ENTRIES: usize = 8;
/// PACKs of one session whose entries are made at the same time: as many as a pool has threads,
/// unless it was told otherwise.
pub const PACKS_MAKING_MAX: usize = POOL_THREADS;
/// Bytes of the pipes that an sshd connects a server with: Linux lets every user have 1 MiB, which
/// is three frames and some, where 64 KiB would be a wake-up for each quarter of one.
pub const PIPE_BYTES: usize = 1024 * 1024;
/// Threads of a shard's pool. On two cores a second one halves small files on tmpfs.
pub const POOL_THREADS: usize = 2;
/// Times in a row that an operation is submitted again without having moved a byte.
pub const RESUBMITS_MAX: u32 = 16;

/// Seconds from the accept to a whole HELLO.
pub const HANDSHAKE_SECONDS_MAX: u64 = 10;
/// Seconds that a client waits for the server to accept.
pub const CONNECT_SECONDS_MAX: u64 = 20;
/// Seconds until the greeting over a remote shell, unless `--timeout` says otherwise: somebody may
/// have to find and type a password.
pub const SHELL_GREETING_SECONDS_MAX: u64 = 300;
/// Seconds that a remote shell has to end by itself when the push is over.
pub const SHELL_END_SECONDS_MAX: u64 = 5;
/// Seconds between asking it to end and ending it.
pub const SHELL_KILL_SECONDS: u64 = 1;
/// Bytes that are shown of what a remote shell printed before the server spoke.
pub const SHELL_NOISE_BYTES_MAX: usize = 96;
/// Seconds without a byte from the peer, unless `--timeout` says otherwise.
pub const IDLE_SECONDS_MAX: u64 = 60;
/// Seconds that one frame of a peer may keep a block while other sessions of the shard wait for
/// one: 51 KiB/s for the largest frame. While there are blocks, a byte now and then is enough.
pub const STALL_SECONDS_SCARCE_MAX: u64 = 5;
/// Seconds that a peer has to read our last word after it broke the protocol.
pub const DRAINING_SECONDS_MAX: u64 = 10;
/// Seconds between signs of life from a side that is busy and silent.
pub const HEARTBEAT_SECONDS: u64 = 15;
/// Seconds a draining server gives the sessions that are under way.
pub const DRAIN_SECONDS_MAX: u64 = 10;

/// Requests of sessions that one turn of a shard carries out before it looks for completions.
pub const ACTIONS_PER_TURN_MAX: usize = 128;
/// The port of `sy-server`.
pub const PORT_DEFAULT: u16 = 7873;
/// The UNIX socket of `sy-server`, and of `sy:///module/path`, where no `--socket` names another.
pub const SOCKET_DEFAULT: &str = "/run/sy/sy.sock";
/// Bytes of a UNIX socket's path (`sun_path` less its NUL).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Shards of a server: cores, and far above any machine this runs on.
pub const SHARDS_MAX: u16 = 1024;
/// Threads that carry out the calls a ring can't.
pub const POOL_THREADS_MAX: u16 = 1024;
/// Bytes of a config file; a larger one is a mistake.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Symlinks that are followed on the way to a file of the operator (Linux `MAXSYMLINKS`).
pub const SYMLINKS_FOLLOWED_MAX: usize = 40;
/// Refused connections that are logged at once before the log slows down.
pub const LOG_REFUSED_BURST_COUNT: u64 = 20;
/// Seconds per refused connection in the log after the burst; the others are counted.
pub const LOG_REFUSED_PAUSE_SECONDS: u64 = 1;

/// Milliseconds between two updates of the progress line.
pub const PROGRESS_PAUSE_MS: u64 = 100;
/// Milliseconds between two progress lines where stderr is no terminal.
pub const PROGRESS_LINE_PAUSE_MS: u64 = 1000;
/// Bytes of a message from the peer that are shown to a person; the rest is cut.
pub const PEER_TEXT_BYTES_MAX: usize = 4096;

const _: () = assert!(DELTA_FILE_BYTES_MIN_FAR < DELTA_FILE_BYTES_MIN);
const _: () = assert!(DELTA_FILES_OPEN_MAX < INCOMING_FILES_MAX);
const _: () = assert!(DELTA_BLOCK_BYTES_MAX as usize == CHUNK_BYTES);
const _: () = assert!(CHUNK_BYTES.is_multiple_of(DELTA_BLOCK_BYTES_MIN as usize));
const _: () = assert!(BLOCK_BYTES == FRAME_HEAD_BYTES + PAYLOAD_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES.is_multiple_of(4096));
const _: () = assert!(RING_SUBMIT_EARLY < RING_SUBMISSIONS_SMALL as usize);
const _: () = assert!(RING_OPS_MAX + 64 <= RING_COMPLETIONS as usize);
const _: () = assert!(CONNECTIONS_PER_SHARD_MAX + ARENA_BYTES / BLOCK_BYTES + 64 <= RING_OPS_MAX);
const _: () = assert!(PACK_FILE_BYTES_MAX + 1024 < PAYLOAD_BYTES_MAX);
