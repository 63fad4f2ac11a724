//! The `lasthit` program.

fn main() -> std::process::ExitCode {
    lasthit::internals::main()
}
