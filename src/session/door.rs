//! Who may push where: `Doorkeeper`, and the two that there are.

use std::collections::HashMap;
use std::sync::Arc;

use crate::job::dest::Scope;
use crate::model::module::ModuleTable;
use crate::ops::Disk;
use crate::ops::disk::SharedFd;
use crate::wire::hello::{Refusal, Rights};

/// Who decides where a session may go and what it may do there.
pub trait Doorkeeper<D: Disk>: Send + Sync {
    /// The scope and the rights of a session that asks for `module`, or why it is refused.
    fn admit(&self, module: &[u8]) -> Result<(Scope<D>, Rights), Refusal>;
}

/// The embedded target, and the one behind a remote shell: the user's own file system with the
/// user's own rights.
pub struct OwnRights {
    pub is_root: bool,
    /// Where a relative DEST begins, component by component.
    pub home: Vec<Vec<u8>>,
}

impl<D: Disk> Doorkeeper<D> for OwnRights {
    fn admit(&self, module: &[u8]) -> Result<(Scope<D>, Rights), Refusal> {
        if !module.is_empty() {
            return Err(Refusal::UnknownModule);
        }
        Ok((
            Scope::Own {
                home: self.home.clone(),
            },
            Rights {
                owners: self.is_root,
                setid: true,
                nodes: self.is_root,
            },
        ))
    }
}

/// The exported modules, their roots open.
pub struct Exports<D: Disk> {
    pub modules: ModuleTable,
    pub roots: HashMap<Vec<u8>, SharedFd<D>>,
    pub rights: Rights,
}

impl<D: Disk> Doorkeeper<D> for Exports<D> {
    fn admit(&self, name: &[u8]) -> Result<(Scope<D>, Rights), Refusal> {
        let module = self.modules.get(name).ok_or(Refusal::UnknownModule)?;
        if module.read_only {
            return Err(Refusal::ReadOnlyModule);
        }
        let root = self.roots.get(name).ok_or(Refusal::UnknownModule)?;
        Ok((
            Scope::Module {
                root: Arc::clone(root),
            },
            self.rights,
        ))
    }
}
