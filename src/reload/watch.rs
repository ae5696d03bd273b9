//! Which directories have to be watched for a path to be current, and the watching.
//!
//! What inotify tells is a hint to look, never what to believe: every look reads the directories
//! again. What it cannot tell (a full queue, a network file system, no inotify to be had) the poll
//! finds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::reload::files::DirectoryIdentity;

/// A writer that does not close what it writes is waited for so long.
const LONGEST_WRITE: Duration = Duration::from_secs(5);

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// Watches directories, as long as that can be had.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// Each watched directory with what it was when the watch was set.
    watched: BTreeMap<PathBuf, DirectoryIdentity>,
    fault: Option<String>,
    seen: Arc<Mutex<Seen>>,
}

/// What the events have told.
#[derive(Debug, Default)]
struct Seen {
    /// Directories whose watch has gone with them.
    gone: Vec<PathBuf>,
    /// Files that somebody has begun to write and has not closed, and since when.
    written: BTreeMap<PathBuf, Instant>,
}

impl Seen {
    fn see(&mut self, event: &Event) {
        match event.kind {
            EventKind::Modify(ModifyKind::Data(_)) => {
                for path in &event.paths {
                    self.written.entry(path.clone()).or_insert_with(Instant::now);
                }
            }
            EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                self.written.retain(|path, _| !event.paths.contains(path));
            }
            EventKind::Remove(_) => {
                self.written.retain(|path, _| !event.paths.contains(path));
                self.gone.extend_from_slice(&event.paths);
            }
            _ => {}
        }
    }
}

/// Files that are being written.
#[derive(Debug, Default)]
pub(super) struct BeingWritten(BTreeSet<PathBuf>);

impl BeingWritten {
    /// Whether somebody has begun to write this file and not closed it, a short while ago.
    pub(super) fn contains(&self, path: &Path) -> bool {
        !self.0.is_empty() && path.canonicalize().is_ok_and(|path| self.0.contains(&path))
    }
}

impl Watch {
    /// `changed` is told of each event.
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let told = Arc::clone(&seen);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading a directory or a file makes events too, which are not changes.
            let is_reading = matches!(
                &event,
                Ok(Event { kind: EventKind::Access(kind), .. })
                    if *kind != AccessKind::Close(AccessMode::Write)
            );
            if !is_reading {
                if let Ok(event) = &event {
                    lock(&told).see(event);
                }
                changed.notify_one();
            }
        });
        let (watcher, fault) = match watcher {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { watcher, watched: BTreeMap::new(), fault, seen }
    }

    /// Why changes are not told at once, and are found by the poll.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The files that are being written now.
    pub(super) fn being_written(&self) -> BeingWritten {
        let mut seen = lock(&self.seen);
        seen.written.retain(|_, since| since.elapsed() < LONGEST_WRITE);
        BeingWritten(seen.written.keys().cloned().collect())
    }

    /// Has every watch set again, whatever is known of it.
    pub(super) fn invalidate(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            for directory in std::mem::take(&mut self.watched).into_keys() {
                // It may be gone, and its watch with it.
                let _ = watcher.unwatch(&directory);
            }
        }
    }

    /// Watches what has to be watched for these paths, and nothing else. `true` says that a
    /// directory is newly watched: what happened in it before has gone unseen.
    pub(super) fn set<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        for gone in std::mem::take(&mut lock(&self.seen).gone) {
            self.watched.remove(&gone);
        }
        let mut wanted = BTreeMap::new();
        for path in paths {
            for directory in directories(path) {
                if let Ok(metadata) = fs::metadata(&directory) {
                    wanted.insert(directory, DirectoryIdentity::of(&metadata));
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

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
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
