//! The program in the containers of the tests: does what its arguments say. Compiled by itself, statically, with no
//! dependency.

use std::io::Write;

fn main() {
    let mut arguments = std::env::args().skip(1);
    while let Some(verb) = arguments.next() {
        let mut next = || arguments.next().expect("an argument");
        match verb.as_str() {
            "out" => print!("{}", next().replace("\\n", "\n")),
            "err" => eprint!("{}", next().replace("\\n", "\n")),
            "exit" => {
                std::io::stdout().flush().expect("flush");
                std::process::exit(next().parse().expect("a code"));
            }
            "abort" => std::process::abort(),
            "env" => println!("{}", std::env::var(next()).unwrap_or_default()),
            "cwd" => println!("{}", std::env::current_dir().expect("directory").display()),
            "user" => {
                let status = std::fs::read_to_string("/proc/self/status").expect("status");
                println!("{}", status.lines().find(|line| line.starts_with("Uid:")).expect("user"));
            }
            "cat" => println!("{}", std::fs::read_to_string(next()).unwrap_or_else(|error| format!("error: {error}"))),
            "ls" => {
                let entries = std::fs::read_dir(next()).expect("directory");
                let mut names: Vec<_> = entries.map(|entry| entry.expect("entry").file_name()).collect();
                names.sort();
                println!("{names:?}");
            }
            "write" => println!("{:?}", std::fs::write(next(), "x").map_err(|error| error.kind())),
            "fill" => println!("{}", "x".repeat(next().parse().expect("a size"))),
            "eat" => {
                // Not without end: where no limit is set the machine itself would run out of memory.
                let eaten: Vec<_> = (0..128).map(|_| vec![1u8; 1 << 20]).collect();
                println!("ate {} MiB", eaten.len());
            }
            "child" => {
                let mut command = std::process::Command::new("/bin/actor");
                command.arg("sleep").arg(next()).spawn().expect("child");
            }
            "input" => {
                let read = std::io::stdin().read_line(&mut String::new()).expect("input");
                println!("read {read}");
            }
            "sleep" => {
                std::io::stdout().flush().expect("flush");
                std::thread::sleep(std::time::Duration::from_millis(next().parse().expect("milliseconds")));
            }
            other => panic!("no verb {other}"),
        }
    }
}
