//! Opens what the command line names: the directories whose contents are pushed, and the
//! directories above the entries that are pushed by name.

use std::sync::Arc;

use super::plan::Source;
use crate::job::dir::{Dir, FdCache};
use crate::job::list::Origin;
use crate::model::entry::{Kind, Stat};
use crate::model::listing::{Entry, Listing};
use crate::model::name::Name;
use crate::model::report::{Attempt, Side, Trouble, Why};
use crate::ops::{Disk, Errno};
use crate::session::source::Sources;

/// What SRC... comes to. A source that can't be used is a trouble, and the others go on.
pub fn open<D: Disk>(disk: &D, wanted: &[Source]) -> Sources<D> {
    let mut sources = Sources {
        origins: Vec::new(),
        given: Listing::default(),
        single_file: None,
        dest_name: None,
        troubles: Vec::new(),
    };
    let mut seen = Vec::new();
    for source in wanted {
        let opened = if source.contents {
            contents(disk, source)
        } else {
            named(disk, source, sources.origins.last())
        };
        match opened {
            // The same source twice is pushed once, and listed once.
            Ok((identity, ..)) if seen.contains(&identity) => {}
            Ok((identity, origin, entry)) => {
                seen.push(identity);
                let place = match &origin {
                    Some(_) => sources.origins.len(),
                    None => sources.origins.len() - 1,
                };
                let Ok(place) = u16::try_from(place) else {
                    sources.troubles.push(trouble(
                        source,
                        Attempt::Open,
                        Why::Errno(Errno::TOOBIG),
                    ));
                    continue;
                };
                sources.origins.extend(origin);
                if let Some((name, stat)) = entry {
                    let mut one = Listing::default();
                    one.push(Name::new(&name).expect("checked when it was opened"), &stat);
                    one.iter().for_each(|entry| {
                        sources.given.push_entry(Entry {
                            origin: place,
                            ..entry
                        })
                    });
                    let is_alone = wanted.len() == 1 && stat.kind != Kind::Dir;
                    sources.single_file = is_alone.then(|| name.into());
                }
            }
            Err((what, why)) => sources.troubles.push(trouble(source, what, why)),
        }
    }
    sources
}

/// Tells sources apart: directory, and the name in it.
type Identity = (u64, u64, Vec<u8>);
/// No origin where it is that of the source before: `dir/*` would need a descriptor for each name.
type Opened<D> = (Identity, Option<Origin<D>>, Option<(Vec<u8>, Stat)>);

fn trouble(source: &Source, what: Attempt, why: Why) -> Trouble {
    Trouble {
        side: Side::Source,
        path: source.path.clone(),
        what,
        why,
    }
}

fn contents<D: Disk>(disk: &D, source: &Source) -> Result<Opened<D>, (Attempt, Why)> {
    let failed = |errno: Errno| (Attempt::Open, Why::Errno(errno));
    let fd = disk.open_operator_dir(&source.path).map_err(failed)?;
    let stat = disk.stat(&fd).map_err(failed)?;
    let origin = Origin {
        dir: Arc::new(Dir::root(&source.path, Arc::new(fd))),
        is_listed: true,
    };
    Ok(((stat.dev, stat.ino, Vec::new()), Some(origin), None))
}

fn named<D: Disk>(
    disk: &D,
    source: &Source,
    before: Option<&Origin<D>>,
) -> Result<Opened<D>, (Attempt, Why)> {
    let failed = |what| move |errno: Errno| (what, Why::Errno(errno));
    let cut = source
        .path
        .iter()
        .rposition(|byte| *byte == b'/')
        .map_or(0, |slash| slash + 1);
    let (above, name) = source.path.split_at(cut);
    Name::new(name).map_err(|_| (Attempt::Open, Why::OwnName))?;
    let is_same = |before: &&Origin<D>| !before.is_listed && before.dir.name() == above;
    let origin = match before.filter(is_same) {
        Some(_) => None,
        None => {
            let opened = if above.is_empty() { b"." } else { above };
            let fd = disk
                .open_operator_dir(opened)
                .map_err(failed(Attempt::Open))?;
            Some(Origin {
                dir: Arc::new(Dir::root(above, Arc::new(fd))),
                is_listed: false,
            })
        }
    };
    let dir = &origin.as_ref().or(before).expect("one of the two").dir;
    // A root is open as long as it is there.
    let fd = dir.fd(disk, &FdCache::new(1));
    let fd = fd.map_err(failed(Attempt::Open))?;
    let above = disk.stat(&fd).map_err(failed(Attempt::Open))?;
    let stat = disk.stat_at(&fd, name).map_err(failed(Attempt::Stat))?;
    Ok((
        (above.dev, above.ino, name.to_vec()),
        origin,
        Some((name.to_vec(), stat)),
    ))
}
