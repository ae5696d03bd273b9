//! A machine on which no more inotify instances are to be had. They are counted by user, so this
//! test is alone in its process, and that alone among the tests.

#[path = "it/support/mod.rs"]
mod support;

use rustix::fs::inotify;
use support::pki::PKI;
use support::tls::Site;
use support::{DEADLINE, Portcullis, wait_for};

#[test]
fn without_inotify_it_warns_and_polls() {
    let site = Site::new();
    let mut taken = Vec::new();
    while let Ok(instance) = inotify::init(inotify::CreateFlags::CLOEXEC) {
        taken.push(instance);
        assert!(taken.len() < 100_000, "inotify instances are not limited here");
    }
    let server = Portcullis::serve(site.flags(&["--poll-interval", "200ms"]));
    let event = server.wait_for_event("watch_unavailable", |_| true);
    assert!(event["remedy"].as_str().unwrap().contains("max_user_instances"), "{event}");
    site.trust("b.pem", &PKI.b.cert);
    server.wait_for_event("trust_reloaded", |event| {
        event["added"][0].as_str().unwrap().contains("b.pem")
    });
    assert!(wait_for(DEADLINE, || server.log().matches("watch_unavailable").count() == 1));
    drop(taken);
}
