use super::*;

fn built() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

#[test]
fn flags_are_well_formed_and_each_has_its_variable() {
    let command = built();
    command.clone().debug_assert();
    let runs = |command: &&clap::Command| matches!(command.get_name(), "serve" | "check");
    for subcommand in command.get_subcommands().filter(runs) {
        for flag in subcommand.get_arguments().filter(|flag| flag.get_id() != "help") {
            let name = flag.get_long().unwrap_or_default();
            let variable = format!("PORTCULLIS_{}", name.replace('-', "_").to_uppercase());
            assert_eq!(flag.get_env(), Some(variable.as_ref()), "--{name}");
        }
    }
}

const HEADINGS: [&str; 8] = [
    "Listening",
    "Server certificate",
    "Trusted clients",
    "Upstream",
    "Timeouts",
    "Limits",
    "Shutdown",
    "Observability",
];

#[test]
fn each_flag_of_serve_stands_under_a_heading() {
    let command = built();
    let serve = command.find_subcommand("serve").unwrap();
    for flag in serve.get_arguments().filter(|flag| flag.get_id() != "help") {
        let heading = flag.get_help_heading();
        assert!(heading.is_some_and(|heading| HEADINGS.contains(&heading)), "{flag}: {heading:?}");
    }
}

#[test]
fn each_entry_of_the_help_is_one_line_and_its_long_form_one_paragraph() {
    let is_checked = |command: &&clap::Command| !matches!(command.get_name(), "fetch" | "rotate");
    for subcommand in built().get_subcommands().filter(is_checked) {
        for flag in subcommand.get_arguments().filter(|flag| flag.get_id() != "help") {
            let short = flag.get_help().map(ToString::to_string).unwrap_or_default();
            let long = flag.get_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(!short.is_empty() && short.len() <= 60, "{flag}: {short}");
            assert!(!short.contains('\n') && !long.contains('\n'), "{flag}: {long}");
            let words = short.split_whitespace().chain(long.split_whitespace());
            assert!(words.clone().all(|word| word.to_lowercase() != "how"), "{flag}: {short}");
            assert!(short.starts_with(char::is_uppercase) && !short.ends_with('.'), "{flag}");
        }
    }
}

#[test]
fn short_help_of_serve_fits_on_two_screens() {
    let mut command = command(false);
    command.build();
    let help = command.find_subcommand_mut("serve").unwrap().render_help().to_string();
    let lines = help.lines().count();
    assert!(lines <= 100, "{lines} lines:\n{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
    assert!(!help.contains("env:"), "{help}");
    let long = built().find_subcommand_mut("serve").unwrap().render_long_help().to_string();
    assert!(long.contains("[env: PORTCULLIS_LISTEN="), "{long}");
}
