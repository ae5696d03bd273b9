//! The least access that the process needs: reading the files that its flags name, and connecting to
//! the ports that they name. Landlock takes the rest away, and no core dump holds secrets.

mod access;
mod grants;

pub(super) use access::Access;
use grants::Grants;
use tracing::{info, warn};

use crate::fields::List;

/// The result, to be logged later: the sandbox comes before there is a log.
#[derive(Debug)]
pub(super) struct SandboxOutcome {
    resolves: bool,
    grants: Grants,
    /// True if the kernel enforces every restriction; an error if it enforces none.
    result: Result<bool, NotSandboxed>,
}

/// Why the process keeps its rights, and what the operator can do about it.
#[derive(Debug, PartialEq, Eq)]
struct NotSandboxed {
    why: String,
    remedy: &'static str,
}

impl NotSandboxed {
    fn new(why: impl Into<String>, remedy: &'static str) -> Self {
        Self { why: why.into(), remedy }
    }
}

/// Takes every other access away from this thread, and from those that it starts later. It must run
/// before there is a second thread.
pub(super) fn enter(access: &Access) -> SandboxOutcome {
    let grants = Grants::new(access);
    let result = enforce(&grants);
    SandboxOutcome { resolves: access.resolves, grants, result }
}

impl SandboxOutcome {
    /// Logs what the process can still do.
    pub(super) fn log(&self) {
        let resolves = self.resolves;
        let is_whole = match &self.result {
            Ok(is_whole) => *is_whole,
            Err(NotSandboxed { why, remedy }) => {
                warn!(why, remedy, "not_sandboxed");
                return;
            }
        };
        let read = List::new(self.grants.paths().iter().map(|path| path.display()));
        let write = List::new(self.grants.write.iter().map(|path| path.display()));
        let connect = List::new(&self.grants.connect);
        info!(
            read = read.field(),
            write = write.field(),
            connect = connect.field(),
            resolves,
            is_whole,
            "sandboxed"
        );
        for (path, what) in self.grants.broad() {
            let path = path.display();
            let remedy = "move the files that the flags name into a directory of their own";
            warn!(%path, what, remedy, "sandbox_broad");
        }
        for path in &self.grants.not_renewable {
            let path = path.display();
            let problem = "a file directly in / cannot be renewed: the sandbox denies to read the \
                           one that replaces it";
            let remedy = "move the file into a directory of its own";
            warn!(%path, problem, remedy, "sandbox_blocks_renewal");
        }
    }
}

/// Keeps the memory, with the keys in it, out of core dumps, and from debuggers of the same user.
///
/// # Errors
/// The system refuses.
pub(super) fn hide_memory() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // A core dump handler (core_pattern with a pipe) ignores the limit, but not this flag.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn enforce(_: &Grants) -> Result<bool, NotSandboxed> {
    Err(NotSandboxed::new("Landlock is a part of Linux", "run it with --no-sandbox"))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn run_as_probe() -> bool {
    false
}

#[cfg(target_os = "linux")]
use linux::enforce;
#[cfg(target_os = "linux")]
pub(super) use linux::run_as_probe;

#[cfg(target_os = "linux")]
mod linux {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::process::{Command, Stdio};
    use std::{env, fs, io};

    use landlock::{
        ABI, Access as _, AccessFs, AccessNet, LandlockStatus, NetPort, RestrictionStatus, Ruleset,
        RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, path_beneath_rules,
    };

    use super::{Grants, NotSandboxed};

    /// The name by which the server starts itself to try Landlock.
    const PROBE: &str = "portcullis-landlock-probe";

    const SIGSYS: i32 = 31;

    const KERNEL: &str = "use a kernel with Landlock (Linux 5.13, 6.7 for the ports), or accept \
                          that there is none with --no-sandbox";
    const FILTER: &str = "add landlock_create_ruleset, landlock_add_rule and \
                          landlock_restrict_self to SystemCallFilter= and set \
                          SystemCallErrorNumber=EPERM, or allow them in the container's seccomp \
                          profile";

    pub(super) fn enforce(grants: &Grants) -> Result<bool, NotSandboxed> {
        if has_seccomp_filter() && is_probe_killed() {
            return Err(NotSandboxed::new("a seccomp filter kills callers of Landlock", FILTER));
        }
        try_to_enforce(grants)
    }

    /// True in the process that [`enforce`] starts to see whether Landlock can be called at all.
    pub(in crate::cli) fn run_as_probe() -> bool {
        let is_probe = env::args_os().next().is_some_and(|name| name == PROBE);
        if is_probe {
            let _ = try_to_enforce(&Grants::default());
        }
        is_probe
    }

    fn has_seccomp_filter() -> bool {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|m| m.trim() == "2"))
    }

    /// A filter without an error number kills the process at the call, before there is a log. Only
    /// another process can detect that.
    fn is_probe_killed() -> bool {
        let mut probe = Command::new("/proc/self/exe");
        probe.arg0(PROBE).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.signal() == Some(SIGSYS))
    }

    fn try_to_enforce(grants: &Grants) -> Result<bool, NotSandboxed> {
        let ruleset = Ruleset::default();
        // `default` asks the kernel for its version of Landlock, and discards the error.
        let refusal = io::Error::last_os_error();
        let status = restrict(ruleset, grants).map_err(|error| judge_error(&error))?;
        match (status.ruleset, status.landlock) {
            (RulesetStatus::FullyEnforced, _) => Ok(true),
            (RulesetStatus::PartiallyEnforced, _) => Ok(false),
            (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => {
                Err(NotSandboxed::new("Landlock is not enabled in this kernel (lsm=)", KERNEL))
            }
            (RulesetStatus::NotEnforced, _) => Err(judge_refusal(&refusal)),
        }
    }

    /// The kernel itself returns ENOSYS if it has no Landlock; other errors are a filter's.
    fn judge_refusal(refusal: &io::Error) -> NotSandboxed {
        match (refusal.kind() == io::ErrorKind::Unsupported, has_seccomp_filter()) {
            (true, false) => NotSandboxed::new("this kernel has no Landlock (ENOSYS)", KERNEL),
            (true, true) => NotSandboxed::new(
                "this kernel has no Landlock, or a seccomp filter hides it (ENOSYS)",
                KERNEL,
            ),
            (false, _) => {
                NotSandboxed::new(format!("a seccomp filter refuses Landlock: {refusal}"), FILTER)
            }
        }
    }

    fn judge_error(error: &RulesetError) -> NotSandboxed {
        let remedy = if has_seccomp_filter() { FILTER } else { KERNEL };
        NotSandboxed::new(error.to_string(), remedy)
    }

    /// Everything that an older kernel does not know is left out.
    fn restrict(ruleset: Ruleset, grants: &Grants) -> Result<RestrictionStatus, RulesetError> {
        let connect = |port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp));
        let list = AccessFs::ReadFile | AccessFs::ReadDir;
        let keep_files = list
            | AccessFs::WriteFile
            | AccessFs::MakeReg
            | AccessFs::RemoveFile
            | AccessFs::Truncate;
        ruleset
            .handle_access(AccessFs::from_all(ABI::V5))?
            .handle_access(AccessNet::ConnectTcp)?
            .create()?
            .add_rules(path_beneath_rules(&grants.read, AccessFs::ReadFile))?
            .add_rules(path_beneath_rules(&grants.list, list))?
            .add_rules(path_beneath_rules(&grants.write, keep_files))?
            .add_rules(grants.connect.iter().copied().map(connect))?
            .restrict_self()
    }

    #[cfg(test)]
    mod tests {
        use std::io::{self, ErrorKind};
        use std::net::{TcpListener, TcpStream};

        use super::super::Access;
        use super::*;

        /// The filter of a thread, which refuses these calls with this error.
        fn refuse(calls: &[i64], errno: u32) {
            use seccompiler::{SeccompAction, SeccompFilter};
            let filter = SeccompFilter::new(
                calls.iter().map(|call| (*call, Vec::new())).collect(),
                SeccompAction::Allow,
                SeccompAction::Errno(errno),
                env::consts::ARCH.try_into().unwrap(),
            );
            let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
            seccompiler::apply_filter(&program).unwrap();
        }

        /// The result of a thread that enforces the sandbox under such a filter.
        fn under_filter(calls: &'static [i64], errno: i32) -> Result<bool, NotSandboxed> {
            let run = move || {
                refuse(calls, errno.unsigned_abs());
                try_to_enforce(&Grants::default())
            };
            std::thread::spawn(run).join().unwrap()
        }

        #[test]
        fn seccomp_filter_that_refuses_landlock_is_distinguished_from_a_kernel_without_it() {
            let create = &[libc::SYS_landlock_create_ruleset];
            let refused = under_filter(create, libc::EPERM).unwrap_err();
            assert!(refused.why.contains("a seccomp filter refuses Landlock"), "{refused:?}");
            assert!(refused.why.contains("Operation not permitted"), "{refused:?}");
            assert_eq!(refused.remedy, FILTER);
            let hidden = under_filter(create, libc::ENOSYS).unwrap_err();
            assert!(hidden.why.contains("no Landlock, or a seccomp filter"), "{hidden:?}");
            assert_eq!(hidden.remedy, KERNEL);
            let none = judge_refusal(&io::Error::from_raw_os_error(libc::ENOSYS));
            assert_eq!(none.why, "this kernel has no Landlock (ENOSYS)");
        }

        #[test]
        fn seccomp_filter_that_refuses_only_the_last_call_is_named() {
            // Where the kernel has no Landlock, this call is not reached.
            if under_filter(&[libc::SYS_mount], libc::EPERM).is_err() {
                return;
            }
            let refused = under_filter(&[libc::SYS_landlock_restrict_self], libc::EPERM);
            assert_eq!(refused.unwrap_err().remedy, FILTER);
        }

        /// A sandbox applies to the thread that enters it, so each test may have its own.
        #[test]
        fn unnamed_files_and_ports_cannot_be_read_written_or_connected_to() {
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
                let result = try_to_enforce(&Grants::new(&access));
                let is_denied = |error: io::Error| error.kind() == ErrorKind::PermissionDenied;
                let denied = result.is_ok().then(|| {
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
                // A confined thread cannot remove its directory.
                (result, denied, root.keep())
            });
            let (result, denied, root) = tried.join().unwrap();
            fs::remove_dir_all(root).unwrap();
            assert!(denied.is_none_or(|denied| denied == [true; 6]), "{result:?} {denied:?}");
        }
    }
}
