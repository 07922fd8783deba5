//! The protocol: version 1, complete. A second implementation needs nothing but this page.
//!
//! 1 [Roles](#1-roles) · 2 [Alphabet](#2-alphabet) · 3 [Frames](#3-frames) ·
//! 4 [Greeting](#4-the-greeting) · 5 [DEST](#5-dest) · 6 [Directories](#6-directories) ·
//! 7 [PACK](#7-pack) · 8 [Large files](#8-large-files-data-and-end) ·
//! 9 [Backwards](#9-what-the-target-says) · 10 [States and order](#10-states-and-order) ·
//! 11 [Flow](#11-flow) · 12 [Silence](#12-silence) · 13 [Endings](#13-endings) ·
//! 14 [Limits](#14-limits) · 15 [Deltas](#15-deltas-sign-signature-and-tokens) ·
//! 16 [By content](#16-by-content-check-and-digests) · 17 [Partial files](#17-partial-files) ·
//! 18 [In place](#18-in-place)
//!
//! # 1 Roles
//!
//! One session is one byte stream in both directions. The **source** has the tree; it scans,
//! decides and sends. The **target** lists, receives and commits. In a push the client is the
//! source and speaks first. There is no acknowledgement for a file: the target speaks up about
//! what it was asked for and about what failed, and once more at the end.
//!
//! ```text
//!   source                                            target
//!     | HELLO ------------------------------------------> |  opens DEST
//!     | OWNERS, if there are names; LIST dir 0 ----------> |
//!     | <------------------------------------------ WELCOME |
//!     | <----------------------- MAPPED, if numbers differ |
//!     | <------------------------------------ LISTING dir 0 |
//!     | LIST dirs 1, 2, 3, ... -------------------------> |  far ahead of the PACKs
//!     | PACK: delete, mkdir, small files, begin f, ... -> |
//!     | <------------------------------- LISTING 1, 2, ... |
//!     | CHECK, if by content ---------------------------> |  same name, same size
//!     | <----------------------------------------- DIGESTS |
//!     | SIGN g ----------------------------------------> |  g has a basis
//!     | <------------------------------------- SIGNATURE g |
//!     | DATA f, TOKENS g, PACK, DATA f, END f, ... -----> |
//!     | <------------------------- NOTICE, STOP, as needed |
//!     | DONE -------------------------------------------> |
//!     | <------------------------------------------- REPORT |
//!     | closes the stream                                 |
//! ```
//!
//! # 2 Alphabet
//!
//! All numbers are **little-endian**. Nothing is padded or aligned.
//!
//! | word | bytes | what it is |
//! |---|---|---|
//! | `u8` `u16` `u32` `u64` `u128` | 1 2 4 8 16 | unsigned |
//! | `i64` | 8 | two's complement |
//! | `name` | 1 + n | a length `u8`, then that many bytes: 1 to 255, no `/`, no NUL, not `.`, not `..`, not beginning with `.sy.`; otherwise any bytes, UTF-8 or not |
//! | `text` | 2 + n | a length `u16`, then that many bytes; each place has its maximum |
//! | `flag` | 1 | 0 or 1, nothing else |
//! | `id16` | 16 | opaque |
//! | `meta` | 22 | see below |
//!
//! `meta`, the metadata that travels with an entry:
//!
//! | at | field | | rule |
//! |---|---|---|---|
//! | 0 | st_mode | `u16` | Linux `st_mode`: the upper four bits are the kind, the lower twelve the permissions |
//! | 2 | uid | `u32` | not `0xffffffff` |
//! | 6 | gid | `u32` | not `0xffffffff` |
//! | 10 | mtime, seconds | `i64` | since 1970, negative before |
//! | 18 | mtime, nanoseconds | `u32` | below 1,000,000,000; counts forwards from the seconds |
//!
//! Kinds are Linux's: fifo `0x1000`, character device `0x2000`, directory `0x4000`, block device
//! `0x6000`, file `0x8000`, symlink `0xa000`, socket `0xc000`. Any other is an error.
//!
//! Every payload is read to its last byte: bytes missing or left over are errors, and so are a
//! flag bit, an enumeration value or a number outside what is written here. A payload that is a
//! list ("to the end of the payload") may be an empty one. "Error" without a further word means:
//! the session ends (section 13); what stood before it in the stream may have been carried out.
//!
//! A source leaves out what is no `name`, because it begins with `.sy.`: it is sy's own. One such name
//! travels, in LISTINGs of sessions that ask for it: that of a [partial file](#17-partial-files).
//!
//! # 3 Frames
//!
//! A stream is frames, one after the other, without a gap. Each has a head of 16 bytes and a
//! payload of at most 266,224 ([`PAYLOAD_BYTES_MAX`]: with its head and a chunk of 256 KiB a frame
//! fills one block of 260 KiB).
//!
//! | at | field | | |
//! |---|---|---|---|
//! | 0 | length | `u32` | bytes of payload |
//! | 4 | kind | `u8` | the next table |
//! | 5 | flags | `u8` | 0 |
//! | 6 | head check | `u16` | of the other 14 bytes |
//! | 8 | body check | `u64` | of the payload |
//! | 16 | payload | | |
//!
//! - **Head check**: XXH3-64 (seed 0, default secret) over the 14 bytes 0..6 followed by 8..16; of
//!   its 64 bits the lowest 16. It is checked before anything of the head is believed, so of 65,536 heads
//!   with a flipped bit in the length one makes a receiver wait for bytes that won't come.
//! - **Body check**: XXH3-64 (seed 0) over the payload. For DATA only over the payload's first 32
//!   bytes: the content behind them has its own digest among those.
//!
//! Both find accidents, not attackers.
//!
//! | kind | frame | from | payload |
//! |---|---|---|---|
//! | `0x01` | HELLO | source | [section 4](#hello) |
//! | `0x02` | LIST | source | requests, [section 6](#list) |
//! | `0x03` | PACK | source | operations, [section 7](#7-pack) |
//! | `0x04` | DATA | source | a chunk, [section 8](#data) |
//! | `0x05` | END | source | [section 8](#end) |
//! | `0x06` | DONE | source | [section 9](#done) |
//! | `0x09` | OWNERS | source | items, [section 6](#owners-and-mapped) |
//! | `0x07` | SIGN | source | items, [section 15](#sign) |
//! | `0x08` | TOKENS | source | a chunk, [section 15](#tokens) |
//! | `0x0a` | CHECK | source | a number and items, [section 16](#check) |
//! | `0x70`..`0x7f` | ignorable | both | anything |
//! | `0x81` | WELCOME | target | [section 4](#welcome) |
//! | `0x82` | LISTING | target | sections, [section 6](#listing) |
//! | `0x83` | NOTICE | target | items, [section 9](#notice) |
//! | `0x84` | STOP | target | items, [section 9](#stop) |
//! | `0x85` | REPORT | target | [section 9](#report) |
//! | `0x86` | REFUSED | target | [section 4](#refused) |
//! | `0x88` | MAPPED | target | items, [section 6](#owners-and-mapped) |
//! | `0x87` | SIGNATURE | target | sections, [section 15](#signature) |
//! | `0x89` | DIGESTS | target | a number and items, [section 16](#digests) |
//!
//! A receiver checks an **ignorable** frame's head and body like any other's and reads over it, in
//! any state. An empty `0x70` is the sign of life of section 12. Every other kind that is not in
//! the table, or that comes from the wrong side, is an error.
//!
//! If the **first 16 bytes** of a stream are no head (a wrong check, a length that is too long,
//! flags, a kind that is not in the table), the peer does not speak this protocol: the receiver
//! closes the stream without a word. (One that ends within its first 16 bytes is a lost connection,
//! if they could have become a head.) Whatever is wrong behind a first head is an error like any
//! other, a HELLO with another magic too.
//!
//! # 4 The greeting
//!
//! ## HELLO
//!
//! The first frame that is not ignorable, once.
//!
//! | field | | |
//! |---|---|---|
//! | magic | 8 bytes | `sy-push\n`, in every version |
//! | version | `u16` | 1; what follows is this version's |
//! | session | `u64` | random, any value; names the session in logs. The target's temp files bear a number of its own |
//! | stream index | `u16` | 0: a session has one stream |
//! | features | `u64` | bits of what the source knows beyond this page; 0. Unknown bits change nothing |
//! | flags | `u32` | below; unknown bits are an error |
//! | delete max | `u64` | counts where flag 2 is set; otherwise any value |
//! | durability | `u8` | 0 none, 1 session, 2 file |
//! | patience | `u32` | seconds of the target's silence that the source bears; 0: any |
//! | boot id | `id16` | this boot of the source's host, see [WELCOME](#welcome) |
//! | sum key | 32 bytes | random, of this session alone: the key of all sums of section 15 and all digests of section 16 |
//! | module | `text` ≤ 255 | an exported name; empty: section 5 |
//! | components | `u16` ≤ 4096 | how many follow |
//! | DEST | `name` each | below the module's root, outermost first |
//!
//! | flag | bit | |
//! |---|---|---|
//! | dry run | 0 | the target changes nothing |
//! | delete | 1 | DELETE without "makes room" is legal, and subtrees go |
//! | delete max | 2 | at most "delete max" entries are deleted; the others are counted as skipped |
//! | numeric ids | 3 | owners are numbers only: no name is looked up, and MAPPED is never sent |
//! | DEST is a directory | 4 | section 5 |
//! | single file | 5 | section 5 |
//! | tell deletes | 6 | each deletion is told by a NOTICE, not only counted |
//! | DEST is relative | 7 | section 5; an error beside a module |
//! | in place | 8 | files that are there are updated where they stand, [section 18](#18-in-place) |
//! | partial | 9 | section 17 |
//!
//! ## WELCOME
//!
//! The target's first frame, when it has opened DEST. 65 bytes.
//!
//! | at | field | | |
//! |---|---|---|---|
//! | 0 | version | `u16` | 1 |
//! | 2 | features | `u64` | as in HELLO |
//! | 10 | flags | `u8` | below; unknown bits are an error |
//! | 11 | root | `meta` | ROOT as it stands |
//! | 33 | root dev | `u64` | `st_dev` of ROOT |
//! | 41 | root ino | `u64` | `st_ino` of ROOT |
//! | 49 | boot id | `id16` | this boot of the target's host |
//!
//! | flag | bit | |
//! |---|---|---|
//! | owners | 0 | uid and gid of `meta`, or what [MAPPED](#owners-and-mapped) says of them, are set; otherwise everything belongs to the target's user |
//! | setid | 1 | set-id bits are set; otherwise they are dropped, and the source compares without them |
//! | nodes | 2 | NODE is legal |
//! | file named by DEST | 3 | section 5; legal only as the answer to "single file" |
//! | root is absent | 4 | only in a dry run: ROOT does not exist; root, dev and ino are its parent's |
//!
//! A **boot id** is the UUID in `/proc/sys/kernel/random/boot_id`, its 32 hex digits read from left
//! to right as 16 bytes; all zeros where it can't be read.
//!
//! A source that meets a directory whose dev and ino are ROOT's, while the boot ids agree, stands
//! before the target itself: it does not send it.
//!
//! ## REFUSED
//!
//! The target's no, in the place of WELCOME or at any time later. Nothing follows it.
//!
//! | field | | |
//! |---|---|---|
//! | refusal | `u8` | below |
//! | text | `text` ≤ 4096 | for a person; may hold any bytes |
//!
//! | refusal | | when | exit of the source |
//! |---|---|---|---|
//! | 1 | version | HELLO has another version | 2 |
//! | 2 | unknown module | | 5 |
//! | 3 | read-only module | | 5 |
//! | 4 | DEST | it can't be opened or made | 3 |
//! | 5 | DEST is no directory | | 3 |
//! | 6 | protocol | the source made an error, or the target did | 12 |
//! | 7 | timeout | the source was silent | 30 |
//! | 8 | shutting down | the server ends | 5 |
//! | 9 | busy | the server has as many connections as it takes; comes before HELLO is read | 5 |
//!
//! # 5 DEST
//!
//! A **module** is an exported directory. Its components are opened one after the other below the
//! module's root, and no symlink is followed. An **empty module** means the target's own file
//! system with its user's own rights; the components are an absolute path, whose symlinks are
//! followed, except that one at DEST itself must belong to root or to that user. With *DEST is
//! relative* they begin where the target was started instead: in the user's home, behind a remote
//! shell. Only a target that runs as the user who asks admits an empty module (one in the user's
//! own process, or behind the user's remote shell); a server answers "unknown module".
//!
//! ROOT, directory 0 of the session, comes from DEST and two flags of HELLO: *single file* (one
//! entry is pushed, and it is no directory) and *DEST is a directory* (a trailing slash, several
//! sources, a source's contents).
//!
//! | DEST is | single file, not "is a directory" | otherwise |
//! |---|---|---|
//! | a directory | it is ROOT | it is ROOT |
//! | absent, its parent is there | the parent is ROOT, *file named by DEST* | made with mode 0755, and is ROOT; in a dry run: *root is absent* |
//! | a file | the parent is ROOT, *file named by DEST* | REFUSED 5 |
//! | a symlink below a module | the parent is ROOT, *file named by DEST* | REFUSED 4 or 5 |
//! | below an absent parent | REFUSED 4 | REFUSED 4 |
//!
//! With *file named by DEST* the source uses DEST's last component as the entry's name.
//!
//! # 6 Directories
//!
//! A directory has a number, `u32`, chosen by the source. 0 is ROOT and is there from the start.
//! Others are **declared** by a LIST request or by MKDIR, **retired** by CLOSE, and a number is used
//! once in a session. A source counts: in which order it declares is free, and numbers may jump, but
//! those used so far are at most 262,144 unbroken ranges. Those of large files are counted apart.
//! Every object is (directory, one name); paths do not travel forwards.
//!
//! A directory is closed after those declared in it, ROOT last; anything else is an error. Nothing
//! is declared in a closed one.
//!
//! ## LIST
//!
//! Requests, to the end of the payload. They are answered in their order.
//!
//! | field | | |
//! |---|---|---|
//! | dir | `u32` | the number declared |
//! | parent | `u32` | ROOT, or declared by an earlier request (not by MKDIR alone) and not closed |
//! | name | `name` | in the parent. For ROOT (dir 0, parent 0): a length of 0 and no bytes |
//!
//! ROOT may be asked for before WELCOME, and once. A request looks at the target as it is then; operations of
//! PACKs on the way are not waited for. A name that is no directory (nothing, a file, a symlink), or
//! whose parent is absent, is absent too.
//!
//! The source need not ask for ROOT to ask for what is in it, nor for a directory whose parent is
//! absent or was made by MKDIR: everything below is absent, and MKDIR declares it.
//!
//! What a listing makes legal (DELETE in a complete one, MKDIR under the number of an absent one) is
//! legal when the source has read the directory's last section, not when it asked. An absent
//! directory is closed like any other, with or without MKDIR; without, the `meta` of its CLOSE is
//! dropped in silence and every other operation in it fails (reason 6).
//!
//! ## LISTING
//!
//! Sections, to the end of the payload. A large directory has several, in this frame and the next
//! ones; those of one directory follow each other.
//!
//! | field | | |
//! |---|---|---|
//! | dir | `u32` | was asked for, and has not had its last section |
//! | status | `u8` | below |
//! | errno | `u16` | Linux's, 1 to 4095, with status 4; otherwise 0 |
//! | count | `u32` | entries that follow |
//!
//! | status | | the section is | DELETE in it |
//! |---|---|---|---|
//! | 0 | absent | the last; no entries | no |
//! | 1 | part | not the last | |
//! | 2 | complete | the last; every entry was sent | legal from now on |
//! | 3 | incomplete | the last; some entry could not be looked at | no |
//! | 4 | failed | the last; the directory could not be read | no |
//!
//! An entry is 32 bytes and a part of its name:
//!
//! | field | | |
//! |---|---|---|
//! | shared | `u8` | bytes that are taken from the name before it in this section: all that the two have in common, or fewer; 0 for the first |
//! | rest | `u8` + n | the length of the rest of the name, and the rest |
//! | st_mode | `u16` | as in `meta` |
//! | size | `u64` | bytes of a file or of a link's target; `st_rdev` of a device; of other kinds without a meaning |
//! | mtime, seconds | `i64` | |
//! | mtime, nanoseconds | `u32` | in the lower 31 bits; bit 31: **suspect** |
//! | uid | `u32` | |
//! | gid | `u32` | |
//!
//! Names are `name`s, put together, and **ascend strictly** in byte order through all sections of a
//! directory; a source that sees otherwise ends the session. The target leaves out its own `.sy.*`
//! files, but with HELLO's *partial* it lists the partial files of section 17; one that was not asked for, or
//! that is no regular file, is an error, as is any other name that is no `name`. *Suspect* means that a crash may have cut off the session that wrote the file: whatever
//! its size and time say, the source sends it again.
//!
//! ## OWNERS and MAPPED
//!
//! Users and groups travel as the source's numbers, in every `meta` that it sends. What they are
//! *called* there it says once, in OWNERS; a target that knows the name gives what belongs to that
//! number to its own user or group of that name, whatever number that has. Items of OWNERS:
//!
//! | field | | |
//! |---|---|---|
//! | kind | `u8` | 1 user, 2 group |
//! | id | `u32` | the source's number; not 0, not `0xffffffff`; of each kind once in a session |
//! | name | `u8` + n | a length, then that many bytes: 1 to 255, no NUL, no colon, no newline |
//!
//! A source declares an owner before the LIST of a directory that shows it, and before the PACK that
//! carries it, ROOT's own too; so the first OWNERS may come before WELCOME. It need not declare any: what
//! has no name, or was not declared, keeps its number, and so does what the target has no name for.
//! 0 is root and is 0 everywhere. At most 65,536 are declared ([`OWNERS_DECLARED_MAX`]).
//!
//! With WELCOME's *owners* and without HELLO's *numeric ids* the target looks each name up, before
//! it applies a PACK or answers a LIST that came later; otherwise it reads over them. Of those that
//! have **another** number there it tells the source, before those answers, in items of MAPPED:
//!
//! | field | | |
//! |---|---|---|
//! | kind | `u8` | 1 user, 2 group |
//! | id | `u32` | the source's number, as it was declared |
//! | number | `u32` | the target's; not `0xffffffff` |
//!
//! Nobody else translates: LISTING and WELCOME hold the target's own numbers, and what a source sends
//! are its own, after MAPPED as before. Two owners may have one number at the target, or one
//! may have the number of another: that is why the source compares by way of MAPPED and
//! never back.
//!
//! ## What is the same
//!
//! The source alone decides; the target sets what it is told. Sources that are to agree about one
//! target compare so:
//!
//! | kind | the content is the same with | of `meta`, is compared |
//! |---|---|---|
//! | file | size and mtime, where it is not suspect | mode, owner |
//! | symlink | size and mtime | owner; permissions of links are carried and change nothing |
//! | device | `st_rdev`, the number as `stat` gives it | mode, owner, mtime |
//! | fifo, socket | the kind | mode, owner, mtime |
//! | directory | the kind | mode, owner, mtime: CLOSE sets them |
//!
//! A source that goes by content takes a file for the same, whatever its mtime, where size and
//! digest agree (section 16) and it is not suspect; of `meta`, its mtime is compared as well then.
//!
//! An **mtime** is the same if the seconds agree, and the nanoseconds agree or are 0 at the target,
//! whose file system may know none. **Mode** is all twelve bits; without WELCOME's *setid* those two
//! are wanted as 0. **Owners** are compared with *owners* only: the source's number, or the one that
//! MAPPED gave for it, with the number in the LISTING or WELCOME. Without *nodes* a fifo, socket or
//! device of the source is passed over, whatever has its name at the target.
//!
//! Content that differs makes FILE, BEGIN, SYMLINK or NODE; where only metadata does, META is enough.
//! An entry of another kind is replaced by the same operations; only where one of the two is a
//! directory, DELETE (*makes room*) goes before.
//!
//! # 7 PACK
//!
//! Operations, to the end of the payload. Those that others build on (DELETE, MKDIR, BEGIN, CLOSE)
//! are applied **in stream order**, one PACK after the other. FILE, SYMLINK, NODE and META, each of
//! one entry, come after all of those before them and before the CLOSE of their directory, but in any
//! order among themselves; so a source names an entry once. An operation that fails on the target's
//! disk is told by a NOTICE, and the next one is applied.
//! Each begins:
//!
//! | field | | |
//! |---|---|---|
//! | operation | `u8` | below |
//! | dir | `u32` | declared and not closed |
//! | name | `name` | in `dir`; CLOSE has none |
//!
//! | | operation | then | |
//! |---|---|---|---|
//! | 1 | DELETE | room `u8` | any kind |
//! | 2 | MKDIR | id `u32`, mode `u16` ≤ 07777 | `dir` is the parent |
//! | 3 | FILE | `meta`, length `u32` ≤ 262,144, content | kind: file |
//! | 4 | SYMLINK | `meta`, target `text` 1 to 4095 bytes without NUL | kind: symlink |
//! | 5 | NODE | `meta`, rdev `u64` | kind: fifo, socket or device |
//! | 6 | META | `meta`, sets time `flag` | any kind but directory |
//! | 7 | BEGIN | file `u32`, `meta`, size `u64` < 2^63, block bytes `u32` | kind: file |
//! | 8 | CLOSE | has meta `flag`, then `meta` if 1 | kind: directory |
//!
//! **DELETE** is legal only in a directory whose listing was complete. With HELLO's *delete* it
//! removes the entry and all below it; mount points are never emptied, and the limit counts every
//! single entry. Without *delete* it is legal only when it **makes room**: something of another kind
//! will follow under that name; any other is an error. Then it removes a file or an *empty*
//! directory. *room* is 0 where it makes none; 1 where a directory is to come: then only what is no
//! directory goes; 2 where anything else is to come: then only a directory goes. What has its new kind
//! by now, since another push was faster, stays: it may stand in other LISTINGs. An entry that is gone
//! already is no failure. A directory that has a number may be deleted; what comes for it afterwards
//! fails one by one.
//!
//! **MKDIR** makes the directory and declares it as `id`, a number that is new, or that a LIST
//! declared for the same parent and name and that is absent. If a directory is there after all (another push
//! was faster), it is **adopted** as if it had been made, but not counted; DELETE stays illegal in
//! it. The owner's
//! bits are added to `mode` (`| 0700`), set-id bits left off; CLOSE brings the final mode. If it
//! can't be made, the target sends STOP, and operations in it fail one by one (its CLOSE does not: it
//! only retires the number).
//!
//! **FILE, SYMLINK, NODE** make the entry or replace what is there, in one step: no moment shows
//! half of it (but of a file that is updated [in place](#18-in-place)). They do not replace a directory; DELETE goes before, and where a directory that is
//! not empty had to stay, it is they that fail. A large file replaces in the same
//! way, at its END. NODE is an error where WELCOME
//! did not allow it; `rdev` counts for devices. **META** sets owner and mode of an entry of that same
//! kind, and, where it *sets time*, its mtime. A source asks for that only where the mtime differs: one
//! that is left alone shows what somebody does to the entry after the LISTING.
//!
//! **BEGIN** announces a large file, whose content comes by DATA under the number `file`: chosen by
//! the source, used once and counted up like a directory's. At most 256 are begun and not ended. With
//! *block bytes* (0, or a power of two from 4096 to 262,144) other than 0 the file has a **basis**, the
//! entry that has the name now (section 15), or what arrived of the file before (section 17).
//!
//! **CLOSE** says that nothing more comes for `dir`; its number is retired at once. Its `meta` is
//! set when the large files that began in it have ended and the CLOSEs below it are carried out: as
//! the last thing that happens to it, so that its mtime stays. A source sends `meta` where something in
//! the directory changed (after MKDIR always) or where its own metadata differs. If it may have to
//! begin a large file again, it keeps the directory open until the END that counts.
//!
//! In a **dry run** only DELETE and CLOSE are legal: DELETE tells and counts, CLOSE retires the
//! number and sets nothing.
//!
//! # 8 Large files: DATA and END
//!
//! A file is cut into **chunks** of 262,144 bytes, the last one shorter. Chunks of several files may
//! take turns, and those of one file come in any order, each once; DATA follows the PACK with its
//! BEGIN in the stream. A source sends files of up to 262,144 bytes by FILE, larger ones this way, but BEGIN
//! takes any size, 0 included.
//!
//! ## DATA
//!
//! | at | field | | |
//! |---|---|---|---|
//! | 0 | file | `u32` | begun and not ended |
//! | 4 | codec | `u32` | 0: plain; 1: a hole, in DATA only |
//! | 8 | offset | `u64` | a multiple of 262,144 |
//! | 16 | digest | `u128` | the chunk's |
//! | 32 | content | 1 to 262,144 bytes; of a hole none | to the end of the frame; ends within the size of BEGIN |
//!
//! A **hole** is a whole chunk of zeros, of 262,144 bytes or up to the end of the file, and its digest is theirs. The
//! target need not write it. A source sends a chunk so where its own file is sparse.
//!
//! A target does not insist on whole chunks and keeps no list of them: one that is short before the
//! end of the file, or that comes twice, makes the file fail at its END. More bytes in all than BEGIN
//! said are an error.
//!
//! **Chunk digest**: XXH3-128 (seed 0, default secret) of the content, as the number high · 2^64 +
//! low. A chunk whose digest does not agree is damage on the way, and an error.
//!
//! ## END
//!
//! | at | field | | |
//! |---|---|---|---|
//! | 0 | file | `u32` | |
//! | 4 | gives up | `flag` | 1: the source could not read it, or it changed; drop it |
//! | 5 | digest | `u128` | the file's; 0 where it gives up |
//!
//! **File digest**: for each chunk take XXH3-128 (seed 0) of 24 bytes, the offset as `u64` and the
//! chunk digest as `u128`, both little-endian; add all of them modulo 2^128. It does not depend on
//! the order; of an empty file it is 0.
//!
//! The target names the file (or sets its time, [in place](#18-in-place)) only if the bytes it received are as many
//! as BEGIN said and the digest agrees; otherwise it drops the file and sends a NOTICE. A source that read a file while it
//! changed gives it up and may begin it again under a new number.
//!
//! # 9 What the target says
//!
//! ## NOTICE
//!
//! Items, to the end of the payload. Paths are relative to ROOT, with `/` between components; one
//! of more than 8192 bytes loses its beginning.
//!
//! | item | fields |
//! |---|---|
//! | deleted | `u8` 1, kind `u16` (as in st_mode: directory, or file for all else), path `text` |
//! | failed | `u8` 2, attempt `u8`, reason `u8`, errno `u16`, path `text` |
//!
//! Attempts: 1 list, 2 open, 3 read, 4 read link, 5 create, 6 write, 7 make directory, 8 make link,
//! 9 make node, 10 set metadata, 11 rename, 12 delete, 13 sync, 14 stat.
//!
//! | reason | | |
//! |---|---|---|
//! | 0 | errno | the field says which, 1 to 4095; with the other reasons it is 0 |
//! | 1 | vanished | it was gone |
//! | 2 | changing | it is of another kind than it was, another entry has its name, or, of a directory, it gives new entries another group than before |
//! | 3 | own name | it is called `.sy.*` |
//! | 4 | directory in the way | it is not empty, and nothing allows deleting it |
//! | 5 | digest | bytes are missing, or the file's digest does not agree |
//! | 6 | no directory | what it belongs into could not be made |
//!
//! Failed items are counted in the REPORT; a source tells them and does not count them again. (A
//! LISTING of status 4 comes without a NOTICE: the source tells and counts that one, and leaves the
//! directory as it is.) Attempts and reasons are for people: the same trouble may come as an errno
//! or under a reason of its own.
//!
//! ## STOP
//!
//! Items of 5 bytes, a kind `u8` and a number `u32`:
//!
//! | kind | of | |
//! |---|---|---|
//! | 1 | a directory | everything below it is lost |
//! | 2 | a file | its content is dropped |
//! | 3 | a file with a basis | **again, whole**: its content is dropped, section 15 |
//! | 4 | a file with a basis | **settled**: it has ended, section 15 |
//!
//! The first two spare the source work and oblige it to nothing: DATA that is on its way is still
//! legal, and END (gives up) still follows. A number that is retired is ignored.
//!
//! ## DONE
//!
//! `u64`: entries that failed at the source, for the target's log. Every file that began has had
//! its END; otherwise it is an error. Directories that are not closed stay as they are, those of
//! MKDIR with its preliminary mode. LISTs and CHECKs that are not answered yet are answered before the REPORT.
//! Nothing that follows DONE is carried out, and the source may end its direction of the stream
//! there.
//!
//! ## REPORT
//!
//! The last frame, when everything is applied and the durability is reached.
//!
//! | field | | |
//! |---|---|---|
//! | exit | `u8` | 0 all is well, 3 DEST may not be written to, 11 the target's disk failed, 23 some entries failed, 25 the limit of deletions was met |
//! | durability | `u8` | as in HELLO: what was asked for; 0 with exits 3 and 11 |
//! | files made | `u64` | files, links and nodes |
//! | directories made | `u64` | by MKDIR, without adopted ones |
//! | metadata mended | `u64` | META operations, not CLOSE |
//! | deleted | `u64` | every single entry, also where room was made |
//! | deletes skipped | `u64` | beyond the limit |
//! | errors | `u64` | failed items |
//! | peak RSS | `u64` | bytes, of the target's process |
//! | text | `text` ≤ 4096 | with exits 3 and 11: path and reason |
//!
//! Exits 3 and 11 may come before DONE: a DEST that may not be written to, and a disk that is full, over quota or read-only, end the session.
//!
//! # 10 States and order
//!
//! | source | sends | accepts | goes on to |
//! |---|---|---|---|
//! | new | HELLO | | greeting |
//! | greeting | OWNERS, LIST of ROOT | WELCOME | pushing |
//! | pushing | OWNERS, LIST, CHECK, PACK, SIGN, DATA, TOKENS, END, DONE | MAPPED, LISTING, DIGESTS, SIGNATURE, NOTICE, STOP, REPORT 11 | reporting, after DONE |
//! | reporting | | MAPPED, LISTING, DIGESTS, SIGNATURE, NOTICE, STOP, REPORT | over: it closes the stream |
//!
//! | target | takes frames | accepts | sends | goes on to |
//! |---|---|---|---|---|
//! | awaiting HELLO | yes | HELLO | | opening |
//! | opening | no | | WELCOME or REFUSED | serving |
//! | serving | while it has room | OWNERS, LIST, CHECK, PACK, SIGN, DATA, TOKENS, END, DONE | MAPPED, LISTING, DIGESTS, SIGNATURE, NOTICE, STOP | finishing, when DONE is in and all work is done |
//! | finishing | no | | | reporting, when its last job is done |
//! | reporting | yes, and drops them | anything | REPORT or REFUSED | over: when the source closed the stream |
//!
//! In every state both accept ignorable frames and the source accepts REFUSED. Anything else is an
//! error. (What a source sends before the WELCOME, a target takes up after it and can't tell from
//! what came in time.) On each side frames are heard in stream order; what overtakes what afterwards:
//!
//! - OWNERS are looked up before later PACKs are applied and later LISTs answered.
//! - LIST is answered beside the PACKs and says nothing about them.
//! - CHECK is answered beside all of them, each when its files are read, and says nothing about PACKs.
//! - SIGN is answered in the order of its items, each when the BEGIN of its file is applied.
//! - Operations wait for those before them, but for entries (section 7). DATA or TOKENS waits for its BEGIN and
//!   then for nothing.
//! - A file gets its name at END, whenever that is; a directory its time after that.
//! - NOTICE and STOP come as things happen, all before the REPORT.
//!
//! # 11 Flow
//!
//! There is **no credit**. A target that has no room stops reading, and the transport does the rest.
//! Room of a target: 8 frames received and not applied yet ([`RECV_BLOCKS_PER_SESSION_MAX`]), 4096
//! directories asked for and not listed ([`LISTS_WAITING_MAX`]), 4096 notices and as many stops
//! unsent ([`NOTICES_WAITING_MAX`]).
//!
//! In return **a source always reads**, also while it can't send, and uses up what it reads where it
//! stands: a LISTING is merged entry by entry and gone, but for the names to be deleted, which wait
//! for the directory's last section. So the target can always answer, hence can
//! always apply, hence reads again. A source that reads only when it has sent deadlocks.
//!
//! The source decides how far it looks ahead: any number of LISTs may be unanswered. This one
//! bounds itself to 2 MiB of its own listings ([`LOOKAHEAD_BYTES_MAX`]), 8 large files ([`LARGE_FILES_OPEN_MAX`])
//! and 8 blocks to send.
//!
//! # 12 Silence
//!
//! After the greeting a side that sent nothing for 15 s, or for a quarter of its patience if that
//! is less, sends an empty frame `0x70`. None is sent while a frame is on its way out. From HELLO on
//! a target's patience is the source's, where that is less than its own 60 s. There is no limit to a
//! session that lives by this alone.
//!
//! | who waits | for | how long | then |
//! |---|---|---|---|
//! | client | the connection | 20 s | exit 35 |
//! | target on a stream | HELLO in full, and DEST opened, from the accept on | 10 s | REFUSED 7 |
//! | target on a stream | a byte, while it takes frames | its patience | REFUSED 7 |
//! | target on a stream | the source to read a byte of a frame on its way out | 60 s | REFUSED 7 |
//! | target on a stream | the rest of a frame, while others need its memory | 5 s | REFUSED 7 |
//! | source on a stream | a byte | `--timeout`, 60 s | closes; exit 30 |
//! | source behind a remote shell | WELCOME | `--timeout`, 300 s | closes; exit 30 |
//!
//! # 13 Endings
//!
//! A stream that ends before the REPORT has failed, whatever arrived. Temp files of a session that
//! broke off are removed by the target, or become partial files (section 17), and directories that it had made writable for itself get
//! their modes back; what has its name by then stays.
//!
//! | what ends a session | who says so | exit of the source |
//! |---|---|---|
//! | REPORT | | its own errors 23, only vanished files 24, else the REPORT's; 11 before all |
//! | REFUSED | target | section 4 |
//! | an error of the target's frames | source closes, says nothing | 12 |
//! | an error of the source's frames | target: REFUSED 6, then reads and drops until the source closes | 12 |
//! | another version | target: REFUSED 1; or the source, of a WELCOME: closes, says nothing | 2 |
//! | the first bytes are no frame | both close, say nothing | 2 |
//! | the stream ends or fails | | 10 |
//! | silence | see section 12 | 30 |
//! | a source is empty under *delete*, or is DEST itself | source closes | 3 |
//! | SIGINT, SIGTERM, SIGHUP at the source | source closes | 20 |
//!
//! The source closes when it has read REPORT or REFUSED. The target never closes first after its
//! last word: closing with unread bytes would cut that word off.
//!
//! # 14 Limits
//!
//! | what | at most | |
//! |---|---|---|
//! | payload of a frame | 266,224 bytes | [`PAYLOAD_BYTES_MAX`] |
//! | chunk; content of FILE | 262,144 bytes | [`CHUNK_BYTES`] |
//! | name | 255 bytes | [`NAME_BYTES_MAX`] |
//! | link target | 4095 bytes | [`LINK_TARGET_BYTES_MAX`] |
//! | components of DEST | 4096 | [`DEST_COMPONENTS_MAX`] |
//! | text for people | 4096 bytes | [`PEER_TEXT_BYTES_MAX`] |
//! | path in a NOTICE | 8192 bytes | [`report::NOTICE_PATH_BYTES_MAX`] |
//! | directories declared and not closed | 262,144 | [`DIRS_DECLARED_MAX`] |
//! | owners declared | 65,536 | [`OWNERS_DECLARED_MAX`] |
//! | name of an owner | 255 bytes | [`OWNER_NAME_BYTES_MAX`] |
//! | large files begun and not ended | 256 | [`INCOMING_FILES_MAX`] |
//! | items of SIGN that are not answered | 64 | [`SIGNS_WAITING_MAX`] |
//! | bytes of the blocks of one item | 8 MiB | [`SIGN_BYTES_MAX`] |
//! | runs in one TOKENS | 133 | [`DELTA_RUNS_PER_CHUNK_MAX`] |
//! | files in one CHECK | 1024 | [`CHECK_FILES_MAX`] |
//! | CHECKs that are not answered | 8 | [`CHECKS_WAITING_MAX`] |
//! | ranges of numbers used, of directories and of files | 262,144 | [`USED_RANGES_MAX`] |
//! | partial files of one directory that a side takes note of | 1024 | [`PARTIALS_PER_DIR_MAX`] |
//!
//! # 15 Deltas: SIGN, SIGNATURE and TOKENS
//!
//! Of a file that the target has in another version, only what differs has to travel. The source says
//! so in BEGIN; the target opens its entry of that name, the **basis**, as it is then: a regular file.
//! Cut into blocks of BEGIN's *block bytes*, of which the last may be shorter, each block has a weak sum
//! and a strong hash. The source asks for them by SIGN, finds the same blocks in its own version,
//! wherever they stand, and sends chunks as TOKENS: copies of the basis and literal bytes. A chunk that has
//! nothing of the basis goes as DATA, and so may all of them. The target puts the chunks together beside
//! the basis, which stays as it is until END; [in place](#18-in-place) they are one file, and there are
//! fewer copies.
//!
//! A block is at least 4096 bytes, and at least `sqrt(N) / 8` rounded up to a power of two, `N` being
//! the size of the basis, up to 262,144. A target whose basis deserves larger blocks than BEGIN says has none.
//! Nobody is obliged to send deltas, and suspect files (section 6) always go whole.
//!
//! ## SIGN
//!
//! `0x07`, source, after the PACK with the BEGIN. Items, to the end of the payload, each of which is
//! answered once, in order:
//!
//! | field | | |
//! |---|---|---|
//! | file | `u32` | |
//! | first block | `u64` | |
//! | count | `u32` | at least 1; at most 8 MiB of blocks |
//!
//! At most 64 items are not answered yet ([`SIGNS_WAITING_MAX`]); one more is an error, and so are more blocks than 8
//! MiB of the smallest, and an item that begins before the end of the one before it of the same file: no
//! block is asked for twice.
//!
//! ## SIGNATURE
//!
//! `0x87`, target. Sections, to the end of the payload, one for each item:
//!
//! | at | field | | |
//! |---|---|---|---|
//! | 0 | file | `u32` | the item's |
//! | 4 | status | `u8` | 1: sums; 0: none |
//! | 5 | basis bytes | `u64` | its size when it was opened; 0 with status 0 |
//! | 13 | first block | `u64` | the item's |
//! | 21 | count | `u32` | the item's; 0 with status 0 |
//! | 25 | sums | 12 bytes each | weak sum `u32`, strong hash 8 bytes |
//!
//! Status 0 means that the file has no basis, that it has not all of these blocks or that they could not
//! be read, or that the file has ended: the source sends it whole. Another size than the LISTING told is a reason
//! for that, too. A section that answers another item than the next one is an error.
//!
//! **Strong hash**: HighwayHash-64 of the block under *sum key*, its four words little-endian, in order;
//! its 64 bits little-endian. **Weak sum**: the upper 32 bits of the sum of `b[i] * m^(n - 1 - i)` modulo 2^64
//! over the bytes `b[0]` to `b[n - 1]` of the block, where `m` is HighwayHash-64 of the 8 bytes `weak sum` under
//! the key of *sum key*'s four words with all bits of the first and the last inverted, its lowest three bits
//! replaced by 101.
//!
//! ## TOKENS
//!
//! `0x08`, source: a chunk, in the place of a DATA. The first 32 bytes are DATA's (file, codec, offset, digest
//! of the chunk *as it will be*); the body check covers the whole payload. Then runs, at most 133, that make up
//! exactly that chunk: 262,144 bytes, or those up to the end of the file.
//!
//! | run | fields | |
//! |---|---|---|
//! | copy | `u8` 1, basis offset `u64`, length `u32` | of bytes that the basis has |
//! | literal | `u8` 2, length `u32`, bytes | |
//!
//! A run of no bytes, one that leaves the basis or the chunk, and TOKENS for a file without a basis are errors.
//!
//! ## Again, and settled
//!
//! The target compares each chunk with its digest before it writes it. Where they differ, or the basis can't be
//! read, somebody changed the basis meanwhile, or two hashes agreed by accident: the target drops the file and sends
//! STOP 3, once. The source gives the file up, if it has not sent END yet, and begins it again under a new number
//! and without a basis. It can't know before its END is heard that nothing of the kind comes: so a file that
//! began with a basis, and whose END has a digest, is **settled** by STOP 4 where it gets no STOP 3 and no STOP 2; until
//! then the source keeps its directory open, and does not send DONE.
//!
//! # 16 By content: CHECK and DIGESTS
//!
//! A source that does not want to go by size and mtime asks for the **digests** of files that both sides
//! have in one size, and compares them with those of its own. It asks when it has read the directory's
//! last section, so that the target reads nothing but what can be the same. Nobody is obliged to ask. What
//! differs goes as it would otherwise, as a delta too. A dry run may ask as well.
//!
//! ## CHECK
//!
//! `0x0a`, source.
//!
//! | field | | |
//! |---|---|---|
//! | number | `u32` | the source's own; stands in the answer |
//! | items | to the end of the payload | at most 1024 ([`CHECK_FILES_MAX`]) |
//!
//! | item | | |
//! |---|---|---|
//! | dir | `u32` | declared by LIST (not by MKDIR alone) and not closed |
//! | size | `u64` | of the file that the digest is wanted of |
//! | name | `name` | in `dir` |
//!
//! Each CHECK is answered once, in any order. At most 8 are not answered yet ([`CHECKS_WAITING_MAX`]); one more is
//! an error.
//!
//! ## DIGESTS
//!
//! `0x89`, target: the number of a CHECK, and for each of its items, in order, 17 bytes:
//!
//! | at | field | | |
//! |---|---|---|---|
//! | 0 | status | `u8` | 1: the digest; 0: none |
//! | 1 | digest | 16 bytes | with status 0 zeros |
//!
//! Status 0 means that nothing of that name is a regular file of that size, that it could not be read, or
//! that it was changed meanwhile: the source sends it. DIGESTS under another number than that of a CHECK that
//! waits, or of another count, are an error.
//!
//! **Digest**: HighwayHash-128 of the content under *sum key*, its four words little-endian, in order; its two
//! words little-endian, in order.
//!
//! What the source concludes holds for the moment at which the digests were made: a file that somebody rewrites between
//! then and a META that sets its time gets the source's mtime all the same.
//!
//! It is keyed because nothing looks at the bytes again where it agrees: who may write to one of the files
//! must not be able to make another content that passes for it.
//!
//! # 17 Partial files
//!
//! With HELLO's *partial* a target keeps what arrived of a large file when the session breaks off, if that
//! is 262,144 bytes or more: as the file `.sy.` *hash* `.partial` in the same directory, the hash being
//! XXH3-128 (seed 0) of the file's name, the number high · 2^64 + low in 32 lower-case hexadecimal digits.
//! It need not keep any. This one keeps none of a file that the source gave up or that failed, none where
//! the disk is full, and none that its basis gave for the most part, unless the basis was a partial file
//! and has not more. It replaces an older one.
//!
//! **A partial file is a basis, and nothing about it is believed**: not its length, not its bytes, not that
//! it belongs to the file as it is now. Where it is wrong no block matches, and the bytes travel.
//!
//! In such a session LISTINGs hold the partial files of the directory that may be a basis: regular ones of
//! the target's own user, with one name, of 262,144 bytes or more. Others are left out. A source never
//! deletes one. If it is to send a file there whose name has that hash, it may send it as a delta (section
//! 15) of a basis of that size. At a BEGIN with *block bytes* the target takes for the basis the partial
//! file, where it listed one and the file is not updated in place, and else the entry of that name. A source that meant the other sees another
//! size in the SIGNATURE, or finds no block that matches.
//!
//! Before a file gets its name, by whatever operation, its partial file is removed if the target has listed
//! the directory and met some there. In any session, with *partial* or without, a target removes those that
//! it meets and whose mtime is 7 days old; never what is not a regular file of its own user.
//!
//! # 18 In place
//!
//! With HELLO's *in place*, FILE and BEGIN update a file that has the name where it stands: its inode stays. The target
//! does so where
//!
//! - it is a regular file without another name (`st_nlink` is 1), so that nothing is ever written through a hard link,
//! - its owner is the target's user, or that is root: nobody else may set its time,
//! - it can be opened to be written, not following a symlink, and nobody else holds an exclusive or shared lock
//!   (`flock`) on it; the target holds one meanwhile.
//!
//! All this is looked at on the open file. Any other entry is replaced as always, and so is what is no file on one of
//! the two sides; the source is not told which way a file went.
//!
//! Until its END (of a FILE: within the operation) the file is a mixture of its versions, and so it stays where it
//! fails, is given up, or the session breaks off: it is not removed. **A mixture is never the same** by [What is the
//! same](#what-is-the-same):
//!
//! - Its mtime is set as the last thing of all, after owner and mode; with durability 2 its content is synced before.
//! - Before its first byte changes its mtime is set to the present, and it gets longer by a byte than either version,
//!   until its END cuts it to size.
//! - This is synced before the first byte, whatever the durability: after a power cut new bytes can be in an inode
//!   whose times were not written, which then would not be suspect.
//!
//! Meanwhile it has no set-id bits and no permissions but those that both its old and its new mode give, and its
//! owner's to read and write; none at all where its owner changes. At END the name must still lead to it; otherwise it fails (attempt 6, reason 2). A hard
//! link that somebody makes after the file was opened shows the new content as well.
//!
//! A hole (codec 1) becomes zeros where the file has content.
//!
//! A file that is updated in place is **its own basis**: a partial file (section 17) is none for it.
//!
//! A **copy** of TOKENS may only stay where it is: its basis offset is the offset in the file of the bytes that it
//! makes up. Any other is an error, for files that are replaced, too. So a chunk takes nothing but from its own range,
//! and their order does not matter. A source compares each block with what stands in the same place of its own file; the
//! last, shorter one also where its own goes on. What is copied is not written; a chunk is compared with its digest
//! before any byte of it is.
//!
//! A file that was given up, or is wanted again, may begin again after its END. The target applies the PACK with that
//! BEGIN when all that was under way for the former number is written.
//!
//! [`PAYLOAD_BYTES_MAX`]: crate::limits::PAYLOAD_BYTES_MAX
//! [`CHECK_FILES_MAX`]: crate::limits::CHECK_FILES_MAX
//! [`CHECKS_WAITING_MAX`]: crate::limits::CHECKS_WAITING_MAX
//! [`CHUNK_BYTES`]: crate::limits::CHUNK_BYTES
//! [`NAME_BYTES_MAX`]: crate::limits::NAME_BYTES_MAX
//! [`LINK_TARGET_BYTES_MAX`]: crate::limits::LINK_TARGET_BYTES_MAX
//! [`DEST_COMPONENTS_MAX`]: crate::limits::DEST_COMPONENTS_MAX
//! [`PEER_TEXT_BYTES_MAX`]: crate::limits::PEER_TEXT_BYTES_MAX
//! [`INCOMING_FILES_MAX`]: crate::limits::INCOMING_FILES_MAX
//! [`SIGNS_WAITING_MAX`]: crate::limits::SIGNS_WAITING_MAX
//! [`SIGN_BYTES_MAX`]: crate::limits::SIGN_BYTES_MAX
//! [`DELTA_RUNS_PER_CHUNK_MAX`]: crate::limits::DELTA_RUNS_PER_CHUNK_MAX
//! [`USED_RANGES_MAX`]: crate::limits::USED_RANGES_MAX
//! [`PARTIALS_PER_DIR_MAX`]: crate::limits::PARTIALS_PER_DIR_MAX
//! [`OWNERS_DECLARED_MAX`]: crate::limits::OWNERS_DECLARED_MAX
//! [`OWNER_NAME_BYTES_MAX`]: crate::limits::OWNER_NAME_BYTES_MAX
//! [`LISTS_WAITING_MAX`]: crate::limits::LISTS_WAITING_MAX
//! [`NOTICES_WAITING_MAX`]: crate::limits::NOTICES_WAITING_MAX
//! [`DIRS_DECLARED_MAX`]: crate::limits::DIRS_DECLARED_MAX
//! [`RECV_BLOCKS_PER_SESSION_MAX`]: crate::limits::RECV_BLOCKS_PER_SESSION_MAX
//! [`LOOKAHEAD_BYTES_MAX`]: crate::limits::LOOKAHEAD_BYTES_MAX
//! [`LARGE_FILES_OPEN_MAX`]: crate::limits::LARGE_FILES_OPEN_MAX

pub mod check;
pub mod cursor;
pub mod data;
pub mod error;
pub mod head;
pub mod hello;
pub mod list;
pub mod owners;
pub mod pack;
pub mod report;
pub mod sign;

pub use error::WireError;
pub use head::{FrameKind, Head, seal};

/// The version of the protocol that this is.
pub const VERSION: u16 = 1;
