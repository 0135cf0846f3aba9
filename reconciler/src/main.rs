//! The `charter` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    reconciler::cli::main()
}
