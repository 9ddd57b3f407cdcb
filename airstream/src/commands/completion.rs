//! `airstream completion` and `airstream version`.

use clap::CommandFactory as _;
use clap_complete::Shell;
use serde_json::json;

use super::Context;
use crate::cli::Cli;
use crate::failure::Outcome;

/// The flags of `completion`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "Examples:\n  \
    airstream completion bash > /etc/bash_completion.d/airstream\n  \
    airstream completion zsh > ~/.zfunc/_airstream")]
pub(crate) struct Arguments {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(context: &Context<'_>, arguments: &Arguments) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "airstream", &mut script);
    let script = String::from_utf8_lossy(&script);
    if context.console.is_json() {
        return context.console.json(&json!({"shell": arguments.shell.to_string(), "script": script}));
    }
    context.console.raw(&script)
}

pub(crate) fn version(context: &Context<'_>) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    if context.console.is_json() {
        return context.console.json(&json!({"name": "airstream", "version": version}));
    }
    context.console.line(&format!("airstream {version}"))
}
