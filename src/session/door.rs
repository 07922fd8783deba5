//! Who may push where: `Doorkeeper`, and the two that there are.

use crate::job::dest::Scope;
use crate::model::module::ModuleTable;
use crate::wire::hello::{Refusal, Rights};

/// Who decides where a session may go and what it may do there.
pub trait Doorkeeper: Send + Sync {
    /// The scope and the rights of a session that asks for `module`, or why it is refused.
    fn admit(&self, module: &[u8]) -> Result<(Scope, Rights), Refusal>;
}

/// The embedded target, and the one behind a remote shell: the user's own file system with the
/// user's own rights.
pub struct OwnRights {
    pub is_root: bool,
    /// Where a relative DEST begins, component by component.
    pub home: Vec<Vec<u8>>,
}

impl Doorkeeper for OwnRights {
    fn admit(&self, module: &[u8]) -> Result<(Scope, Rights), Refusal> {
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

/// The exported modules.
pub struct Exports {
    pub modules: ModuleTable,
    pub rights: Rights,
}

impl Doorkeeper for Exports {
    fn admit(&self, name: &[u8]) -> Result<(Scope, Rights), Refusal> {
        let module = self.modules.get(name).ok_or(Refusal::UnknownModule)?;
        if module.read_only {
            return Err(Refusal::ReadOnlyModule);
        }
        Ok((
            Scope::Module {
                root: module.root.as_os_str().as_encoded_bytes().to_vec(),
            },
            self.rights,
        ))
    }
}
