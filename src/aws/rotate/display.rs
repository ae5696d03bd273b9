//! How a rotation is shown: a line that moves on a terminal, plain lines elsewhere, or JSON.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

/// The steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Plan,
    Generate,
    Trust,
    Try,
    Switch,
    Quiet,
    Retire,
}

impl Step {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Generate => "generate",
            Self::Trust => "trust",
            Self::Try => "try",
            Self::Switch => "switch",
            Self::Quiet => "quiet",
            Self::Retire => "retire",
        }
    }

    fn number(self) -> usize {
        match self {
            Self::Plan => 1,
            Self::Generate => 2,
            Self::Trust => 3,
            Self::Try => 4,
            Self::Switch => 5,
            Self::Quiet => 6,
            Self::Retire => 7,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Terminal,
    Lines,
    Json,
}

/// What is shown, and the step that is under way.
#[derive(Debug)]
pub(crate) struct Display {
    form: Form,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    step: Step,
    began: Instant,
    bar: Option<ProgressBar>,
    last: String,
}

impl Display {
    pub(crate) fn new(json: bool) -> Self {
        let form = match (json, io::stdout().is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => Form::Terminal,
            (false, false) => Form::Lines,
        };
        let (step, began) = (Step::Plan, Instant::now());
        Self { form, state: Mutex::new(State { step, began, bar: None, last: String::new() }) }
    }

    pub(crate) fn step(&self) -> Step {
        self.state().step
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn start(&self, step: Step, text: &str) {
        let mut state = self.state();
        (state.step, state.began) = (step, Instant::now());
        state.last.clear();
        match self.form {
            Form::Terminal => {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
                let style =
                    ProgressStyle::with_template("{spinner} {prefix} {elapsed:>4} {wide_msg}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
                bar.set_prefix(title(step));
                bar.set_message(text.to_owned());
                bar.enable_steady_tick(Duration::from_millis(200));
                state.bar = Some(bar);
            }
            Form::Lines => print(&format!("{}: {text}", title(step))),
            Form::Json => {
                print_json(
                    &json!({"event": "step", "step": step.as_str(), "state": "started", "detail": text}),
                );
            }
        }
    }

    /// What the step waits for. Repeated texts are shown once.
    pub(crate) fn wait(&self, text: &str) {
        let mut state = self.state();
        if state.last == text {
            return;
        }
        text.clone_into(&mut state.last);
        let (step, elapsed) = (state.step, state.began.elapsed());
        match (self.form, &state.bar) {
            (Form::Terminal, Some(bar)) => bar.set_message(text.to_owned()),
            (Form::Terminal, None) => {}
            (Form::Lines, _) => print(&format!("{}: {text} ({})", title(step), seconds(elapsed))),
            (Form::Json, _) => print_json(&json!({
                "event": "step", "step": step.as_str(), "state": "waiting", "detail": text,
                "elapsed_seconds": round(elapsed),
            })),
        }
    }

    pub(crate) fn finish(&self, text: &str) {
        let mut state = self.state();
        let (step, elapsed) = (state.step, state.began.elapsed());
        let line = format!("{}: {text} ({})", title(step), seconds(elapsed));
        match self.form {
            Form::Terminal => {
                if let Some(bar) = state.bar.take() {
                    bar.finish_and_clear();
                }
                print(&line);
            }
            Form::Lines => print(&line),
            Form::Json => print_json(&json!({
                "event": "step", "step": step.as_str(), "state": "done", "detail": text,
                "elapsed_seconds": round(elapsed),
            })),
        }
    }

    /// Lines for people, one object for machines.
    pub(crate) fn report(&self, lines: &[String], object: &Value) {
        self.clear();
        match self.form {
            Form::Json => print_json(object),
            Form::Lines | Form::Terminal => lines.iter().for_each(|line| print(line)),
        }
    }

    /// A failure: on standard error, or as JSON.
    pub(crate) fn fail(&self, lines: &[String], object: &Value) {
        self.clear();
        match self.form {
            Form::Json => print_json(object),
            Form::Lines | Form::Terminal => {
                let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                let _ = io::stderr().write_all(text.as_bytes());
            }
        }
    }

    fn clear(&self) {
        if let Some(bar) = self.state().bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn title(step: Step) -> String {
    format!("[{}/7] {step}", step.number())
}

fn seconds(elapsed: Duration) -> String {
    humantime::format_duration(Duration::from_secs(elapsed.as_secs())).to_string()
}

fn round(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 10.0).round() / 10.0
}

/// A reader that has gone does not stop a rotation.
fn print(line: &str) {
    let _ = io::stdout().write_all(format!("{line}\n").as_bytes());
}

fn print_json(object: &Value) {
    print(&object.to_string());
}
