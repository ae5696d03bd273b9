//! boto3 and the aws cli before the stand-in for API Gateway's control plane, so that it has the
//! shapes of AWS and not those that our own client expects.

use std::path::Path;
use std::process::Command;

use crate::control_plane::ControlPlane;
use crate::interop::{run, source};

#[test]
#[ignore = "needs Python with pip, and PyPI; run by .ci/run"]
fn boto3_and_the_aws_cli_drive_the_stand_in() {
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boto");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"]);
    pip.arg(&packages).args(["boto3", "awscli"]);
    // An installation takes longer than anything else here.
    let installed = pip.status().expect("python3 runs");
    assert!(installed.success(), "{pip:?}");

    let plane = ControlPlane::start();
    let old = plane.add_certificate(330, &[]);
    let api = plane.add_api("orders");
    plane.set_stage(&api, "prod", Some(&old));
    let aws = format!("python3 {}", packages.join("bin/aws").display());
    let mut python = Command::new("python3");
    python.arg(source("control_plane.py")).args([&api, &old, &aws]);
    python.envs(plane.variables()).env("PYTHONPATH", &packages);
    let finished = run(&mut python, "");
    assert_eq!(finished.code, Some(0), "{finished}");
    assert_eq!(finished.stdout, "done\n", "{finished}");
}
