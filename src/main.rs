use std::process::ExitCode;

fn main() -> ExitCode {
    attnscope::cli::main()
}
