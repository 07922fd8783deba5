//! `ServerConfig`: what the command line and the config file mean, checked before any work.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::Deserialize;

use super::args::ServerArgs;
use super::operator_file::{self, OperatorFileError};
use crate::engine::posix::{EngineChoice, UnknownEngine};
use crate::limits::{
    CONFIG_BYTES_MAX, POOL_THREADS_MAX, PORT_DEFAULT, SHARDS_MAX, SOCKET_DEFAULT,
    SOCKET_PATH_BYTES_MAX,
};
use crate::model::escape;
use crate::model::module::{Module, ModuleName, ModuleNameError, ModuleTable};

/// A server, ready to be started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    pub doors: Doors,
    /// At least one, unless there is no other door than stdin.
    pub modules: ModuleTable,
    /// `None`: what this host bears.
    pub max_connections: Option<u32>,
    /// Event loops; `None`: one per core.
    pub shards: Option<u16>,
    /// `None`: what the engine finds right.
    pub pool_threads: Option<u16>,
    pub engine: EngineChoice,
}

/// How a peer gets in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Doors {
    /// One session on stdin and stdout, for whoever started this process.
    Stdio,
    /// At least one.
    Listen(Vec<Listen>),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listen {
    /// Created with mode 0600.
    Unix { socket: PathBuf },
    /// A loopback address, without authentication.
    Tcp { address: SocketAddr },
}

impl Listen {
    /// What it is called in messages.
    pub fn place(&self) -> String {
        match self {
            Self::Unix { socket } => socket.display().to_string(),
            Self::Tcp { address } => address.to_string(),
        }
    }
}

/// A setting that can't be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {wrong}", escape::name(what))]
pub struct ConfigError {
    /// The argument, the file, or the module as it was written.
    pub what: Vec<u8>,
    pub wrong: Wrong,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Wrong {
    #[error("nothing to serve: no module is named")]
    NoModules,
    #[error("cannot be a module: there is no '='")]
    NoEquals,
    #[error("cannot be a module: {0}")]
    ModuleName(ModuleNameError),
    #[error("cannot be a module: this name is taken")]
    ModuleTwice,
    #[error("cannot be a module: its path is not absolute")]
    NotAbsolute,
    #[error("cannot be a module: its path is not a directory")]
    NotDir,
    #[error("cannot be a module: its path can't be used: {0}")]
    Root(Errno),
    #[error("cannot listen: not an address with a port")]
    Address,
    #[error("cannot listen: not a loopback address, and there are no identities in this version")]
    NotLoopback,
    #[error("cannot listen: TCP connections have no identity in this version")]
    NeedsNoAuth,
    #[error("has no use: there is nothing to listen on but the UNIX socket")]
    NoAuthUnused,
    #[error("cannot listen: the path is empty or longer than {SOCKET_PATH_BYTES_MAX} bytes")]
    SocketPath,
    #[error("{0}")]
    File(OperatorFileError),
    /// The parser's own words, which tell line and column.
    #[error("cannot be understood: {}", escape::text(.0.as_bytes()))]
    Toml(String),
    #[error("is not from 1 to {0}")]
    Range(u32),
    #[error("{0}")]
    Engine(UnknownEngine),
}

impl Wrong {
    /// What to try.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoModules | Self::NoEquals => Some("sy-server --module backup=/srv/backup,rw"),
            Self::NotDir => Some("make the directory; behind the path only ',rw' has a meaning"),
            Self::NotAbsolute => Some("a path that begins with '/'"),
            Self::Address => Some("--listen 127.0.0.1:7873, or --listen [::1]:7873"),
            Self::NotLoopback => {
                Some("--listen 127.0.0.1:7873 --no-auth, and an ssh tunnel from other hosts")
            }
            Self::NeedsNoAuth => {
                Some("--no-auth, if every user of this host may use the modules; or --socket PATH")
            }
            Self::NoAuthUnused => Some("leave it out, or add --listen 127.0.0.1:7873"),
            Self::File(OperatorFileError::Writable(_)) => Some("chmod go-w"),
            Self::ModuleName(_)
            | Self::ModuleTwice
            | Self::Root(_)
            | Self::SocketPath
            | Self::File(_)
            | Self::Toml(_)
            | Self::Range(_)
            | Self::Engine(_) => None,
        }
    }
}

/// The config file. The command line goes first; modules and addresses of both count.
#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    socket: Option<PathBuf>,
    #[serde(default)]
    listen: Vec<String>,
    #[serde(default)]
    no_auth: bool,
    /// These three in any number that TOML has, so that one out of range hears the range.
    max_connections: Option<i64>,
    shards: Option<i64>,
    pool_threads: Option<i64>,
    engine: Option<String>,
    #[serde(default)]
    module: BTreeMap<String, ModuleEntry>,
}

#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct ModuleEntry {
    path: PathBuf,
    #[serde(default = "yes")]
    read_only: bool,
}

fn yes() -> bool {
    true
}

impl ServerConfig {
    /// Reads the config file, if one is named, and looks at the modules' directories.
    pub fn new(args: ServerArgs) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => read_file(Path::new(path))?,
            None => ConfigFile::default(),
        };
        let mut modules = ModuleTable::default();
        for typed in &args.modules {
            let module = typed_module(typed.as_bytes()).map_err(|why| wrong(typed, why))?;
            insert(&mut modules, module)?;
        }
        for (name, entry) in file.module {
            let made = module(name.as_bytes(), entry.path, entry.read_only);
            insert(&mut modules, made.map_err(|why| wrong(&name, why))?)?;
        }
        // Who named a file meant modules: without any, DEST could be anywhere.
        if modules.is_empty() && (!args.stdio || args.config.is_some()) {
            return Err(wrong("--module", Wrong::NoModules));
        }
        let socket = args.socket.map(PathBuf::from).or(file.socket);
        let addresses = [args.listen, file.listen].concat();
        Ok(Self {
            doors: if args.stdio {
                Doors::Stdio
            } else {
                Doors::Listen(listeners(socket, &addresses, args.no_auth || file.no_auth)?)
            },
            modules,
            max_connections: in_range(
                "max_connections",
                args.max_connections
                    .map(Into::into)
                    .or(file.max_connections),
                u32::MAX,
            )?,
            shards: in_range(
                "shards",
                args.shards.map(Into::into).or(file.shards),
                SHARDS_MAX,
            )?,
            pool_threads: in_range(
                "pool_threads",
                args.pool_threads.map(Into::into).or(file.pool_threads),
                POOL_THREADS_MAX,
            )?,
            engine: match (args.engine, file.engine) {
                (Some(engine), _) => engine,
                (None, Some(name)) => name.parse().map_err(|unknown| {
                    wrong(format!("engine = {name:?}"), Wrong::Engine(unknown))
                })?,
                (None, None) => EngineChoice::default(),
            },
        })
    }
}

fn wrong(what: impl AsRef<std::ffi::OsStr>, wrong: Wrong) -> ConfigError {
    ConfigError {
        what: what.as_ref().as_bytes().to_vec(),
        wrong,
    }
}

fn read_file(path: &Path) -> Result<ConfigFile, ConfigError> {
    let bytes = operator_file::read(path, CONFIG_BYTES_MAX)
        .map_err(|error| wrong(path, Wrong::File(error)))?;
    parse(&bytes).map_err(|why| wrong(path, why))
}

fn parse(bytes: &[u8]) -> Result<ConfigFile, Wrong> {
    let text = str::from_utf8(bytes).map_err(|error| Wrong::Toml(error.to_string()))?;
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| {
            1 + text[..span.start].bytes().filter(|b| *b == b'\n').count()
        });
        Wrong::Toml(format!("line {line}: {}", error.message()))
    })
}

fn in_range<N>(name: &str, number: Option<i64>, max: N) -> Result<Option<N>, ConfigError>
where
    N: Copy + PartialOrd + Default + TryFrom<i64> + Into<u32>,
{
    let Some(typed) = number else {
        return Ok(None);
    };
    match N::try_from(typed) {
        Ok(count) if count > N::default() && count <= max => Ok(Some(count)),
        Ok(_) | Err(_) => Err(wrong(format!("{name} = {typed}"), Wrong::Range(max.into()))),
    }
}

fn listeners(
    socket: Option<PathBuf>,
    addresses: &[String],
    no_auth: bool,
) -> Result<Vec<Listen>, ConfigError> {
    if no_auth && addresses.is_empty() {
        return Err(wrong("--no-auth", Wrong::NoAuthUnused));
    }
    let mut listeners = Vec::new();
    let default = || addresses.is_empty().then(|| PathBuf::from(SOCKET_DEFAULT));
    if let Some(socket) = socket.or_else(default) {
        if !(1..=SOCKET_PATH_BYTES_MAX).contains(&socket.as_os_str().len()) {
            return Err(wrong(socket, Wrong::SocketPath));
        }
        listeners.push(Listen::Unix { socket });
    }
    for typed in addresses {
        let address = address(typed).map_err(|why| wrong(typed, why))?;
        if !no_auth {
            return Err(wrong(typed, Wrong::NeedsNoAuth));
        }
        listeners.push(Listen::Tcp { address });
    }
    Ok(listeners)
}

fn address(typed: &str) -> Result<SocketAddr, Wrong> {
    let bare = typed.trim_start_matches('[').trim_end_matches(']');
    let address = match (typed.parse(), bare.parse::<IpAddr>()) {
        (Ok(address), _) => address,
        (Err(_), Ok(ip)) => SocketAddr::new(ip, PORT_DEFAULT),
        (Err(_), Err(_)) => return Err(Wrong::Address),
    };
    if address.ip().to_canonical().is_loopback() {
        Ok(address)
    } else {
        Err(Wrong::NotLoopback)
    }
}

fn insert(modules: &mut ModuleTable, module: Module) -> Result<(), ConfigError> {
    modules.insert(module).map_err(|twice| ConfigError {
        what: twice.name.bytes().to_vec(),
        wrong: Wrong::ModuleTwice,
    })
}

/// `NAME=PATH[,rw]`
fn typed_module(typed: &[u8]) -> Result<Module, Wrong> {
    let equals = typed.iter().position(|byte| *byte == b'=');
    let equals = equals.ok_or(Wrong::NoEquals)?;
    let (name, path) = (&typed[..equals], &typed[equals + 1..]);
    let (path, read_only) = match path.strip_suffix(b",rw") {
        Some(path) => (path, false),
        None => (path, true),
    };
    module(name, OsString::from_vec(path.to_vec()).into(), read_only)
}

fn module(name: &[u8], root: PathBuf, read_only: bool) -> Result<Module, Wrong> {
    let name = ModuleName::new(name).map_err(Wrong::ModuleName)?;
    if !root.is_absolute() {
        return Err(Wrong::NotAbsolute);
    }
    match std::fs::metadata(&root) {
        Ok(metadata) if metadata.is_dir() => Ok(Module {
            name,
            root,
            read_only,
        }),
        Ok(_) => Err(Wrong::NotDir),
        Err(error) => match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
            Errno::NOENT | Errno::NOTDIR => Err(Wrong::NotDir),
            errno => Err(Wrong::Root(errno)),
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::testing::Dir;
    use super::*;

    fn config(args: &[&str]) -> Result<ServerConfig, ConfigError> {
        ServerConfig::new(ServerArgs::try_parse_from(["sy-server"].iter().chain(args)).unwrap())
    }

    fn error(args: &[&str]) -> Wrong {
        config(args).unwrap_err().wrong
    }

    fn with_file(text: &str, args: &[&str]) -> Result<ServerConfig, ConfigError> {
        let dir = Dir::new("config");
        let option = format!("--config={}", dir.write("sy.toml", text).display());
        config(&[&[option.as_str()], args].concat())
    }

    #[test]
    fn modules_are_read_only_unless_said_otherwise() {
        let config = config(&["--module=a=/tmp", "--module", "b=/,rw"]).unwrap();
        let a = config.modules.get(b"a").unwrap();
        assert_eq!((a.root.as_path(), a.read_only), (Path::new("/tmp"), true));
        assert!(!config.modules.get(b"b").unwrap().read_only);
    }

    #[test]
    fn a_unix_socket_is_the_only_default_listener() {
        let unix = |path: &str| Listen::Unix {
            socket: PathBuf::from(path),
        };
        let tcp = |address: &str| Listen::Tcp {
            address: address.parse().unwrap(),
        };
        let listeners = |args: &[&str]| {
            let all = [&["--module=a=/tmp"], args].concat();
            match config(&all).unwrap().doors {
                Doors::Listen(listeners) => listeners,
                Doors::Stdio => panic!("nobody asked for it"),
            }
        };
        assert_eq!(listeners(&[]), [unix(SOCKET_DEFAULT)]);
        assert_eq!(listeners(&["--socket=/s"]), [unix("/s")]);
        assert_eq!(
            listeners(&["--listen=127.0.0.1:1", "--listen=::1", "--no-auth"]),
            [tcp("127.0.0.1:1"), tcp("[::1]:7873")]
        );
        assert_eq!(
            listeners(&["--listen=[::1]", "--socket=/s", "--no-auth"]),
            [unix("/s"), tcp("[::1]:7873")]
        );
    }

    #[test]
    fn tcp_is_loopback_only_and_must_be_asked_for() {
        let listen = |address: &str| {
            let option = format!("--listen={address}");
            error(&["--module=a=/tmp", "--no-auth", &option])
        };
        for open in [
            "0.0.0.0:1",
            "192.168.0.1:1",
            "[::]:1",
            "[::ffff:10.0.0.1]:1",
        ] {
            assert_eq!(listen(open), Wrong::NotLoopback, "{open}");
        }
        for bad in ["", "localhost", "127.0.0.1:x", "127.0.0.1:70000", ":1"] {
            assert_eq!(listen(bad), Wrong::Address, "{bad}");
        }
        let without = error(&["--module=a=/tmp", "--listen=127.0.0.1:1"]);
        assert_eq!(without, Wrong::NeedsNoAuth);
        let unused = error(&["--module=a=/tmp", "--no-auth"]);
        assert_eq!(unused, Wrong::NoAuthUnused);
    }

    #[test]
    fn a_server_on_stdin_needs_no_module_but_a_file_must_name_one() {
        let all = config(&["--stdio"]).unwrap();
        assert!(all.doors == Doors::Stdio && all.modules.is_empty());
        let one = config(&["--stdio", "--module=a=/tmp"]).unwrap();
        assert_eq!((one.doors, one.modules.len()), (Doors::Stdio, 1));
        let text = "listen = ['127.0.0.1:5']\n[module.a]\npath = '/tmp'";
        let file = with_file(text, &["--stdio"]).unwrap();
        assert_eq!((file.doors, file.modules.len()), (Doors::Stdio, 1));
        let none = with_file("no_auth = true", &["--stdio"]).unwrap_err();
        assert_eq!(none.wrong, Wrong::NoModules);
    }

    #[test]
    fn bad_modules_are_refused() {
        assert_eq!(error(&[]), Wrong::NoModules);
        assert_eq!(error(&["--module=a"]), Wrong::NoEquals);
        assert_eq!(
            error(&["--module==/tmp"]),
            Wrong::ModuleName(ModuleNameError::Empty)
        );
        assert_eq!(error(&["--module=a=tmp"]), Wrong::NotAbsolute);
        assert_eq!(error(&["--module=a=/tmp,ro"]), Wrong::NotDir);
        assert_eq!(error(&["--module=a=/dev/null"]), Wrong::NotDir);
        assert_eq!(
            error(&["--module=a=/tmp", "--module=a=/"]),
            Wrong::ModuleTwice
        );
        let long = format!("--socket=/{}", "x".repeat(SOCKET_PATH_BYTES_MAX));
        assert_eq!(error(&["--module=a=/tmp", &long]), Wrong::SocketPath);
        assert!(Wrong::NoModules.hint().unwrap().contains("--module"));
    }

    #[test]
    fn a_config_file_says_what_the_command_line_does_not() {
        let text = "
            socket = '/file'
            listen = ['127.0.0.1:5']
            no_auth = true
            max_connections = 90000
            shards = 2
            pool_threads = 3
            engine = 'portable'
            [module.a]
            path = '/tmp'
            [module.'b c']
            path = '/'
            read_only = false
        ";
        let config = with_file(text, &["--socket=/args", "--shards=7", "--module=d=/tmp"]).unwrap();
        let socket = Listen::Unix {
            socket: PathBuf::from("/args"),
        };
        let tcp = Listen::Tcp {
            address: "127.0.0.1:5".parse().unwrap(),
        };
        assert_eq!(config.doors, Doors::Listen(vec![socket, tcp]));
        assert_eq!(config.max_connections, Some(90_000));
        assert_eq!((config.shards, config.pool_threads), (Some(7), Some(3)));
        assert_eq!(config.engine, EngineChoice::Portable);
        assert_eq!(config.modules.len(), 3);
        assert!(config.modules.get(b"a").unwrap().read_only);
        assert!(!config.modules.get(b"b c").unwrap().read_only);
    }

    #[test]
    fn a_config_file_that_is_not_understood_starts_nothing() {
        let wrong = |text: &str| with_file(text, &["--module=m=/tmp"]).unwrap_err().wrong;
        for (text, part) in [
            ("\nsokcet = '/x'", "line 2: unknown field"),
            ("[module.a]\npath='/tmp'\nrw=true", "unknown field"),
            ("[module.a]\nread_only=false", "missing field"),
            ("engines = 'uring'", "unknown field"),
            ("engine = 'epoll'", "an engine is auto, uring or portable"),
            ("shards = 'two'", "invalid type"),
            ("shards = ", "line 1"),
            ("listen", "line 1"),
        ] {
            let said = wrong(text).to_string();
            assert!(said.contains(part), "{text}: {said}");
        }
        for text in ["shards = 0", "shards = 70000", "shards = -1"] {
            assert_eq!(wrong(text), Wrong::Range(SHARDS_MAX.into()));
        }
        assert_eq!(wrong("max_connections = 0"), Wrong::Range(u32::MAX));
        assert_eq!(wrong("[module.m]\npath = '/tmp'"), Wrong::ModuleTwice);
        let missing = error(&["--config=/nonexistent/x"]);
        assert_eq!(missing, Wrong::File(Errno::NOENT.into()));
    }
}
