//! The files and directories that the sandbox leaves readable.
//!
//! Landlock grants access to a file, or to a directory with everything below it. A grant for a file
//! ends when the file is replaced, so the directory that holds it is granted, and that of each link
//! on the way. A link that is changed later to lead outside the grants cannot be followed.

use std::collections::BTreeSet;
use std::iter::once;
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::access::Access;
use crate::reload::directories;

/// Files and directories that the C library reads to look up a host name.
const RESOLVER: [&str; 10] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
];

/// What the metrics of the process read: its own figures, and when the machine started.
const PROCESS: [&str; 2] = ["/proc/self", "/proc/stat"];

/// The port of name servers, for responses too long for UDP.
const DNS: u16 = 53;

/// What stays allowed.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// Files, and directories whose files can be read but not listed.
    pub(super) read: BTreeSet<PathBuf>,
    /// Directories whose files can be read and listed.
    pub(super) list: BTreeSet<PathBuf>,
    /// Directories whose files can also be written, made and removed.
    pub(super) write: BTreeSet<PathBuf>,
    /// TCP ports to connect to.
    pub(super) connect: BTreeSet<u16>,
    /// Files directly in the root, each with a grant that ends when the file is replaced.
    pub(super) not_renewable: BTreeSet<PathBuf>,
}

impl Grants {
    /// The least access with which files can be renewed by renaming.
    pub(super) fn new(access: &Access) -> Self {
        let mut grants = Self {
            write: access.write.iter().cloned().collect(),
            connect: access.connect.iter().copied().collect(),
            ..Self::default()
        };
        for path in &access.read {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let links = entries.map(|entry| entry.path()).filter(|path| path.is_symlink());
            once(path.clone()).chain(links).for_each(|path| grants.add(&path));
        }
        if access.resolves {
            let known = RESOLVER.iter().filter_map(|path| fs::canonicalize(path).ok());
            grants.list.extend(known.chain(directory_of_resolv_conf()));
            grants.connect.insert(DNS);
        }
        if access.metrics {
            grants.list.extend(PROCESS.iter().filter_map(|path| fs::canonicalize(path).ok()));
        }
        // A file directly in the root is granted without its directory.
        grants.list.remove(Path::new("/"));
        grants.read.remove(Path::new("/"));
        grants.read.retain(|path| !grants.list.contains(path));
        grants
    }

    fn add(&mut self, path: &Path) {
        let target = fs::canonicalize(path).ok();
        let is_directory = path.is_dir();
        // Files in a directory are renewed within it. Its parent is for a directory that is replaced
        // as a whole, which is not worth a broad grant.
        let is_plain = is_directory && target == std::path::absolute(path).ok();
        let parent = target.as_deref().and_then(Path::parent);
        let is_needless =
            |holder: &PathBuf| is_plain && parent == Some(holder) && breadth(holder).is_some();
        let set = if is_directory { &mut self.list } else { &mut self.read };
        let holders = directories(path);
        let file = target.clone().or_else(|| std::path::absolute(path).ok());
        let in_root = |file: &PathBuf| !is_directory && file.parent() == Some(Path::new("/"));
        self.not_renewable.extend(file.filter(in_root));
        set.extend(holders.into_iter().filter(|holder| !is_needless(holder)));
        set.extend(target);
    }

    /// All of them, for the log.
    pub(super) fn paths(&self) -> BTreeSet<&Path> {
        self.read.iter().chain(&self.list).map(PathBuf::as_path).collect()
    }

    /// Those that hold much more than certificates, and what they are.
    pub(super) fn broad(&self) -> impl Iterator<Item = (&Path, &'static str)> {
        // A file that lies in /home is no home directory.
        let directories = self.paths().into_iter().filter(|path| path.is_dir());
        // The operator has not chosen the place of the resolver's file.
        let resolver = directory_of_resolv_conf();
        let directories = directories.filter(move |path| resolver.as_deref() != Some(*path));
        directories.filter_map(|path| Some((path, breadth(path)?)))
    }
}

/// Directories of the system, with what they hold.
const SYSTEM: [(&str, &str); 17] = [
    ("/", "the root directory"),
    ("/dev", "all devices"),
    ("/dev/shm", "the shared memory of all programs"),
    ("/etc", "the configuration of the whole system"),
    ("/home", "all home directories"),
    ("/media", "all removable media"),
    ("/mnt", "all mounted file systems"),
    ("/opt", "all additional software"),
    ("/proc", "all processes"),
    ("/run", "the state of all services"),
    ("/srv", "the data of all services"),
    ("/tmp", "the temporary files of all users"),
    ("/usr", "the software of the whole system"),
    ("/var", "the data of the whole system"),
    ("/var/lib", "the data of all services"),
    ("/var/tmp", "the temporary files of all users"),
    ("/Users", "all home directories"),
];

/// What a directory is, if it holds much more than certificates.
fn breadth(path: &Path) -> Option<&'static str> {
    let is_home = || {
        let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let homes = [Path::new("/home"), Path::new("/Users")];
        path == Path::new("/root")
            || path.parent().is_some_and(|parent| homes.contains(&parent))
            || home.is_some_and(|home| fs::canonicalize(home).is_ok_and(|home| home == path))
    };
    let system = SYSTEM.iter().find(|(place, _)| path == Path::new(place));
    match system {
        Some((_, what)) => Some(what),
        None if is_home() => Some("a home directory"),
        None => {
            let here = env::current_dir().and_then(fs::canonicalize);
            here.is_ok_and(|here| here == path).then_some("the working directory")
        }
    }
}

/// The directory of the target of `/etc/resolv.conf`, if that is a link: the target is replaced,
/// not rewritten.
fn directory_of_resolv_conf() -> Option<PathBuf> {
    let place = fs::canonicalize("/etc/resolv.conf").ok()?.parent()?.to_owned();
    (place != Path::new("/etc") && place != Path::new("/")).then_some(place)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn grants(paths: &[&Path]) -> Grants {
        let read = paths.iter().map(|path| path.to_path_buf()).collect();
        Grants::new(&Access { read, ..Access::default() })
    }

    #[test]
    fn holder_of_a_path_and_targets_of_its_links_are_readable_and_never_the_root() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let at = |path: &str| root.join(path);
        fs::create_dir_all(at("here/trust")).unwrap();
        fs::create_dir_all(at("archive/one")).unwrap();
        fs::write(at("archive/one/a.pem"), "").unwrap();
        symlink(at("archive/one/a.pem"), at("here/trust/a.pem")).unwrap();
        let grants = grants(&[&at("here/trust"), Path::new("/"), Path::new("/no-such-file")]);
        let paths = grants.paths();
        assert!(paths.contains(&*at("here")), "{grants:?}");
        assert!(paths.contains(&*at("archive/one")), "{grants:?}");
        assert!(!paths.contains(&*root), "{grants:?}");
        assert!(!paths.contains(Path::new("/")), "{grants:?}");
        assert!(grants.list.contains(&at("here/trust")), "{grants:?}");
        let broad = grants.broad().filter(|(path, _)| path.starts_with(&root));
        assert_eq!(broad.count(), 0, "{grants:?}");
    }

    #[test]
    fn directory_of_a_single_file_is_not_listed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::write(root.join("server.pem"), "").unwrap();
        let grants = grants(&[&root.join("server.pem")]);
        assert!(grants.read.contains(&root), "{grants:?}");
        assert!(grants.list.is_empty(), "{grants:?}");
    }

    #[test]
    fn broad_directory_is_granted_for_a_file_in_it_and_not_for_a_directory_in_it() {
        let here = env::current_dir().unwrap().canonicalize().unwrap();
        let broad = |path: &str| {
            let grants = grants(&[&here.join(path)]);
            grants.broad().map(|(path, what)| (path.to_owned(), what)).collect::<Vec<_>>()
        };
        assert_eq!(broad("Cargo.toml"), [(here.clone(), "the working directory")]);
        assert_eq!(broad("src"), []);
        assert!(grants(&[&here.join("src")]).list.contains(&here.join("src")));
        assert_eq!(breadth(Path::new("/etc")), Some("the configuration of the whole system"));
        assert_eq!(breadth(Path::new("/home/ann")), Some("a home directory"));
        assert_eq!(breadth(Path::new("/etc/portcullis")), None);
    }

    #[test]
    fn directory_above_a_trust_directory_is_granted_unless_it_belongs_to_the_system() {
        // Right below the directory for temporary files, and one level deeper.
        let outer = tempfile::tempdir().unwrap();
        let outer = outer.path().canonicalize().unwrap();
        let temporary = outer.parent().unwrap();
        fs::create_dir(outer.join("trust")).unwrap();
        assert!(breadth(temporary).is_some(), "{}", temporary.display());
        let granted = grants(&[&outer]);
        assert_eq!(granted.paths(), BTreeSet::from([outer.as_path()]));
        assert_eq!(granted.broad().count(), 0);
        let granted = grants(&[&outer.join("trust")]);
        assert!(granted.paths().contains(outer.as_path()), "{granted:?}");
        // A file there needs the grant, and a warning.
        fs::write(outer.join("file"), "").unwrap();
        for system in ["/etc", "/home", "/opt", "/run", "/tmp", "/usr", "/var", "/var/lib"] {
            let granted = grants(&[&Path::new(system).join("no-such-file.pem")]);
            let broad: Vec<_> = granted.broad().map(|(path, _)| path.to_owned()).collect();
            let is_there = Path::new(system).is_dir() && !Path::new(system).is_symlink();
            assert_eq!(broad == [Path::new(system)], is_there, "{system}: {granted:?}");
        }
    }

    #[test]
    fn file_in_the_root_cannot_be_renewed_and_a_directory_there_can() {
        let file = Path::new("/no-such-file.pem");
        assert_eq!(grants(&[file]).not_renewable, BTreeSet::from([file.to_owned()]));
        for elsewhere in ["/usr", "/usr/no-such-file.pem", "/no-such-directory/file.pem"] {
            assert_eq!(grants(&[Path::new(elsewhere)]).not_renewable, BTreeSet::new());
        }
    }

    #[test]
    fn file_in_the_directory_of_homes_is_no_home_directory() {
        let of = |path: &str| Grants { read: [PathBuf::from(path)].into(), ..Grants::default() };
        assert_eq!(of("/home/no-such-file.pem").broad().count(), 0);
        assert_eq!(of("/root").broad().count(), usize::from(Path::new("/root").is_dir()));
    }
}
