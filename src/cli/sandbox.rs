//! The least that this process needs: the files that its flags name, to read, and the ports that
//! they name, to connect to. Linux's Landlock takes the rest away, and no core dump holds secrets.
//!
//! A right lasts as long as what it was given for: a file that is replaced or a directory that is
//! made again has none. Hence it is given for the directory above, and for that of each link on the
//! way. A link that is changed later to lead elsewhere leads to what cannot be read.

use std::path::PathBuf;

use tracing::{info, warn};

/// What the process needs from here on.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Files and directories, to read.
    pub read: Vec<PathBuf>,
    /// TCP ports, to connect to.
    pub connect: Vec<u16>,
    /// Whether names of hosts are looked up.
    pub resolves: bool,
}

/// What came of it. It is said later: entering comes before there is a log.
#[derive(Debug)]
pub struct Entered {
    access: Access,
    /// Whether the kernel knows all the limits that were asked for; or why there are none.
    result: Result<bool, String>,
}

/// Takes from the process everything but this. Only this thread, and those that it starts later,
/// are held to it: it must be called before there is another.
pub fn enter(access: Access) -> Entered {
    let result = enforce(&access);
    Entered { access, result }
}

impl Entered {
    /// Says it in the log.
    pub fn say(&self) {
        let Access { read, connect, resolves } = &self.access;
        match &self.result {
            Ok(is_whole) => info!(?read, ?connect, resolves, is_whole, "sandboxed"),
            Err(why) => {
                let remedy = "use a kernel with Landlock (Linux 5.13, 6.7 for the ports), or say \
                              that there is none by --no-sandbox";
                warn!(why, remedy, "not_sandboxed");
            }
        }
    }
}

/// Keeps the memory, with the keys in it, out of core dumps, and from debuggers of the same user.
///
/// # Errors
/// The system refuses.
pub fn hide_memory() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // A handler of core dumps gets one whatever the limit says; it gets none of who is hidden.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn enforce(_: &Access) -> Result<bool, String> {
    Err("Landlock is a part of Linux".to_owned())
}

#[cfg(target_os = "linux")]
use linux::enforce;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::BTreeSet;
    use std::fs;
    use std::iter::once;
    use std::path::{Path, PathBuf};

    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, LandlockStatus, NetPort, RestrictionStatus, Ruleset,
        RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, path_beneath_rules,
    };

    use super::Access;
    use crate::reload::directories;

    /// What looking up a name reads: the C library's configuration, and its modules.
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

    /// The port of name servers, for answers too long for UDP.
    const DNS: u16 = 53;

    pub(super) fn enforce(access: &Access) -> Result<bool, String> {
        let status = restrict(access).map_err(|error| error.to_string())?;
        match (status.ruleset, status.landlock) {
            (RulesetStatus::FullyEnforced, _) => Ok(true),
            (RulesetStatus::PartiallyEnforced, _) => Ok(false),
            (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
                Err("Landlock is not enabled in this kernel (lsm=)".to_owned())
            }
            (RulesetStatus::NotEnforced, _) => Err("this kernel has no Landlock".to_owned()),
        }
    }

    /// Everything that an older kernel does not know is left out.
    fn restrict(access: &Access) -> Result<RestrictionStatus, RulesetError> {
        let mut readable = readable(&access.read);
        let mut ports: BTreeSet<u16> = access.connect.iter().copied().collect();
        if access.resolves {
            readable.extend(RESOLVER.iter().filter_map(|path| fs::canonicalize(path).ok()));
            readable.extend(place_of_name_servers());
            ports.insert(DNS);
        }
        let connect = |port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp));
        Ruleset::default()
            .handle_access(AccessFs::from_all(ABI::V5))?
            .handle_access(AccessNet::ConnectTcp)?
            .create()?
            .add_rules(path_beneath_rules(readable, AccessFs::ReadFile | AccessFs::ReadDir))?
            .add_rules(ports.into_iter().map(connect))?
            .restrict_self()
    }

    /// Where a link `/etc/resolv.conf` leads, its target is replaced and not written to.
    fn place_of_name_servers() -> Option<PathBuf> {
        let place = fs::canonicalize("/etc/resolv.conf").ok()?.parent()?.to_owned();
        (place != Path::new("/etc") && place != Path::new("/")).then_some(place)
    }

    /// The directories that hold these paths, and those to which links lead from there now. Never
    /// `/`: what lies there directly is readable itself, and not again once it is replaced.
    fn readable(paths: &[PathBuf]) -> BTreeSet<PathBuf> {
        let mut readable = BTreeSet::new();
        for path in paths {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let links = entries.map(|entry| entry.path()).filter(|path| path.is_symlink());
            for path in once(path.clone()).chain(links) {
                readable.extend(directories(&path));
                readable.extend(fs::canonicalize(&path));
            }
        }
        readable.remove(Path::new("/"));
        readable
    }

    #[cfg(test)]
    mod tests {
        use std::io::{self, ErrorKind};
        use std::net::{TcpListener, TcpStream};
        use std::os::unix::fs::symlink;

        use super::*;

        #[test]
        fn what_holds_a_path_and_what_its_links_lead_to_is_readable_and_never_the_root() {
            let root = tempfile::tempdir().unwrap();
            let root = root.path().canonicalize().unwrap();
            let at = |path: &str| root.join(path);
            fs::create_dir_all(at("here/trust")).unwrap();
            fs::create_dir_all(at("archive/one")).unwrap();
            fs::write(at("archive/one/a.pem"), "").unwrap();
            symlink(at("archive/one/a.pem"), at("here/trust/a.pem")).unwrap();
            let readable = readable(&[at("here/trust"), "/".into(), "/no-such-file".into()]);
            assert!(readable.contains(&at("here")), "{readable:?}");
            assert!(readable.contains(&at("archive/one")), "{readable:?}");
            assert!(!readable.contains(&root), "{readable:?}");
            assert!(!readable.contains(Path::new("/")), "{readable:?}");
        }

        /// It holds for the thread that enters it, so each test may have one.
        #[test]
        fn what_is_not_named_can_neither_be_read_nor_written_nor_connected_to() {
            let root = tempfile::tempdir().unwrap();
            let at = |path: &str| root.path().join(path);
            fs::create_dir_all(at("named")).unwrap();
            fs::create_dir_all(at("other")).unwrap();
            fs::write(at("named/file"), "").unwrap();
            fs::write(at("other/file"), "").unwrap();
            let [named, other] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
            let [named, other] =
                [named, other].map(|socket| (socket.local_addr().unwrap(), socket));
            let access = Access {
                read: vec![at("named/file")],
                connect: vec![named.0.port()],
                ..Access::default()
            };
            let tried = std::thread::spawn(move || {
                let result = enforce(&access);
                let is_denied = |error: io::Error| error.kind() == ErrorKind::PermissionDenied;
                let is_in = result.is_ok().then(|| {
                    fs::read(root.path().join("named/file")).unwrap();
                    TcpStream::connect(named.0).unwrap();
                    [
                        fs::read(root.path().join("other/file")).is_err_and(is_denied),
                        fs::read_dir(root.path()).is_err_and(is_denied),
                        fs::write(root.path().join("named/file"), "x").is_err_and(is_denied),
                        fs::write(root.path().join("named/new"), "x").is_err_and(is_denied),
                        fs::remove_file(root.path().join("named/file")).is_err_and(is_denied),
                        TcpStream::connect(other.0).is_err_and(is_denied) || result != Ok(true),
                    ]
                });
                // Whoever may do this no longer cannot clear up either.
                (result, is_in, root.keep())
            });
            let (result, is_in, root) = tried.join().unwrap();
            fs::remove_dir_all(root).unwrap();
            assert!(is_in.is_none_or(|is_in| is_in == [true; 6]), "{result:?} {is_in:?}");
        }
    }
}
