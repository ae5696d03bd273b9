//! The examples of the library, as programs: each is run and does what its first lines promise.

use std::process::Command;

use crate::support::{path_of_example, run};

#[test]
fn accept_loop_refuses_a_resumed_session_and_a_live_connection_after_a_removal() {
    let finished = run(
        Command::new(path_of_example("accept_loop")).current_dir(env!("CARGO_MANIFEST_DIR")),
        "",
    );
    assert_eq!(finished.code, Some(0), "{finished}");
}
