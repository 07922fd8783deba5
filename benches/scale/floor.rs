//! The floor under a large file's push, written by hand: one end reads and sends, the other receives
//! and writes. No digest, no temporary name, no mode, no time: nobody who does more can be much
//! faster. The bench starts both ends as processes of their own, from its own binary.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::{Doing, Failure, Result};

const BLOCK_BYTES: usize = 256 << 10;
const DONE: u8 = 1;

#[derive(Args)]
pub struct Serve {
    listen: SocketAddr,
    root: PathBuf,
}

#[derive(Args)]
pub struct Push {
    server: SocketAddr,
    /// A flat directory
    source: PathBuf,
    /// Below the server's root
    target: PathBuf,
}

/// One client after the other, for ever.
pub fn serve(options: &Serve) -> Result<bool> {
    let doing = || format!("floor, listening on {}", options.listen);
    let listener = TcpListener::bind(options.listen).doing(doing)?;
    loop {
        let (mut client, _) = listener.accept().doing(doing)?;
        receive(&mut client, &options.root).doing(|| "floor, receiving".into())?;
    }
}

/// A name is its length and its bytes; a file is its name, its length and its bytes. An empty name is
/// the end.
fn receive(client: &mut TcpStream, root: &Path) -> io::Result<()> {
    let Some(target) = receive_name(client)? else {
        return Ok(());
    };
    let target = root.join(target);
    fs::create_dir(&target)?;
    let mut block = vec![0; BLOCK_BYTES];
    while let Some(name) = receive_name(client)? {
        let mut left = [0; 8];
        client.read_exact(&mut left)?;
        let mut left = u64::from_le_bytes(left);
        let mut file = File::create_new(target.join(name))?;
        while left > 0 {
            let room = usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES));
            let got = client.read(&mut block[..room])?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all(&block[..got])?;
            left -= got as u64;
        }
    }
    client.write_all(&[DONE])
}

fn receive_name(client: &mut TcpStream) -> io::Result<Option<PathBuf>> {
    let mut len = [0; 1];
    client.read_exact(&mut len)?;
    let mut name = vec![0; len[0].into()];
    client.read_exact(&mut name)?;
    Ok((!name.is_empty()).then(|| std::ffi::OsString::from_vec(name).into()))
}

pub fn push(options: &Push) -> Result<bool> {
    let doing = || format!("floor, sending {}", options.source.display());
    let mut server = TcpStream::connect(options.server).doing(doing)?;
    send_name(&mut server, options.target.as_os_str().as_bytes()).doing(doing)?;
    let mut block = vec![0; BLOCK_BYTES];
    for entry in fs::read_dir(&options.source).doing(doing)? {
        let entry = entry.doing(doing)?;
        let file = File::open(entry.path()).doing(doing)?;
        send_name(&mut server, entry.file_name().as_bytes()).doing(doing)?;
        send(&mut server, &file, &mut block).doing(doing)?;
    }
    send_name(&mut server, b"").doing(doing)?;
    let mut done = [0];
    server.read_exact(&mut done).doing(doing)?;
    match done {
        [DONE] => Ok(true),
        _ => Err(Failure::Tool("floor: a strange answer".into())),
    }
}

fn send_name(server: &mut TcpStream, name: &[u8]) -> io::Result<()> {
    let len = u8::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidFilename)?;
    server.write_all(&[&[len], name].concat())
}

fn send(server: &mut TcpStream, mut file: &File, block: &mut [u8]) -> io::Result<()> {
    let mut left = file.metadata()?.len();
    server.write_all(&left.to_le_bytes())?;
    while left > 0 {
        let got = file.read(block)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        server.write_all(&block[..got])?;
        left -= got as u64;
    }
    Ok(())
}
