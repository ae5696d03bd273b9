//! `--roll-back`.

use super::*;

#[test]
fn roll_back_before_the_delete_restores_the_old_certificate() {
    let fleet = Fleet::new().with_traffic();
    // Traffic with the old one never ends there: the rotation stops after the switch.
    let other = fleet.plane.add_api("payments");
    fleet.plane.set_stage(&other, "live", Some(&fleet.old));
    fail(&fleet.rotate(&[]), 1, &["retire"]);
    let new = fleet.presented();
    assert_ne!(new, fleet.old);
    succeed(&fleet.rotate(&["--roll-back"]));
    assert_eq!(fleet.presented(), fleet.old);
    assert_eq!(fleet.plane.certificates().into_keys().collect::<Vec<_>>(), [fleet.old.as_str()]);
    let files = ["gateway-2025.pem".to_owned(), ".portcullis-rotate.lock".to_owned()];
    assert_eq!(fleet.files(), files.into());
    fleet.assert_nothing_lost();
    let again = fleet.rotate(&["--roll-back"]);
    succeed(&again);
    assert!(again.stdout.contains("nothing to do"), "{again}");
}

#[test]
fn roll_back_after_the_delete_is_refused() {
    let fleet = Fleet::new();
    let new = fleet.plane.add_certificate(1, &[("portcullis:replaces", "gone00")]);
    fleet.plane.set_stage(&fleet.api, "prod", Some(&new));
    fail(&fleet.rotate(&["--roll-back"]), 1, &["gone00", "deleted"]);
}
