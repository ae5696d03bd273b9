use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::{Fleet, REPLACES, RETIRED};
use crate::control_plane::Fault;
use crate::support::{DEADLINE, Portcullis, wait_for};

fn metrics(daemon: &Portcullis) -> impl Fn() -> String {
    let listening = daemon.wait_for_event("admin_listening", |_| true);
    let address = listening["addr"].as_str().unwrap().to_owned();
    move || {
        let mut socket = TcpStream::connect(&address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text
    }
}

fn value(metrics: &str, series: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{series} in {metrics}"))
}

#[test]
fn daemon_follows_a_rotation_and_sigterm_ends_it_with_0() {
    let (fleet, stage, old) = Fleet::with_stage();
    let daemon = fleet.daemon(&["--stage", &stage]);
    daemon.wait_for_event("fetched", |_| true);
    fleet.assert_ids([&old]);
    let new = fleet.plane.add_certificate(0, &[(REPLACES, &old)]);
    daemon.wait_for_event("certificate_written", |event| event["id"] == new.as_str());
    fleet.switch(&stage, &new);
    fleet.plane.tag_certificate(&old, RETIRED, "yes");
    let removed = daemon.wait_for_event("certificate_removed", |event| event["id"] == old.as_str());
    assert_eq!(removed["reason"], "retired");
    fleet.assert_ids([&new]);
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn daemon_counts_failures_by_kind_and_recovers() {
    let (fleet, stage, old) = Fleet::with_stage();
    let daemon = fleet.daemon(&["--stage", &stage, "--admin", "127.0.0.1:0"]);
    let metrics = metrics(&daemon);
    daemon.wait_for_event("fetched", |_| true);
    let success = "portcullis_fetch_last_success_timestamp_seconds";
    let throttled = "portcullis_fetch_failures_total{kind=\"throttled\"}";
    assert!(wait_for(DEADLINE, || value(&metrics(), success) > 1_700_000_000));
    assert_eq!(value(&metrics(), throttled), 0);
    for _ in 0..5 {
        fleet.plane.fail("GetClientCertificates", Fault::Throttled(None));
    }
    fleet.plane.fail("GetClientCertificates", Fault::EmptyList);
    let failed = daemon.wait_for_event("fetch_failed", |event| event["kind"] == "throttled");
    assert!(failed["remedy"].is_string(), "{failed}");
    daemon.wait_for_event("fetch_failed", |event| event["kind"] == "empty_list");
    daemon.wait_for_event("fetched", |_| true);
    let shown = metrics();
    assert_eq!(value(&shown, throttled), 1);
    assert_eq!(value(&shown, "portcullis_fetch_failures_total{kind=\"empty_list\"}"), 1);
    assert_eq!(value(&shown, "portcullis_fetch_certificates"), 1);
    fleet.assert_ids([&old]);
}

#[test]
fn second_fetch_on_one_directory_exits_1_and_takes_over_when_the_first_ends() {
    let (fleet, stage, old) = Fleet::with_stage();
    let daemon = fleet.daemon(&["--stage", &stage]);
    daemon.wait_for_event("fetched", |_| true);
    fleet.fetch_badly(&["--stage", &stage], &["another fetch writes this directory"]);
    assert_eq!(daemon.terminate(), Some(0));
    fleet.fetch_well(&["--stage", &stage]);
    fleet.assert_ids([&old]);
}

#[test]
fn service_manager_hears_that_it_is_ready_also_if_only_the_disk_is() {
    let (fleet, stage, _) = Fleet::with_stage();
    let path = fleet.directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let receive = || {
        let mut bytes = [0; 256];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    fleet.fetch_well(&["--stage", &stage]);
    for denied in [false, true] {
        if denied {
            fleet.plane.set(|settings| _ = settings.denied.insert("GetStage"));
        }
        let mut command = fleet.command(&["--stage", &stage, "--every", "1m"]);
        let daemon = Portcullis::spawn(command.env("NOTIFY_SOCKET", &path));
        assert!(receive().contains("READY=1"), "{}", daemon.log());
        assert_eq!(daemon.terminate(), Some(0));
        assert!(receive().contains("STOPPING=1"));
    }
    // Without a certificate on disk it is not ready.
    std::fs::remove_dir_all(fleet.trust()).unwrap();
    let mut command = fleet.command(&["--stage", &stage, "--every", "1m"]);
    let daemon = Portcullis::spawn(command.env("NOTIFY_SOCKET", &path));
    daemon.wait_for_event("fetch_failed", |_| true);
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(socket.recv(&mut [0; 256]).is_err());
}

#[test]
fn daemon_ends_if_its_directory_is_replaced() {
    let (fleet, stage, _) = Fleet::with_stage();
    let mut daemon = fleet.daemon(&["--stage", &stage]);
    daemon.wait_for_event("fetched", |_| true);
    std::fs::rename(fleet.trust(), fleet.directory.path().join("away")).unwrap();
    daemon.wait_for_event("fetch_failed", |event| event["kind"] == "disk");
    assert_eq!(daemon.exit_code(), Some(1));
}

#[test]
fn sigterm_ends_a_daemon_that_waits_for_the_control_plane() {
    let (fleet, stage, _) = Fleet::with_stage();
    fleet.plane.hold(Some(crate::control_plane::Hold { call: 1, after: false }));
    let daemon = fleet.daemon(&["--stage", &stage]);
    fleet.plane.wait_for_calls(1, || false);
    assert_eq!(daemon.terminate(), Some(0));
    assert_eq!(fleet.ids(), [""; 0]);
}
