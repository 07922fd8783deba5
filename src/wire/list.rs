//! LIST and LISTING: the source asks what stands in directories, the target answers.

use super::cursor::{META_BYTES, Reader, Writer};
use super::error::WireError;
use crate::model::entry::{Kind, Meta};
use crate::model::id::DirId;
use crate::model::listing::Entry;
use crate::model::name::Name;
use crate::model::partial::PartialName;
use crate::model::time::Mtime;
use crate::ops::Errno;

/// Bytes of the longest LIST request.
pub const REQUEST_BYTES_MAX: usize = 4 + 4 + 1 + 255;

/// One request: declares `dir` as the directory `name` of `parent`. ROOT has itself as parent
/// and no name.
///
/// ```text
///  0     4        8
///  | dir | parent | name |
///  | u32 | u32    | name | ROOT: a length of 0
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    pub dir: DirId,
    pub parent: DirId,
    pub name: Option<Name<'a>>,
}

impl<'a> Request<'a> {
    pub fn encode(&self, writer: &mut Writer<'_>) {
        writer.u32(self.dir.0);
        writer.u32(self.parent.0);
        writer.name(self.name.map_or(b"", Name::bytes));
    }

    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let dir = DirId(reader.u32()?);
        let parent = DirId(reader.u32()?);
        let name = match (dir, parent) {
            (crate::model::id::ROOT, crate::model::id::ROOT) => {
                let empty = reader.u8()?;
                if empty != 0 {
                    return Err(WireError::Forbidden {
                        what: "ROOT's name length",
                        value: u64::from(empty),
                    });
                }
                None
            }
            _ => Some(reader.name()?),
        };
        Ok(Self { dir, parent, name })
    }
}

/// How a section of a LISTING ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// The directory does not exist.
    Absent,
    /// More sections of it follow.
    Part,
    /// That was all of it, completely: deletes are legal now.
    Complete,
    /// That was all that could be read.
    Incomplete,
    /// It can't be listed at all.
    Failed(Errno),
}

impl Status {
    fn encode(self, writer: &mut Writer<'_>) {
        let (code, errno) = match self {
            Self::Absent => (0, 0),
            Self::Part => (1, 0),
            Self::Complete => (2, 0),
            Self::Incomplete => (3, 0),
            Self::Failed(errno) => (4, errno.raw_os_error()),
        };
        writer.u8(code);
        writer.u16(u16::try_from(errno).unwrap_or(u16::MAX));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let code = reader.u8()?;
        let errno = reader.u16()?;
        match (code, errno) {
            (0, 0) => Ok(Self::Absent),
            (1, 0) => Ok(Self::Part),
            (2, 0) => Ok(Self::Complete),
            (3, 0) => Ok(Self::Incomplete),
            (4, 1..4096) => Ok(Self::Failed(Errno::from_raw_os_error(errno.into()))),
            (0..=4, _) => Err(WireError::Forbidden {
                what: "errno of a LISTING",
                value: u64::from(errno),
            }),
            (5.., _) => Err(WireError::Forbidden {
                what: "LISTING status",
                value: u64::from(code),
            }),
        }
    }
}

/// Bytes of a section's head: directory, status, count of entries.
const SECTION_BYTES: usize = 4 + 3 + 4;
/// Bytes of an entry without its name.
const ENTRY_BYTES: usize = 2 + 8 + META_BYTES;
/// Marks a suspect entry in the word of its nanoseconds, which need 30 bits.
const SUSPECT_BIT: u32 = 1 << 31;

/// Writes sections into the payload of a LISTING frame.
pub struct SectionWriter<'a, 'b> {
    writer: &'a mut Writer<'b>,
    start: usize,
    count: u32,
    last_name: [u8; 255],
    last_len: usize,
}

impl<'a, 'b> SectionWriter<'a, 'b> {
    /// Begins a section; `None` where not even a small one fits any more.
    pub fn begin(writer: &'a mut Writer<'b>, dir: DirId) -> Option<Self> {
        if writer.room() < SECTION_BYTES + 2 + 255 + ENTRY_BYTES {
            return None;
        }
        let start = writer.at();
        writer.u32(dir.0);
        Status::Part.encode(writer);
        writer.u32(0);
        Some(Self {
            writer,
            start,
            count: 0,
            last_name: [0; 255],
            last_len: 0,
        })
    }

    /// Appends an entry; `false` where it does not fit any more.
    pub fn push(&mut self, entry: &Entry<'_>) -> bool {
        let name = entry.name.bytes();
        let last = &self.last_name[..self.last_len];
        let shared = name.iter().zip(last).take_while(|(a, b)| a == b).count();
        if self.writer.room() < 2 + (name.len() - shared) + ENTRY_BYTES {
            return false;
        }
        self.writer
            .u8(u8::try_from(shared).expect("names have at most 255 bytes"));
        self.writer.name(&name[shared..]);
        self.writer
            .u16(entry.meta.kind.mode_bits() | entry.meta.mode);
        self.writer.u64(entry.size);
        self.writer.i64(entry.meta.mtime.sec);
        self.writer
            .u32(entry.meta.mtime.nsec | if entry.is_suspect { SUSPECT_BIT } else { 0 });
        self.writer.u32(entry.meta.uid);
        self.writer.u32(entry.meta.gid);
        self.count += 1;
        self.last_name[shared..name.len()].copy_from_slice(&name[shared..]);
        self.last_len = name.len();
        true
    }

    /// Ends the section with its status.
    pub fn end(self, status: Status) {
        let mut code = [0; 3];
        status.encode(&mut Writer::new(&mut code));
        for (offset, byte) in code.into_iter().enumerate() {
            self.writer.patch_u8(self.start + 4 + offset, byte);
        }
        self.writer.patch_u32(self.start + 7, self.count);
    }
}

/// The head of a section as it was received.
///
/// ```text
///  0     4        5       7       11
///  | dir | status | errno | count | count entries ...
///  | u32 | u8     | u16   | u32   |
///
///  each entry, its name being `shared` bytes of the one before and the rest:
///  0        1          2+n       4+n    12+n    20+n              24+n  28+n  32+n
///  | shared | rest     | st_mode | size | mtime | nanoseconds     | uid | gid |
///  | u8     | u8 and n | u16     | u64  | i64   | u32, bit 31 is  | u32 | u32 |
///  |        | bytes    |         |      |       | "suspect"       |     |     |
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Section {
    pub dir: DirId,
    pub status: Status,
    pub entries_count: u32,
}

/// Reads the sections of a LISTING payload, entry by entry, in place.
pub struct ListingReader<'a> {
    reader: Reader<'a>,
    name: [u8; 255],
    name_len: usize,
    left: u32,
    has_partials: bool,
}

impl<'a> ListingReader<'a> {
    pub fn new(payload: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(payload, "LISTING frame"),
            name: [0; 255],
            name_len: 0,
            left: 0,
            has_partials: false,
        }
    }

    /// Takes partial files, too, where the session asked for them: the one name of sy's own that travels.
    pub fn with_partials(self, has_partials: bool) -> Self {
        Self {
            has_partials,
            ..self
        }
    }

    /// The next section, once the entries of the one before are read.
    pub fn section(&mut self) -> Result<Option<Section>, WireError> {
        assert_eq!(self.left, 0, "the entries come first");
        if self.reader.is_at_end() {
            return Ok(None);
        }
        let dir = DirId(self.reader.u32()?);
        let status = Status::decode(&mut self.reader)?;
        let entries_count = self.reader.u32()?;
        self.left = entries_count;
        self.name_len = 0;
        Ok(Some(Section {
            dir,
            status,
            entries_count,
        }))
    }

    /// The next entry of the section. Names ascend strictly within a section.
    pub fn entry(&mut self) -> Result<Option<Entry<'_>>, WireError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let shared = usize::from(self.reader.u8()?);
        let suffix_len = usize::from(self.reader.u8()?);
        let suffix = self.reader.bytes(suffix_len)?;
        if shared > self.name_len || shared + suffix.len() > self.name.len() {
            return Err(WireError::Forbidden {
                what: "shared bytes of a name",
                value: shared as u64,
            });
        }
        if self.name_len > 0 && suffix <= &self.name[shared..self.name_len] {
            return Err(WireError::NotAscending);
        }
        self.name[shared..shared + suffix.len()].copy_from_slice(suffix);
        self.name_len = shared + suffix.len();
        let st_mode = self.reader.u16()?;
        let kind = Kind::from_mode(st_mode).ok_or(WireError::Forbidden {
            what: "file type",
            value: u64::from(st_mode),
        })?;
        let size = self.reader.u64()?;
        let sec = self.reader.i64()?;
        let nsec = self.reader.u32()?;
        let mtime = Mtime::new(sec, nsec & !SUSPECT_BIT).ok_or(WireError::Forbidden {
            what: "nanoseconds",
            value: u64::from(nsec),
        })?;
        let (uid, gid) = self.reader.owners()?;
        let name = &self.name[..self.name_len];
        let is_partial =
            self.has_partials && kind == Kind::File && PartialName::file_of(name).is_some();
        Ok(Some(Entry {
            name: if is_partial {
                Name::any(name)?
            } else {
                Name::new(name)?
            },
            meta: Meta {
                kind,
                mode: st_mode & 0o7777,
                uid,
                gid,
                mtime,
            },
            size,
            ino_low: 0,
            origin: 0,
            is_suspect: nsec & SUSPECT_BIT != 0,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8]) -> Entry<'_> {
        let mtime = Mtime {
            sec: 5,
            nsec: 999_999_999,
        };
        let meta = Meta {
            kind: Kind::File,
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime,
        };
        Entry {
            name: Name::new(name).unwrap(),
            meta,
            size: 7,
            ino_low: 0,
            origin: 0,
            is_suspect: name == b"abd",
        }
    }

    #[test]
    fn sections_come_back_as_they_were_written() {
        let mut payload = [0; 1000];
        let mut writer = Writer::new(&mut payload);
        let mut section = SectionWriter::begin(&mut writer, DirId(3)).unwrap();
        let names = [&b"a"[..], b"abc", b"abd", b"b"];
        for name in names {
            assert!(section.push(&entry(name)));
        }
        section.end(Status::Complete);
        SectionWriter::begin(&mut writer, DirId(4))
            .unwrap()
            .end(Status::Failed(Errno::ACCESS));
        let len = writer.at();

        let mut reader = ListingReader::new(&payload[..len]);
        let section = reader.section().unwrap().unwrap();
        assert_eq!(
            section,
            Section {
                dir: DirId(3),
                status: Status::Complete,
                entries_count: 4
            }
        );
        for name in names {
            assert_eq!(reader.entry().unwrap(), Some(entry(name)));
        }
        assert_eq!(reader.entry().unwrap(), None);
        let status = Status::Failed(Errno::ACCESS);
        assert_eq!(
            reader.section().unwrap(),
            Some(Section {
                dir: DirId(4),
                status,
                entries_count: 0
            })
        );
        assert_eq!(reader.section().unwrap(), None);
    }

    #[test]
    fn of_our_own_names_a_listing_holds_partial_files_where_they_were_asked_for() {
        let partial = b".sy.99aa06d3014798d86001c324468d497f.partial";
        let read = |name: &[u8], kind, has_partials| {
            let mut payload = [0; 400];
            let mut writer = Writer::new(&mut payload);
            let mut section = SectionWriter::begin(&mut writer, DirId(1)).unwrap();
            let mut own = entry(b"a");
            own.name = Name::any(name).unwrap();
            own.meta.kind = kind;
            assert!(section.push(&own));
            section.end(Status::Complete);
            let len = writer.at();
            let mut reader = ListingReader::new(&payload[..len]).with_partials(has_partials);
            reader.section().unwrap();
            reader.entry().map(|entry| entry.is_some())
        };
        assert_eq!(read(partial, Kind::File, true), Ok(true));
        read(partial, Kind::File, false).unwrap_err();
        read(partial, Kind::Dir, true).unwrap_err();
        read(partial, Kind::Symlink, true).unwrap_err();
        read(b".sy.0123456789abcdef.1.tmp", Kind::File, true).unwrap_err();
        read(b".sy.x.partial", Kind::File, true).unwrap_err();
    }

    #[test]
    fn an_errno_belongs_to_a_failure_and_to_nothing_else() {
        let section = |code: u8, errno: u16| {
            let mut payload = [0; 11];
            payload[4] = code;
            payload[5..7].copy_from_slice(&errno.to_le_bytes());
            ListingReader::new(&payload).section().map(drop)
        };
        for code in 0..4 {
            section(code, 0).unwrap();
            section(code, 13).unwrap_err();
        }
        section(4, 4095).unwrap();
        for (code, errno) in [(4, 0), (4, 4096), (5, 0), (5, 13)] {
            section(code, errno).unwrap_err();
        }
    }

    #[test]
    fn an_owner_that_is_no_number_of_anybody_ends_the_session() {
        let nobody = u32::MAX;
        for (uid, gid) in [(nobody, 0), (0, nobody)] {
            let mut payload = [0; 400];
            let mut writer = Writer::new(&mut payload);
            let mut section = SectionWriter::begin(&mut writer, DirId(1)).unwrap();
            let mut owned = entry(b"a");
            (owned.meta.uid, owned.meta.gid) = (uid, gid);
            assert!(section.push(&owned));
            section.end(Status::Complete);
            let len = writer.at();
            let mut reader = ListingReader::new(&payload[..len]);
            reader.section().unwrap();
            reader.entry().unwrap_err();
        }
    }

    #[test]
    fn names_that_do_not_ascend_end_the_session() {
        for pair in [[&b"b"[..], b"a"], [b"a", b"a"], [b"ab", b"a"]] {
            let mut payload = [0; 400];
            let mut writer = Writer::new(&mut payload);
            let mut section = SectionWriter::begin(&mut writer, DirId(1)).unwrap();
            for name in pair {
                assert!(section.push(&entry(name)));
            }
            section.end(Status::Complete);
            let len = writer.at();
            let mut reader = ListingReader::new(&payload[..len]);
            reader.section().unwrap();
            reader.entry().unwrap();
            assert_eq!(reader.entry(), Err(WireError::NotAscending), "{pair:?}");
        }
    }
}
