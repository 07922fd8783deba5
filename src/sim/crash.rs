//! `Crash`, the ways in which a simulated process ends before its work does.

/// What ended the process. Files stay in either case, descriptors and locks go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process alone: everything it wrote is in the page cache and stays.
    ProcessDeath,
    /// The whole host, and with it every process on the disk. What was not synced survives in
    /// part, as the seed wants; the boot id changes.
    PowerCut,
}
