//! Killed anywhere, the next run continues.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::control_plane::Hold;

/// Kills a rotation at this call, after or before it takes effect; returns false if it ended earlier.
fn kill_at(fleet: &Fleet, hold: Hold) -> bool {
    fleet.plane.hold(Some(hold));
    let mut child = spawn(&mut fleet.command(&["--probe", "GET /health"]));
    let performed = if hold.after { hold.call } else { hold.call - 1 };
    let mut has_ended = false;
    if hold.after {
        fleet.plane.wait_for_calls(performed, || {
            has_ended = child.try_wait().unwrap().is_some();
            has_ended
        });
    } else {
        wait_for(ENDS, || {
            has_ended = child.try_wait().unwrap().is_some();
            has_ended || fleet.plane.calls().len() >= hold.call
        });
    }
    child.kill().unwrap();
    child.wait().unwrap();
    fleet.plane.hold(None);
    !has_ended
}

#[track_caller]
fn continue_after(hold: Hold) -> bool {
    let fleet = Fleet::new().with_traffic();
    let was_killed = kill_at(&fleet, hold);
    let finished = fleet.rotate(&[]);
    assert_eq!(finished.code, Some(0), "{hold:?}: {finished}");
    let calls = fleet.plane.calls();
    let generated: Vec<_> =
        calls.iter().filter(|call| call.action == "GenerateClientCertificate").collect();
    let had_effect = generated.iter().filter(|call| call.is_performed).count();
    assert_eq!(had_effect, 1, "{hold:?}: {generated:?}");
    fleet.assert_rotated();
    was_killed
}

#[test]
fn rotation_killed_right_after_each_change_continues() {
    // The calls of a first run up to the change are the same each time: they are found by counting.
    let fleet = Fleet::new().with_traffic();
    succeed(&fleet.rotate(&["--probe", "GET /health"]));
    let calls = fleet.plane.calls();
    let changes: Vec<_> =
        (0..calls.len()).filter(|at| !calls[*at].action.starts_with("Get")).collect();
    assert!(changes.len() >= 4, "{calls:?}");
    drop(fleet);
    for at in changes {
        assert!(continue_after(Hold { call: at + 1, after: true }), "call {at}");
    }
}

#[test]
#[ignore = "takes ten minutes; run by .ci/run"]
fn rotation_killed_at_any_call_continues() {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let hold = Hold { call: turn / 2 + 1, after: turn.is_multiple_of(2) };
                    if !continue_after(hold) {
                        break;
                    }
                }
            });
        }
    });
    assert!(next.into_inner() > 40, "a rotation has more than twenty calls");
}
