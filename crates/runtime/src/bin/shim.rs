//! Runs [`sagong_runtime::native::shim_main`] and nothing else, for the tests and benchmarks of this crate.

fn main() -> std::process::ExitCode {
    sagong_runtime::native::shim_main(std::env::args_os().skip(1))
}
