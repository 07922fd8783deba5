//! PACK: an ordered list of operations on the target's tree.

use super::cursor::{META_BYTES, Reader, Writer};
use super::error::WireError;
use crate::limits::{
    DELTA_BLOCK_BYTES_MAX, DELTA_BLOCK_BYTES_MIN, LINK_TARGET_BYTES_MAX, PACK_FILE_BYTES_MAX,
};
use crate::model::entry::{Kind, Meta};
use crate::model::id::{DirId, FileId};
use crate::model::name::Name;

/// Bytes of the longest operation without the content of a file or link.
pub const OP_BYTES_MAX: usize = 1 + 4 + 1 + 255 + META_BYTES + 4 + 8 + 4;

/// One operation. Those of one directory apply in stream order.
///
/// ```text
///  0           1     5
///  | operation | dir | name | then
///  | u8        | u32 | name |
///
///  1 DELETE    room: u8                        0: it makes none
///  2 MKDIR     id: u32 | mode: u16             `dir` is the parent
///  3 FILE      meta | length: u32 ≤ 256 KiB | content
///  4 SYMLINK   meta | target: text ≤ 4095
///  5 NODE      meta | rdev: u64
///  6 META      meta | sets time: flag
///  7 BEGIN     file: u32 | meta | size: u64 | block bytes: u32
///  8 CLOSE     has meta: flag | meta, if 1     no name
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PackOp<'a> {
    /// Removes an entry, with all below it where the session deletes. With `room` something of
    /// another kind will follow under that name; without `--delete` only an empty directory goes.
    Delete {
        dir: DirId,
        name: Name<'a>,
        room: Option<Room>,
    },
    /// Makes a directory, or adopts the one that is there, and declares it as `id`. `mode` holds
    /// until CLOSE.
    MakeDir {
        parent: DirId,
        name: Name<'a>,
        id: DirId,
        mode: u16,
    },
    /// A whole small file.
    File {
        dir: DirId,
        name: Name<'a>,
        meta: Meta,
        content: &'a [u8],
    },
    Symlink {
        dir: DirId,
        name: Name<'a>,
        meta: Meta,
        target: &'a [u8],
    },
    /// A fifo, socket or device.
    Node {
        dir: DirId,
        name: Name<'a>,
        meta: Meta,
        rdev: u64,
    },
    /// Metadata of an entry that is right otherwise; not for directories. Without `sets_time` its
    /// time was right as well, and stays as it is: it shows what somebody does to it meanwhile.
    Meta {
        dir: DirId,
        name: Name<'a>,
        meta: Meta,
        sets_time: bool,
    },
    /// A large file begins; DATA or TOKENS, and END follow. `block_bytes`: the entry of that name is
    /// its basis, in blocks of that size; 0: it has none.
    Begin {
        dir: DirId,
        name: Name<'a>,
        file: FileId,
        meta: Meta,
        size: u64,
        block_bytes: u32,
    },
    /// Nothing more happens in `dir`: its own metadata, if it changed, and the id is retired.
    Close { dir: DirId, meta: Option<Meta> },
}

/// What a DELETE makes room for. Somebody else may have made it since the LISTING: then the name
/// has the kind that it is to have, and stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// What goes is no directory.
    ForDir,
    /// What goes is one.
    ForOther,
}

impl Room {
    /// Its byte in the frame.
    pub fn code(room: Option<Self>) -> u8 {
        match room {
            None => 0,
            Some(Self::ForDir) => 1,
            Some(Self::ForOther) => 2,
        }
    }

    pub fn from_code(code: u8) -> Option<Option<Self>> {
        match code {
            0 => Some(None),
            1 => Some(Some(Self::ForDir)),
            2 => Some(Some(Self::ForOther)),
            _ => None,
        }
    }

    /// Whether what stands is still what is in its way.
    pub fn is_taken_by(self, kind: Kind) -> bool {
        (self == Self::ForOther) == (kind == Kind::Dir)
    }
}

impl PackOp<'_> {
    /// The metadata that it sets.
    pub fn meta_mut(&mut self) -> Option<&mut Meta> {
        match self {
            Self::File { meta, .. }
            | Self::Symlink { meta, .. }
            | Self::Node { meta, .. }
            | Self::Meta { meta, .. }
            | Self::Begin { meta, .. } => Some(meta),
            Self::Close { meta, .. } => meta.as_mut(),
            Self::Delete { .. } | Self::MakeDir { .. } => None,
        }
    }
}

const DELETE: u8 = 1;
const MAKE_DIR: u8 = 2;
const FILE: u8 = 3;
const SYMLINK: u8 = 4;
const NODE: u8 = 5;
const META: u8 = 6;
const BEGIN: u8 = 7;
const CLOSE: u8 = 8;

impl<'a> PackOp<'a> {
    pub fn encode(&self, writer: &mut Writer<'_>) {
        match *self {
            Self::Delete { dir, name, room } => {
                placed(writer, DELETE, dir, name);
                writer.u8(Room::code(room));
            }
            Self::MakeDir {
                parent,
                name,
                id,
                mode,
            } => {
                placed(writer, MAKE_DIR, parent, name);
                writer.u32(id.0);
                writer.u16(mode);
            }
            Self::File {
                dir,
                name,
                ref meta,
                content,
            } => {
                let len_at = encode_file_head(writer, dir, name, meta);
                writer.bytes(content);
                finish_file(writer, len_at, content.len());
            }
            Self::Symlink {
                dir,
                name,
                ref meta,
                target,
            } => {
                placed(writer, SYMLINK, dir, name);
                writer.meta(meta);
                writer.text(target, LINK_TARGET_BYTES_MAX);
            }
            Self::Node {
                dir,
                name,
                ref meta,
                rdev,
            } => {
                placed(writer, NODE, dir, name);
                writer.meta(meta);
                writer.u64(rdev);
            }
            Self::Meta {
                dir,
                name,
                ref meta,
                sets_time,
            } => {
                placed(writer, META, dir, name);
                writer.meta(meta);
                writer.u8(u8::from(sets_time));
            }
            Self::Begin {
                dir,
                name,
                file,
                ref meta,
                size,
                block_bytes,
            } => {
                placed(writer, BEGIN, dir, name);
                writer.u32(file.0);
                writer.meta(meta);
                writer.u64(size);
                writer.u32(block_bytes);
            }
            Self::Close { dir, ref meta } => {
                writer.u8(CLOSE);
                writer.u32(dir.0);
                writer.u8(u8::from(meta.is_some()));
                if let Some(meta) = meta {
                    writer.meta(meta);
                }
            }
        }
    }

    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let tag = reader.u8()?;
        let dir = DirId(reader.u32()?);
        if tag == CLOSE {
            let meta = if flag(reader, "CLOSE flag")? {
                Some(reader.meta()?)
            } else {
                None
            };
            return Ok(Self::Close { dir, meta });
        }
        let name = reader.name()?;
        Ok(match tag {
            DELETE => Self::Delete {
                dir,
                name,
                room: room(reader)?,
            },
            MAKE_DIR => {
                let id = DirId(reader.u32()?);
                let mode = reader.u16()?;
                if mode > 0o7777 {
                    return Err(WireError::Forbidden {
                        what: "mode",
                        value: u64::from(mode),
                    });
                }
                Self::MakeDir {
                    parent: dir,
                    name,
                    id,
                    mode,
                }
            }
            FILE => {
                let meta = reader.meta()?;
                let len = reader.u32()?;
                let bytes = usize::try_from(len).unwrap_or(usize::MAX);
                if bytes > PACK_FILE_BYTES_MAX {
                    return Err(WireError::Forbidden {
                        what: "length of a packed file",
                        value: u64::from(len),
                    });
                }
                Self::File {
                    dir,
                    name,
                    meta,
                    content: reader.bytes(bytes)?,
                }
            }
            SYMLINK => {
                let meta = reader.meta()?;
                let target = reader.text(LINK_TARGET_BYTES_MAX)?;
                if target.is_empty() || target.contains(&0) {
                    return Err(WireError::Forbidden {
                        what: "link target",
                        value: 0,
                    });
                }
                Self::Symlink {
                    dir,
                    name,
                    meta,
                    target,
                }
            }
            NODE => Self::Node {
                dir,
                name,
                meta: reader.meta()?,
                rdev: reader.u64()?,
            },
            META => Self::Meta {
                dir,
                name,
                meta: reader.meta()?,
                sets_time: flag(reader, "META flag")?,
            },
            BEGIN => {
                let file = FileId(reader.u32()?);
                let meta = reader.meta()?;
                let size = reader.u64()?;
                if i64::try_from(size).is_err() {
                    return Err(WireError::Forbidden {
                        what: "file size",
                        value: size,
                    });
                }
                let block_bytes = reader.u32()?;
                let sizes = DELTA_BLOCK_BYTES_MIN..=DELTA_BLOCK_BYTES_MAX;
                let is_block = block_bytes.is_power_of_two() && sizes.contains(&block_bytes);
                if block_bytes != 0 && !is_block {
                    return Err(WireError::Forbidden {
                        what: "size of a block",
                        value: u64::from(block_bytes),
                    });
                }
                Self::Begin {
                    dir,
                    name,
                    file,
                    meta,
                    size,
                    block_bytes,
                }
            }
            other => {
                return Err(WireError::Forbidden {
                    what: "PACK operation",
                    value: u64::from(other),
                });
            }
        })
    }
}

/// Writes a FILE operation up to its content, which the caller puts behind it. Returns what
/// `finish_file` wants.
pub fn encode_file_head(writer: &mut Writer<'_>, dir: DirId, name: Name<'_>, meta: &Meta) -> usize {
    placed(writer, FILE, dir, name);
    writer.meta(meta);
    let len_at = writer.at();
    writer.u32(0);
    len_at
}

/// Enters the length of the content that now stands behind a FILE operation's head.
pub fn finish_file(writer: &mut Writer<'_>, len_at: usize, content_bytes: usize) {
    writer.patch_u32(
        len_at,
        u32::try_from(content_bytes).expect("packed files are small"),
    );
}

fn placed(writer: &mut Writer<'_>, tag: u8, dir: DirId, name: Name<'_>) {
    writer.u8(tag);
    writer.u32(dir.0);
    writer.name(name.bytes());
}

fn room(reader: &mut Reader<'_>) -> Result<Option<Room>, WireError> {
    let code = reader.u8()?;
    Room::from_code(code).ok_or(WireError::Forbidden {
        what: "room that DELETE makes",
        value: u64::from(code),
    })
}

fn flag(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(WireError::Forbidden {
            what,
            value: u64::from(other),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Mtime;

    fn ops() -> Vec<PackOp<'static>> {
        let name = Name::new(b"n\xff").unwrap();
        let meta = Meta {
            kind: Kind::File,
            mode: 0o6755,
            uid: 3,
            gid: 4,
            mtime: Mtime { sec: -1, nsec: 5 },
        };
        let dir = DirId(7);
        vec![
            PackOp::Delete {
                dir,
                name,
                room: None,
            },
            PackOp::Delete {
                dir,
                name,
                room: Some(Room::ForDir),
            },
            PackOp::Delete {
                dir,
                name,
                room: Some(Room::ForOther),
            },
            PackOp::MakeDir {
                parent: dir,
                name,
                id: DirId(8),
                mode: 0o700,
            },
            PackOp::File {
                dir,
                name,
                meta,
                content: b"hello",
            },
            PackOp::File {
                dir,
                name,
                meta,
                content: b"",
            },
            PackOp::Symlink {
                dir,
                name,
                meta: Meta {
                    kind: Kind::Symlink,
                    ..meta
                },
                target: b"../x",
            },
            PackOp::Node {
                dir,
                name,
                meta: Meta {
                    kind: Kind::Fifo,
                    ..meta
                },
                rdev: 9,
            },
            PackOp::Meta {
                dir,
                name,
                meta,
                sets_time: false,
            },
            PackOp::Meta {
                dir,
                name,
                meta,
                sets_time: true,
            },
            PackOp::Begin {
                dir,
                name,
                file: FileId(1),
                meta,
                size: 1 << 40,
                block_bytes: 8192,
            },
            PackOp::Close {
                dir,
                meta: Some(meta),
            },
            PackOp::Close { dir, meta: None },
        ]
    }

    #[test]
    fn operations_come_back_as_they_were_written() {
        let mut payload = vec![0; 4000];
        let mut writer = Writer::new(&mut payload);
        ops().iter().for_each(|op| op.encode(&mut writer));
        let len = writer.at();
        let mut reader = Reader::new(&payload[..len], "PACK frame");
        for op in ops() {
            assert_eq!(PackOp::decode(&mut reader), Ok(op));
        }
        reader.finish().unwrap();
    }

    #[test]
    fn blocks_of_another_size_are_refused() {
        for (block_bytes, is_legal) in [
            (0, true),
            (4096, true),
            (262_144, true),
            (1, false),
            (2048, false),
            (5000, false),
            (524_288, false),
            (u32::MAX, false),
        ] {
            let begin = ops()
                .into_iter()
                .find(|op| matches!(op, PackOp::Begin { .. }));
            let Some(PackOp::Begin {
                dir,
                name,
                file,
                meta,
                size,
                ..
            }) = begin
            else {
                unreachable!("one of them is a BEGIN")
            };
            let op = PackOp::Begin {
                dir,
                name,
                file,
                meta,
                size,
                block_bytes,
            };
            let mut payload = vec![0; OP_BYTES_MAX];
            let mut writer = Writer::new(&mut payload);
            op.encode(&mut writer);
            let decoded = PackOp::decode(&mut Reader::new(&payload, "PACK frame"));
            assert_eq!(decoded.is_ok(), is_legal, "{block_bytes}");
        }
    }

    #[test]
    fn an_operation_cut_anywhere_is_an_error() {
        for op in ops() {
            let mut payload = vec![0; 400];
            let mut writer = Writer::new(&mut payload);
            op.encode(&mut writer);
            let len = writer.at();
            for cut in 0..len {
                assert!(PackOp::decode(&mut Reader::new(&payload[..cut], "PACK frame")).is_err());
            }
        }
    }
}
