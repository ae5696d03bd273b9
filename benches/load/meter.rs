//! What processes cost.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;

/// A process and all its descendants.
pub fn family(pid: i32) -> Vec<i32> {
    let parents: HashMap<i32, i32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name stands in parentheses, and may itself have some.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut family = vec![pid];
    let mut seen = 0;
    while let Some(&one) = family.get(seen) {
        family.extend(parents.iter().filter(|(_, parent)| **parent == one).map(|(pid, _)| *pid));
        seen += 1;
    }
    family
}

/// The processor time of processes, to the nanosecond, threads that have ended included.
fn cpu(family: &[i32]) -> Duration {
    family
        .iter()
        .map(|pid| {
            let clock = clock_getcpuclockid(Pid::from_raw(*pid)).expect("the server runs");
            Duration::from(clock.now().expect("a clock"))
        })
        .sum()
}

/// What processes hold of memory, what they share counted once.
pub fn memory_kib(pid: i32) -> u64 {
    let of = |pid: &i32| -> u64 {
        let maps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let pss = maps.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        pss.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    };
    family(pid).iter().map(of).sum()
}

/// A measurement that has begun.
pub struct Meter {
    family: Vec<i32>,
    server: Duration,
    own: Duration,
    wall: Instant,
}

impl Meter {
    pub fn start(pid: i32) -> Self {
        let family = family(pid);
        Self { server: cpu(&family), own: own(), wall: Instant::now(), family }
    }

    /// The end of the line of JSON.
    pub fn stop(self, operations: usize) -> String {
        let per = |time: Duration| time.as_secs_f64() * 1e6 / operations as f64;
        let (server, own) = (per(cpu(&self.family) - self.server), per(own() - self.own));
        let rate = operations as f64 / self.wall.elapsed().as_secs_f64();
        format!(
            "\"operations\":{operations},\"server_us\":{server:.3},\"own_us\":{own:.3},\
             \"per_second\":{rate:.0}"
        )
    }
}

fn own() -> Duration {
    ClockId::CLOCK_PROCESS_CPUTIME_ID.now().expect("a clock").into()
}
