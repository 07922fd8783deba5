//! An `sshd` of our own on a loopback port, with keys of its own, that lets root in; and the remote
//! shell that gets in there.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::geteuid;

use super::child;
use super::failure::{Doing, Failure, Result};
use super::ground::Ground;
use super::stop::Stop;
use super::tool;

const KEYGEN_MAX: Duration = Duration::from_secs(10);
/// For both contenders, whatever this OpenSSH would choose: the default since 10.0.
const CIPHER: &str = "aes128-gcm@openssh.com";

/// The way in.
#[derive(Clone)]
pub struct Ssh {
    /// What `-e` says, quoted as rsync and sy split it.
    pub rsh: String,
    /// What a contender's remote shell runs there, in full: sshd has a path of its own.
    pub rsync: PathBuf,
}

/// Why there can be none, if there can't.
pub fn lacks() -> Option<String> {
    if !geteuid().is_root() {
        return Some(
            "needs root: an ordinary user may not look into the processes of an sshd".into(),
        );
    }
    ["sshd", "ssh", "ssh-keygen", "rsync"]
        .into_iter()
        .find(|program| find(program).is_none())
        .map(|program| format!("needs {program}"))
}

/// The command line of an sshd with its files in the ground, and the way in.
pub fn server(
    address: SocketAddr,
    name: &str,
    ground: &Ground,
    stop: &Stop,
) -> Result<(Command, Ssh)> {
    let unfit = |program: &str| Failure::Unfit(format!("{program} is not in the path"));
    let dir = ground.said().join(format!("{name}.ssh"));
    ground.clear(&dir)?;
    let doing = || dir.display().to_string();
    fs::create_dir(&dir).doing(doing)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).doing(doing)?;
    let path = |file: &str| dir.join(file).display().to_string();

    // The same key proves who the host is and who the user is.
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &path("key")]);
    tool::say_into(&mut keygen, ground, name, "keygen")?;
    let made = child::run(&mut keygen, None, None, KEYGEN_MAX, stop)?;
    if !made.status.is_some_and(|status| status.success()) {
        let said = tool::said(ground, name, "keygen");
        return Err(Failure::Tool(format!("ssh-keygen made no key{said}")));
    }
    fs::copy(path("key.pub"), path("authorized_keys")).doing(doing)?;
    // Where sshd keeps root out of what it does before it knows who is there.
    let _ = fs::create_dir("/run/sshd");
    let config = format!(
        "Port {}\nListenAddress {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\n\
         StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
         UseDNS no\nPrintMotd no\nLogLevel ERROR\nCiphers {CIPHER}\nCompression no\n",
        address.port(),
        address.ip(),
        path("key"),
        path("authorized_keys"),
    );
    fs::write(path("config"), config).doing(doing)?;
    // It starts itself again for each connection, so it wants its path in full.
    let mut command = Command::new(find("sshd").ok_or_else(|| unfit("sshd"))?);
    command.args(["-D", "-e", "-f", &path("config")]);

    let rsh = format!(
        "ssh -F /dev/null -p {} -i '{}' -c {CIPHER} -o Compression=no -o BatchMode=yes \
         -o IdentitiesOnly=yes -o LogLevel=ERROR -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null",
        address.port(),
        path("key"),
    );
    let rsync = find("rsync").ok_or_else(|| unfit("rsync"))?;
    Ok((command, Ssh { rsh, rsync }))
}

/// Where a program is; those for administrators are not in everybody's path.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(|dir| Path::new(dir).into()))
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}
