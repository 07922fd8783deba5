//! `Dest`: where a push goes, read from what was typed.

use super::plan::{PlanError, Wrong, wrong};
use super::rsh;
use crate::limits::{DEST_COMPONENTS_MAX, PORT_DEFAULT, SOCKET_DEFAULT, SOCKET_PATH_BYTES_MAX};
use crate::model::escape;
use crate::model::module::ModuleName;
use crate::model::name::Name;

/// Where the push goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dest {
    /// A path on this host, as typed.
    Local { path: Vec<u8> },
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        port: u16,
        module: ModuleName,
        /// Below the module's root, component by component; each is a `Name`.
        path: Vec<Vec<u8>>,
    },
    Unix {
        socket: Vec<u8>,
        module: ModuleName,
        path: Vec<Vec<u8>>,
    },
    /// A server that a remote shell starts.
    Shell {
        /// The whole command, word by word.
        command: Vec<Vec<u8>>,
        /// `[user@]host`.
        host: String,
        /// `None`: the user's own file system.
        module: Option<ModuleName>,
        path: Vec<Vec<u8>>,
        /// `path` begins in the user's home there.
        is_relative: bool,
    },
}

impl Dest {
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local { .. })
    }

    /// For people: what messages about the connection begin with.
    pub fn place(&self) -> String {
        match self {
            Self::Local { path } => escape::name(path).to_string(),
            Self::Tcp { host, port, .. } if host.contains(':') => format!("sy://[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("sy://{host}:{port}"),
            Self::Unix { socket, .. } => escape::name(socket).to_string(),
            Self::Shell { host, .. } => escape::name(host.as_bytes()).to_string(),
        }
    }
}

pub(super) const URL_PREFIX: &[u8] = b"sy://";

/// DEST, and whether it was written as a directory.
pub(super) fn dest(
    typed: Vec<u8>,
    socket: Option<Vec<u8>>,
    shell: &Shell,
) -> Result<(Dest, bool), PlanError> {
    let (mut dest, is_dir) = read_dest(&typed, shell).map_err(|why| {
        let is_of_shell = matches!(why, Wrong::RshEmpty | Wrong::RshQuote(_));
        wrong(if is_of_shell { shell.typed() } else { &typed }, why)
    })?;
    match (&mut dest, socket) {
        (Dest::Unix { .. }, Some(named)) if named.is_empty() => {
            return Err(wrong(b"--socket", Wrong::Empty));
        }
        (Dest::Unix { .. }, Some(named)) if named.len() > SOCKET_PATH_BYTES_MAX => {
            return Err(wrong(&named, Wrong::SocketLong));
        }
        (Dest::Unix { socket, .. }, Some(named)) => *socket = named,
        (Dest::Local { .. } | Dest::Tcp { .. } | Dest::Shell { .. }, Some(named)) => {
            return Err(wrong(&named, Wrong::SocketUnused));
        }
        (Dest::Local { .. } | Dest::Tcp { .. } | Dest::Unix { .. } | Dest::Shell { .. }, None) => {}
    }
    Ok((dest, is_dir))
}

fn read_dest(typed: &[u8], shell: &Shell) -> Result<(Dest, bool), Wrong> {
    if let Some(url) = typed.strip_prefix(URL_PREFIX) {
        let slash = url.iter().position(|byte| *byte == b'/');
        let (authority, rest) = url.split_at(slash.unwrap_or(url.len()));
        let place = rest.strip_prefix(b"/").unwrap_or_default();
        if !authority.is_empty() {
            let (host, port) = host_port(authority)?;
            return tcp(host, port, place);
        }
        let (module, path, is_dir) = module_path(place)?;
        let socket = SOCKET_DEFAULT.as_bytes().to_vec();
        let unix = Dest::Unix {
            socket,
            module,
            path,
        };
        return Ok((unix, is_dir));
    }
    if let Some(remote) = remote_parts(typed) {
        if remote.after.starts_with(b"//") {
            return Err(Wrong::Scheme);
        }
        let Some(place) = remote.after.strip_prefix(b":") else {
            return shell.to_path(remote.host, remote.after);
        };
        // As in rsync, only a shell that was asked for stands before a module.
        return match &shell.asked {
            Some(_) => shell.to_module(remote.host, place),
            None => tcp(host(remote.host)?, PORT_DEFAULT, place),
        };
    }
    let last = typed.rsplit(|byte| *byte == b'/').next();
    let is_dir = matches!(last, Some(b"" | b"." | b".."));
    Ok((
        Dest::Local {
            path: typed.to_vec(),
        },
        is_dir,
    ))
}

/// How another host is reached by a remote shell.
pub(super) struct Shell {
    /// `--rsh`.
    pub asked: Option<Vec<u8>>,
    /// `SY_RSH`; empty is as good as none.
    pub usual: Option<Vec<u8>>,
    /// Read by the shell over there.
    pub sy_path: Vec<u8>,
}

impl Shell {
    fn typed(&self) -> &[u8] {
        let usual = self.usual.as_deref().filter(|usual| !usual.is_empty());
        self.asked.as_deref().or(usual).unwrap_or(b"ssh")
    }

    fn to_path(&self, who: &[u8], typed: &[u8]) -> Result<(Dest, bool), Wrong> {
        let (below, is_relative) = match typed.strip_prefix(b"~") {
            Some(below @ (b"" | [b'/', ..])) => (below, true),
            Some(_) => return Err(Wrong::Tilde),
            None => (typed, !typed.starts_with(b"/")),
        };
        let (path, is_dir) = components(below.split(|byte| *byte == b'/'), Wrong::DotDotThere)?;
        let (command, host) = self.command(who)?;
        let dest = Dest::Shell {
            command,
            host,
            module: None,
            path,
            is_relative,
        };
        Ok((dest, is_dir))
    }

    fn to_module(&self, who: &[u8], place: &[u8]) -> Result<(Dest, bool), Wrong> {
        let (module, path, is_dir) = module_path(place)?;
        let (command, host) = self.command(who)?;
        let dest = Dest::Shell {
            command,
            host,
            module: Some(module),
            path,
            is_relative: false,
        };
        Ok((dest, is_dir))
    }

    /// `RSH [-l user] host SY_PATH --stdio`, and whom it reaches. Nothing of DEST's path is in it:
    /// the shell over there would read it.
    fn command(&self, who: &[u8]) -> Result<(Vec<Vec<u8>>, String), Wrong> {
        let (user, host_part) = match who.iter().rposition(|byte| *byte == b'@') {
            Some(0) => return Err(Wrong::Host),
            Some(at) => (Some(&who[..at]), &who[at + 1..]),
            None => (None, who),
        };
        let host = host(host_part)?;
        if host.starts_with('-') || user.is_some_and(|user| user.starts_with(b"-")) {
            return Err(Wrong::Dash);
        }
        let mut command = rsh::words(self.typed()).map_err(Wrong::RshQuote)?;
        if command.first().is_none_or(Vec::is_empty) {
            return Err(Wrong::RshEmpty);
        }
        if let Some(user) = user {
            command.extend([b"-l".to_vec(), user.to_vec()]);
        }
        command.push(host.clone().into_bytes());
        command.extend([self.sy_path.clone(), b"--stdio".to_vec()]);
        let shown = match user {
            Some(user) => format!("{}@{host}", String::from_utf8_lossy(user)),
            None => host,
        };
        Ok((command, shown))
    }
}

fn tcp(host: String, port: u16, place: &[u8]) -> Result<(Dest, bool), Wrong> {
    let (module, path, is_dir) = module_path(place)?;
    let dest = Dest::Tcp {
        host,
        port,
        module,
        path,
    };
    Ok((dest, is_dir))
}

/// `host:after`, where the colon stands before the first slash or behind an address in brackets.
pub(super) struct RemoteParts<'a> {
    host: &'a [u8],
    after: &'a [u8],
}

pub(super) fn remote_parts(typed: &[u8]) -> Option<RemoteParts<'_>> {
    let host_start = typed.iter().position(|byte| matches!(byte, b'@' | b'/'));
    let bracket_start = match host_start {
        Some(at) if typed[at] == b'@' => at + 1,
        Some(_) | None => 0,
    };
    let bracketed_bytes = match &typed[bracket_start..] {
        bracketed @ [b'[', ..] => bracketed.windows(2).position(|pair| pair == b"]:"),
        _ => None,
    };
    let colon = match bracketed_bytes {
        Some(bytes) => bracket_start + bytes + 1,
        None => {
            let stop = typed.iter().position(|byte| matches!(byte, b':' | b'/'))?;
            if typed[stop] == b'/' {
                return None;
            }
            stop
        }
    };
    Some(RemoteParts {
        host: &typed[..colon],
        after: &typed[colon + 1..],
    })
}

fn host_port(authority: &[u8]) -> Result<(String, u16), Wrong> {
    let after_bracket = authority
        .iter()
        .rposition(|byte| *byte == b']')
        .unwrap_or(0);
    let colon = authority[after_bracket..]
        .iter()
        .position(|byte| *byte == b':');
    let Some(colon) = colon.map(|at| after_bracket + at) else {
        return Ok((host(authority)?, PORT_DEFAULT));
    };
    let host = host(&authority[..colon])?;
    let digits = &authority[colon + 1..];
    if digits.contains(&b':') {
        // An IPv6 address without brackets: where the port begins is anybody's guess.
        return Err(Wrong::Host);
    }
    let port = str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .filter(|port| *port != 0)
        .ok_or(Wrong::Port)?;
    Ok((host, port))
}

/// A name or an address, its brackets taken off.
fn host(bytes: &[u8]) -> Result<String, Wrong> {
    if bytes.contains(&b'@') {
        return Err(Wrong::User);
    }
    let inner = match bytes {
        [b'[', inner @ .., b']'] if inner.contains(&b':') => inner,
        [b'[', ..] => return Err(Wrong::Host),
        _ if bytes.contains(&b':') => return Err(Wrong::Host),
        _ => bytes,
    };
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(byte);
    match str::from_utf8(inner) {
        Ok(host) if !host.is_empty() && inner.iter().all(is_plain) => Ok(host.to_owned()),
        Ok(_) | Err(_) => Err(Wrong::Host),
    }
}

type ModulePath = (ModuleName, Vec<Vec<u8>>, bool);

/// `module/path`: the module, the components below it, and whether they must be a directory.
fn module_path(place: &[u8]) -> Result<ModulePath, Wrong> {
    let mut parts = place.split(|byte| *byte == b'/');
    let module = match parts.next() {
        Some(b"") | None => return Err(Wrong::NoModule),
        Some(module) => ModuleName::new(module).map_err(Wrong::Module)?,
    };
    let (path, is_dir) = components(parts, Wrong::DotDot)?;
    Ok((module, path, is_dir))
}

/// The parts of a path that name something, and whether it ends as a directory.
fn components<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    dot_dot: Wrong,
) -> Result<(Vec<Vec<u8>>, bool), Wrong> {
    let mut path = Vec::new();
    let mut is_dir = true;
    for part in parts {
        is_dir = matches!(part, b"" | b".");
        if part == b".." {
            return Err(dot_dot);
        } else if !is_dir {
            Name::new(part).map_err(Wrong::DestName)?;
            path.push(part.to_vec());
        }
    }
    if path.len() > DEST_COMPONENTS_MAX {
        return Err(Wrong::TooDeep);
    }
    Ok((path, is_dir))
}
