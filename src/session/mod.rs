//! One connection as one machine.
