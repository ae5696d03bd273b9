//! Which directories have to be watched for a path to be current, and the watching.
//!
//! What inotify tells is a hint to look, never what to believe: every look reads the directories
//! again. What it cannot tell (a full queue, a network file system, no inotify to be had) the poll
//! finds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Watches directories, as long as that can be had.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// Each watched directory with what it was when the watch was set.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    fault: Option<String>,
}

impl Watch {
    /// `changed` is told of each event.
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading a directory or a file makes events too, which are not changes.
            let is_reading = matches!(
                &event,
                Ok(Event { kind: EventKind::Access(kind), .. })
                    if *kind != AccessKind::Close(AccessMode::Write)
            );
            if !is_reading {
                changed.notify_one();
            }
        });
        let (watcher, fault) = match watcher {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { watcher, watched: BTreeMap::new(), fault }
    }

    /// Why changes are not told at once, and are found by the poll.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Watches what has to be watched for these paths, and nothing else. `true` says that a
    /// directory is newly watched: what happened in it before has gone unseen.
    pub(super) fn set<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let mut wanted = BTreeMap::new();
        for path in paths {
            for directory in directories(path) {
                if let Ok(metadata) = fs::metadata(&directory) {
                    wanted.insert(directory, (metadata.dev(), metadata.ino()));
                }
            }
        }
        if wanted == self.watched {
            return false;
        }
        for (directory, identity) in &self.watched {
            if wanted.get(directory) != Some(identity) {
                // It may be gone, and its watch with it.
                let _ = watcher.unwatch(directory);
            }
        }
        let mut is_new = false;
        self.fault = None;
        let before = std::mem::take(&mut self.watched);
        for (directory, identity) in wanted {
            if before.get(&directory) != Some(&identity) {
                if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
                    self.fault = Some(error.to_string());
                    continue;
                }
                is_new = true;
            }
            self.watched.insert(directory, identity);
        }
        is_new
    }
}

/// The directories in which a change can change what a path leads to: the one that it names or is
/// in, and the one of each link on the way.
pub(crate) fn directories(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut links = 0;
    let mut here = match path.is_absolute() {
        true => PathBuf::from("/"),
        false => std::env::current_dir().unwrap_or_else(|_| PathBuf::from(".")),
    };
    let mut rest: Vec<PathBuf> = components(path);
    while let Some(next) = rest.pop() {
        if next.as_os_str() == ".." {
            here.pop();
            continue;
        }
        let step = here.join(&next);
        match fs::read_link(&step) {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                found.insert(here.clone());
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                rest.extend(components(&target));
            }
            _ if rest.is_empty() || !step.is_dir() => {
                // The end of the path, or the first part that is not there.
                found.insert(here);
                if step.is_dir() {
                    found.insert(step);
                }
                return found;
            }
            _ => here = step,
        }
    }
    found.insert(here);
    found
}

/// The parts of a path, the last one first.
fn components(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter_map(|component| match component {
        Component::Normal(part) => Some(PathBuf::from(part)),
        Component::ParentDir => Some(PathBuf::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut parts: Vec<_> = parts.collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_is_current_if_its_directory_its_parent_and_the_place_of_each_link_are_watched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |path: &str| root.join(path);
        fs::create_dir_all(at("releases/v1/trust")).unwrap();
        fs::write(at("releases/v1/trust/a.pem"), "").unwrap();
        symlink("releases/v1", at("current")).unwrap();
        symlink(at("current/trust"), at("trust")).unwrap();

        let wanted = |paths: &[&str]| paths.iter().map(|path| at(path)).collect::<BTreeSet<_>>();
        assert_eq!(
            directories(&at("releases/v1/trust")),
            wanted(&["releases/v1", "releases/v1/trust"])
        );
        assert_eq!(directories(&at("releases/v1/trust/a.pem")), wanted(&["releases/v1/trust"]));
        assert_eq!(directories(&at("trust")), wanted(&["", "releases/v1", "releases/v1/trust"]));
        assert_eq!(directories(&at("nowhere/trust/a.pem")), wanted(&[""]));
        symlink("loop", at("loop")).unwrap();
        assert_eq!(directories(&at("loop")), wanted(&[""]));
    }
}
