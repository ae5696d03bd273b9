//! Watches the directories in which a change can change what a path leads to.
//!
//! An inotify event is only a reason to read: each reload lists the directories itself. The poll
//! finds what inotify misses (a full queue, a network file system, no inotify at all).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::reload::stamp::DirectoryIdentity;

/// A file counts as being written for this long at most.
const MAX_WRITE_TIME: Duration = Duration::from_secs(5);

/// The number of links that the kernel follows.
const MAX_LINKS: usize = 40;

/// Watches directories, if the system can.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// Each watched directory with what it was when the watch was set.
    watched: BTreeMap<PathBuf, DirectoryIdentity>,
    error: Option<String>,
    seen: Arc<Mutex<Seen>>,
}

/// What the events reported.
#[derive(Debug, Default)]
struct Seen {
    /// Removed directories, whose watches are removed with them.
    gone: Vec<PathBuf>,
    /// Files with a writer that has not closed them, and since when.
    written: BTreeMap<PathBuf, Instant>,
}

impl Seen {
    fn record(&mut self, event: &Event) {
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
    /// True if a writer of this file has not closed it.
    pub(super) fn contains(&self, path: &Path) -> bool {
        !self.0.is_empty() && path.canonicalize().is_ok_and(|path| self.0.contains(&path))
    }
}

impl Watch {
    /// Notifies `changed` of each event.
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let recorded = Arc::clone(&seen);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reads make events too.
            let is_reading = matches!(
                &event,
                Ok(Event { kind: EventKind::Access(kind), .. })
                    if *kind != AccessKind::Close(AccessMode::Write)
            );
            if !is_reading {
                if let Ok(event) = &event {
                    lock(&recorded).record(event);
                }
                changed.notify_one();
            }
        });
        let (watcher, error) = match watcher {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { watcher, watched: BTreeMap::new(), error, seen }
    }

    /// Why only the poll finds changes.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The files that are being written now.
    pub(super) fn being_written(&self) -> BeingWritten {
        let mut seen = lock(&self.seen);
        seen.written.retain(|_, since| since.elapsed() < MAX_WRITE_TIME);
        BeingWritten(seen.written.keys().cloned().collect())
    }

    /// Makes the next [`Watch::set`] set every watch again.
    pub(super) fn invalidate(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            for directory in std::mem::take(&mut self.watched).into_keys() {
                // It may be gone, and its watch with it.
                let _ = watcher.unwatch(&directory);
            }
        }
    }

    /// Watches what these paths need, and nothing else. `true` if a directory is newly watched:
    /// former changes in it made no event.
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
        self.error = None;
        let before = std::mem::take(&mut self.watched);
        for (directory, identity) in wanted {
            if before.get(&directory) != Some(&identity) {
                if let Err(error) = watcher.watch(&directory, RecursiveMode::NonRecursive) {
                    self.error = Some(error.to_string());
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

/// The directories in which a change can change what a path leads to: the one that it names or that
/// holds it, and the one of each link on the way.
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
            Ok(target) if links < MAX_LINKS => {
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
    fn watched_directories_are_those_of_the_path_and_of_each_link_on_the_way() {
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
