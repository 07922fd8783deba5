//! `sy push` and `sy-server` as black boxes. One binary, so that it is linked once; a file per
//! topic. Each scenario that can be is played embedded, over TCP and over a UNIX socket.

mod acceptance;
mod delete;
mod metadata;
mod names;
mod sources;
mod types;
