//! Modules: the directories that a server exports, by name.

use std::path::PathBuf;

use crate::limits::MODULE_NAME_BYTES_MAX;

/// 1 to 255 bytes without slash and control characters, neither `.` nor `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ModuleName(Vec<u8>);

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ModuleNameError {
    #[error("a module name is empty")]
    Empty,
    #[error("a module name is longer than 255 bytes")]
    TooLong,
    #[error("a module name holds a slash or a control character")]
    Forbidden,
    #[error("a module name is '.' or '..'")]
    Dots,
}

impl ModuleName {
    pub fn new(bytes: &[u8]) -> Result<Self, ModuleNameError> {
        match bytes {
            [] => Err(ModuleNameError::Empty),
            b"." | b".." => Err(ModuleNameError::Dots),
            _ if bytes.len() > MODULE_NAME_BYTES_MAX => Err(ModuleNameError::TooLong),
            _ if bytes.iter().any(|b| *b == b'/' || b.is_ascii_control()) => {
                Err(ModuleNameError::Forbidden)
            }
            _ => Ok(Self(bytes.to_vec())),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One exported directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    pub name: ModuleName,
    /// Absolute.
    pub root: PathBuf,
    pub read_only: bool,
}

/// All modules of a server, in the order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ModuleTable(Vec<Module>);

impl ModuleTable {
    /// Gives the module back where its name is taken.
    pub fn insert(&mut self, module: Module) -> Result<(), Module> {
        match self.find(module.name.bytes()) {
            Ok(_) => Err(module),
            Err(index) => {
                self.0.insert(index, module);
                Ok(())
            }
        }
    }

    pub fn get(&self, name: &[u8]) -> Option<&Module> {
        self.find(name).ok().map(|index| &self.0[index])
    }

    pub fn iter(&self) -> impl Iterator<Item = &Module> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, name: &[u8]) -> Result<usize, usize> {
        self.0
            .binary_search_by(|module| module.name.bytes().cmp(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_name_is_short_and_plain() {
        for good in [&b"m"[..], b"a b", b"a:b", b"\xff", &[b'x'; 255]] {
            assert_eq!(ModuleName::new(good).unwrap().bytes(), good);
        }
        for (bad, why) in [
            (&b""[..], ModuleNameError::Empty),
            (b"..", ModuleNameError::Dots),
            (b"a/b", ModuleNameError::Forbidden),
            (b"a\n", ModuleNameError::Forbidden),
            (b"a\0", ModuleNameError::Forbidden),
            (&[b'x'; 256], ModuleNameError::TooLong),
        ] {
            assert_eq!(ModuleName::new(bad), Err(why));
        }
    }

    #[test]
    fn a_table_finds_its_modules_and_takes_no_name_twice() {
        let mut table = ModuleTable::default();
        let module = |name: &[u8], root: &str| Module {
            name: ModuleName::new(name).unwrap(),
            root: PathBuf::from(root),
            read_only: true,
        };
        table.insert(module(b"b", "/1")).unwrap();
        table.insert(module(b"a", "/2")).unwrap();
        table.insert(module(b"b", "/3")).unwrap_err();
        assert_eq!(table.get(b"b").unwrap().root, PathBuf::from("/1"));
        assert_eq!(table.get(b"c"), None);
        assert_eq!(table.iter().next().unwrap().name.bytes(), b"a");
        assert_eq!(table.len(), 2);
    }
}
