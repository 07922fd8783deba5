//! What the fuzz targets share. An input of `source` and `target` is a list of choices: what the hostile end of a
//! session says, and when. Frames are put together from them with the right checks, so that what is tried is what
//! stands behind those, and a choice that makes no sense makes a frame that makes none.

pub mod as_source;
pub mod as_target;
pub mod choices;
pub mod frame;
pub mod planted;
pub mod printable;
pub mod rig;
pub mod said;
