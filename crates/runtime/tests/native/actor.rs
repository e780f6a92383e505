//! The program in the containers of the tests: does what its arguments say. Compiled by itself, statically, with no
//! dependency.

use std::io::Write;

unsafe extern "C" {
    fn ioctl(descriptor: i32, request: u64, ...) -> i32;
}

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
            "echo" => {
                // Not locked: a lock would hold the last line back.
                let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout());
                let mut buffer = vec![0; 65536];
                loop {
                    let length = std::io::Read::read(&mut input, &mut buffer).expect("input");
                    if length == 0 {
                        break;
                    }
                    output.write_all(&buffer[..length]).expect("output");
                    output.flush().expect("flush");
                }
            }
            "size" => {
                let mut size = [0u16; 4];
                const GET_SIZE: u64 = 0x5413;
                let code = unsafe { ioctl(0, GET_SIZE, size.as_mut_ptr()) };
                println!("size {code} {} {}", size[0], size[1]);
            }
            "own" => println!("{:?}", std::fs::OpenOptions::new().write(true).open(next()).map(drop)),
            "serve" => {
                let listener = std::net::TcpListener::bind(("127.0.0.1", next().parse().expect("port"))).expect("listen");
                println!("listening");
                for stream in listener.incoming() {
                    let mut stream = stream.expect("connection");
                    let mut all = Vec::new();
                    std::io::Read::read_to_end(&mut stream, &mut all).expect("read");
                    stream.write_all(format!("{} bytes", all.len()).as_bytes()).expect("write");
                }
            }
            "sleep" => {
                std::io::stdout().flush().expect("flush");
                std::thread::sleep(std::time::Duration::from_millis(next().parse().expect("milliseconds")));
            }
            other => panic!("no verb {other}"),
        }
    }
}
