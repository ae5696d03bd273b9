//! What the process can read once it runs. Where the kernel has no Landlock, only the log event is
//! checked.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use crate::support::pki::PKI;
use crate::support::tls::{Site, connector, put};
use crate::support::{DEADLINE, Portcullis, wait_for};

/// Starts it in its sandbox; `None` where this kernel has none.
fn serve(site: &Site) -> Option<Portcullis> {
    let server = Portcullis::serve(site.flags(&[]));
    let has_none = server.log().contains("not_sandboxed");
    if !has_none {
        server.wait_for_event("sandboxed", |_| true);
    }
    (!has_none).then_some(server)
}

fn outside() -> (tempfile::TempDir, PathBuf) {
    let outside = tempfile::tempdir().unwrap();
    put(outside.path(), "b.pem", &PKI.b.cert);
    let file = outside.path().join("b.pem");
    (outside, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn link_changed_to_lead_outside_is_an_error_in_the_sandbox_only() {
    let site = Site::new();
    let (_outside, file) = outside();
    let Some(server) = serve(&site) else { return };
    symlink(&file, site.path("trust/b.pem")).unwrap();
    let problem = server.wait_for_event("reload_failed", |_| true);
    assert!(problem["file"].as_str().unwrap().ends_with("trust/b.pem"), "{problem}");
    assert!(problem["problem"].as_str().unwrap().contains("Permission denied"), "{problem}");
    assert!(problem["remedy"].as_str().unwrap().contains("--no-sandbox"), "{problem}");
    connector(&PKI.a).ask(server.addr()).await.expect("the others' certificates stay");
    assert!(connector(&PKI.b).ask(server.addr()).await.is_err());
    drop(server);

    // A link that was there at start is followed, and so are its changes of content.
    let server = serve(&site).unwrap();
    connector(&PKI.b).ask(server.addr()).await.unwrap();
    put(file.parent().unwrap(), "b.pem", &PKI.stranger.cert);
    server.wait_for_event("trust_reloaded", |_| true);
    connector(&PKI.stranger).ask(server.addr()).await.unwrap();
    drop(server);

    fs::remove_file(site.path("trust/b.pem")).unwrap();
    let server = Portcullis::serve(site.flags(&["--no-sandbox"]));
    symlink(&file, site.path("trust/b.pem")).unwrap();
    server.wait_for_event("trust_reloaded", |_| true);
    connector(&PKI.stranger).ask(server.addr()).await.unwrap();
    server.wait_for_event("not_sandboxed", |event| event["why"] == "--no-sandbox");
}

#[tokio::test(flavor = "multi_thread")]
async fn sandbox_sees_recreated_directory_and_renewed_server_certificate() {
    let site = Site::new();
    let Some(server) = serve(&site) else { return };
    fs::remove_dir_all(site.path("trust")).unwrap();
    server.wait_for_event("reload_failed", |_| true);
    fs::create_dir(site.path("trust")).unwrap();
    site.trust("b.pem", &PKI.b.cert);
    server.wait_for_event("trust_reloaded", |event| {
        event["added"][0].as_str().unwrap().contains("b.pem")
    });
    connector(&PKI.b).ask(server.addr()).await.unwrap();

    let renewed = crate::support::pki::another_server();
    put(site.dir.path(), "server.pem", &renewed.cert);
    put(site.dir.path(), "server.key", &renewed.key);
    server.wait_for_event("server_certificate_changed", |_| true);
}

#[tokio::test(flavor = "multi_thread")]
async fn sandbox_follows_a_link_that_changes_within_its_directory() {
    let site = Site::new();
    for release in ["one", "two"] {
        fs::create_dir_all(site.path(release).join("trust")).unwrap();
    }
    put(&site.path("one/trust"), "a.pem", &PKI.a.cert);
    put(&site.path("two/trust"), "b.pem", &PKI.b.cert);
    symlink("one", site.path("current")).unwrap();
    let mut args = site.flags(&[]);
    let trust = site.path("current/trust").into_os_string().into_string().unwrap();
    *args.last_mut().unwrap() = trust;
    let server = Portcullis::serve(args);
    symlink("two", site.path("next")).unwrap();
    fs::rename(site.path("next"), site.path("current")).unwrap();
    server.wait_for_event("trust_reloaded", |_| true);
    connector(&PKI.b).ask(server.addr()).await.unwrap();
}

#[test]
fn key_readable_by_others_is_reported() {
    let site = Site::new();
    let mode = |mode| {
        fs::set_permissions(site.path("server.key"), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o640);
    let server = Portcullis::serve(site.flags(&[]));
    assert!(!server.log().contains("0640"), "{}", server.log());
    mode(0o644);
    server.signal("HUP");
    let warning = server.wait_for_event("trust_file_warning", |event| {
        event["file"].as_str().unwrap().ends_with("server.key")
    });
    assert!(warning["problem"].as_str().unwrap().contains("0644"), "{warning}");
    assert!(warning["remedy"].as_str().unwrap().contains("chmod"), "{warning}");
}

#[test]
fn no_core_dump_holds_the_memory() {
    let site = Site::new();
    let server = Portcullis::serve(site.flags(&[]));
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
}

#[test]
fn sandbox_rights_are_logged_once() {
    let site = Site::new();
    let server = Portcullis::serve(site.flags(&[]));
    let output = || server.log().matches("sandboxed\"").count();
    assert!(wait_for(DEADLINE, || output() == 1), "{}", server.log());
}

/// Starts the server under a seccomp filter that does this to the calls of Landlock, as systemd's
/// `SystemCallFilter=` or a container runtime may.
fn serve_under_filter(site: &Site, action: seccompiler::SeccompAction) -> Portcullis {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let calls = [
        libc::SYS_landlock_create_ruleset,
        libc::SYS_landlock_add_rule,
        libc::SYS_landlock_restrict_self,
    ];
    let filter = SeccompFilter::new(
        calls.map(|call| (call, Vec::new())).into(),
        SeccompAction::Allow,
        action,
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    let flags = site.flags(&[]);
    // A filter is a thread's, and that of the processes that it starts.
    let start = move || {
        seccompiler::apply_filter(&program).unwrap();
        Portcullis::serve(flags)
    };
    std::thread::spawn(start).join().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn server_survives_a_seccomp_filter_that_refuses_or_kills_and_says_which() {
    use seccompiler::SeccompAction;
    let actions = [
        (SeccompAction::Errno(libc::EPERM as u32), "refuses Landlock", "SystemCallFilter="),
        (SeccompAction::Errno(libc::ENOSYS as u32), "hides it", "--no-sandbox"),
        (SeccompAction::KillProcess, "kills", "SystemCallErrorNumber=EPERM"),
    ];
    for (action, why, remedy) in actions {
        let site = Site::new();
        let server = serve_under_filter(&site, action);
        let event = server.wait_for_event("not_sandboxed", |_| true);
        assert!(event["why"].as_str().unwrap().contains(why), "{event}");
        assert!(event["remedy"].as_str().unwrap().contains(remedy), "{event}");
        connector(&PKI.a).ask(server.addr()).await.unwrap();
        assert_eq!(server.terminate(), Some(0));
    }
}

/// The threads of the process, each with whether it can gain no privileges: the sandbox sets that
/// for its thread and all that this one starts.
fn threads(server: &Portcullis) -> Vec<(String, bool)> {
    let tasks = fs::read_dir(server.proc("task")).unwrap();
    let thread = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Some((field("Name:")?.to_owned(), field("NoNewPrivs:")? == "1"))
    };
    tasks.filter_map(Result::ok).filter_map(thread).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_thread_is_confined_the_allocators_too() {
    let site = Site::new();
    let Some(server) = serve(&site) else { return };
    connector(&PKI.a).ask(server.addr()).await.unwrap();
    let has_allocator = || threads(&server).iter().any(|(name, _)| name.contains("jemalloc"));
    assert!(wait_for(DEADLINE, has_allocator), "{:?}", threads(&server));
    let found = threads(&server);
    assert!(found.len() >= 4 && found.iter().all(|(_, is_confined)| *is_confined), "{found:?}");

    let server = Portcullis::serve(site.flags(&["--no-sandbox"]));
    let found = threads(&server);
    let is_inherited = fs::read_to_string("/proc/self/status").unwrap().contains("NoNewPrivs:\t1");
    assert!(is_inherited || found.iter().all(|(_, is_confined)| !is_confined), "{found:?}");
}

#[test]
fn broad_grant_is_a_warning_and_a_narrow_one_is_not() {
    let site = Site::new();
    let Some(server) = serve(&site) else { return };
    assert!(!server.log().contains("sandbox_broad"), "{}", server.log());
    drop(server);
    let mut command = Portcullis::command();
    command.current_dir(site.dir.path());
    let server = Portcullis::serve_by(command, site.flags(&[]));
    let warning = server.wait_for_event("sandbox_broad", |_| true);
    let here = site.dir.path().canonicalize().unwrap();
    assert_eq!(warning["path"], here.to_str().unwrap(), "{warning}");
    assert_eq!(warning["what"], "the working directory", "{warning}");
    assert!(warning["remedy"].is_string(), "{warning}");
    let granted = server.wait_for_event("sandboxed", |_| true);
    let granted = granted["read"].as_array().unwrap();
    assert!(granted.iter().any(|path| path == here.to_str().unwrap()), "{granted:?}");
}
