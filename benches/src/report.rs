//! Figures, printed as they come: measured, goal, and how many times the goal that is (below 1 is good).

use serde_json::{Value, json};

/// Which side of the goal is the good one.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// At most this.
    Below(f64),
    /// At least this.
    Above(f64),
    /// Only told.
    None,
}

/// All figures of a run.
#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<Value>,
}

impl Report {
    /// Heads the report with what it was measured on.
    pub(crate) fn machine(&mut self) -> anyhow::Result<()> {
        let cpus = std::thread::available_parallelism()?;
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let load = load.split(' ').next().unwrap_or_default().to_owned();
        println!("{cpus} processors, load average before the start {load}\n");
        println!("{:<58} {:>12} {:>14} {:>7}", "", "measured", "goal", "ratio");
        self.figures.push(json!({ "processors": cpus.get(), "load": load }));
        Ok(())
    }

    /// Adds a figure. The ratio says how many times the goal was used up, or missed by.
    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &str, goal: Goal) {
        let (text, ratio) = match goal {
            Goal::Below(limit) => (format!("< {} {unit}", number(limit)), Some(value / limit)),
            Goal::Above(limit) => (format!("> {} {unit}", number(limit)), Some(limit / value)),
            Goal::None => (String::new(), None),
        };
        let verdict = ratio.map(|ratio| format!("{ratio:.2}{}", if ratio > 1.0 { " MISSED" } else { "" }));
        println!(
            "{name:<58} {:>12} {text:>14} {:>7}",
            format!("{} {unit}", number(value)),
            verdict.unwrap_or_default()
        );
        self.figures.push(json!({ "name": name, "value": value, "unit": unit, "ratio": ratio }));
    }

    /// The figures for programs.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string_pretty(&self.figures).unwrap_or_default()
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        100.0.. => format!("{value:.0}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The value below which `percent` of the values lie.
pub(crate) fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = ((values.len() as f64 * percent / 100.0).ceil() as usize).clamp(1, values.len().max(1)) - 1;
    values.get(index).copied().unwrap_or(f64::NAN)
}
