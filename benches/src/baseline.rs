//! What the machine does by itself, to judge the other figures by.

use crate::report::{Goal, Report};
use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

/// Bytes of a small object.
const OBJECT: [u8; 1024] = [b'x'; 1024];

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let path = std::env::temp_dir().join(format!("sagong-bench-{}", std::process::id()));
    let mut file = File::create(&path)?;
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < Duration::from_secs(1) {
        file.write_all(&OBJECT)?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    report.figure("baseline: appends of 1 KiB made durable one by one", rate, "/s", Goal::None);

    let began = Instant::now();
    let mut sum = 0_u64;
    for n in 0..200_000_000_u64 {
        sum = std::hint::black_box(sum ^ n).rotate_left(5);
    }
    std::hint::black_box(sum);
    let rate = 200.0 / began.elapsed().as_secs_f64();
    report.figure("baseline: million steps of a loop on one processor", rate, "/s", Goal::None);
    Ok(())
}
