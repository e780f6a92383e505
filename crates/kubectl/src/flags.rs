//! Flags as kubectl's users know them: `--name=value`, `-n value`, `-nvalue`, `-it`, bare booleans; and the
//! words for wrong ones.

use crate::failure::{Failure, Outcome, quote};
use std::collections::{BTreeMap, BTreeSet};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, or `=true`/`=false`.
    Bool,
    /// A string; the last one counts.
    Text,
    /// A whole number.
    Number,
    /// A span of time, `1m30s`.
    Span,
    /// Strings, by comma or by repetition.
    List,
    /// Strings, by repetition only.
    Array,
    /// A string; without one, this.
    Maybe(&'static str),
}

/// One flag of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// The long name.
    pub(crate) name: &'static str,
    /// The letter, or a space.
    pub(crate) short: char,
    /// What it takes.
    pub(crate) takes: Takes,
    /// Its default, as help shows it.
    pub(crate) default: &'static str,
    /// What it is for.
    pub(crate) help: &'static str,
}

/// A flag without a letter.
pub(crate) const fn flag(
    name: &'static str,
    takes: Takes,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, short: ' ', takes, default, help }
}

/// A flag with a letter.
pub(crate) const fn short(
    name: &'static str,
    short: char,
    takes: Takes,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, short, takes, default, help }
}

/// What was on the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parsed {
    values: BTreeMap<&'static str, Vec<String>>,
    defaults: BTreeMap<&'static str, &'static str>,
    /// Flags as they were given, in order, with their values.
    pub(crate) order: Vec<(&'static str, String)>,
    /// Arguments that are no flags.
    pub(crate) args: Vec<String>,
    /// Flags of the command that have the name of one that every command has, and hide it.
    own: BTreeSet<&'static str>,
    /// How many of them stood before `--`.
    pub(crate) dash: Option<usize>,
}

impl Parsed {
    /// Whether the flag was given.
    pub(crate) fn given(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
    /// A text of a flag that every command has; empty if the command has a flag of its own by that name.
    pub(crate) fn global(&self, name: &str) -> &str {
        if self.own.contains(name) { "" } else { self.text(name) }
    }
    /// A text; the default if it was not given.
    pub(crate) fn text(&self, name: &str) -> &str {
        match self.values.get(name).and_then(|all| all.last()) {
            Some(value) => value,
            None => self.defaults.get(name).copied().unwrap_or_default(),
        }
    }
    /// Whether a boolean is on.
    pub(crate) fn on(&self, name: &str) -> bool {
        boolean(self.text(name)) == Some(true)
    }
    /// A number.
    pub(crate) fn number(&self, name: &str) -> i64 {
        parse_int(self.text(name)).unwrap_or(0)
    }
    /// A span of time.
    pub(crate) fn span(&self, name: &str) -> i128 {
        parse_duration(self.text(name)).unwrap_or(0)
    }
    /// All values.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.values.get(name).cloned().unwrap_or_default()
    }
}

/// Reads a command line.
///
/// # Errors
/// What pflag says, without the pointer to `--help`.
pub(crate) fn parse(flags: &[&[Flag]], args: &[String]) -> Outcome<Parsed> {
    let mut parsed = Parsed::default();
    for flag in flags.iter().flat_map(|flags| flags.iter()) {
        if parsed.defaults.contains_key(flag.name) {
            parsed.own.insert(flag.name);
            continue;
        }
        parsed.defaults.insert(flag.name, flag.default);
    }
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            parsed.dash = Some(parsed.args.len());
            parsed.args.extend(rest.cloned());
            break;
        }
        if let Some(long) = arg.strip_prefix("--") {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (long, None),
            };
            if name.is_empty() || name.starts_with('-') || name.starts_with('=') {
                return usage(format!("bad flag syntax: {arg}"));
            }
            let Some(flag) = find(flags, |flag| flag.name == name.replace('_', "-")) else {
                if name == "help" {
                    return Err(Failure::Exit(HELP));
                }
                return usage(format!("unknown flag: --{name}"));
            };
            let value = match (value, flag.takes) {
                (Some(value), _) => value,
                (None, Takes::Bool) => "true".into(),
                (None, Takes::Maybe(implied)) => implied.into(),
                (None, _) => match rest.next() {
                    Some(value) => value.clone(),
                    None => return usage(format!("flag needs an argument: --{name}")),
                },
            };
            parsed.store(flag, value, arg)?;
        } else if arg.len() > 1 && arg.starts_with('-') {
            shorts(&mut parsed, flags, arg, &mut rest)?;
        } else {
            parsed.args.push(arg.clone());
        }
    }
    Ok(parsed)
}

/// The code by which [`parse`] says that help was asked for.
pub(crate) const HELP: u8 = 250;

fn usage<T>(text: String) -> Outcome<T> {
    Err(Failure::Message(text))
}

fn find<'a>(flags: &[&'a [Flag]], mut is: impl FnMut(&Flag) -> bool) -> Option<&'a Flag> {
    flags.iter().flat_map(|flags| flags.iter()).find(|flag| is(flag))
}

fn shorts(
    parsed: &mut Parsed,
    flags: &[&[Flag]],
    arg: &str,
    rest: &mut std::slice::Iter<'_, String>,
) -> Outcome {
    let mut letters = &arg[1..];
    while let Some(letter) = letters.chars().next() {
        let after = &letters[letter.len_utf8()..];
        let Some(flag) = find(flags, |flag| flag.short == letter) else {
            if letter == 'h' {
                return Err(Failure::Exit(HELP));
            }
            return usage(format!("unknown shorthand flag: '{letter}' in -{letters}"));
        };
        if let Some(value) = after.strip_prefix('=') {
            return parsed.store(flag, value.to_owned(), arg);
        }
        match flag.takes {
            Takes::Bool => parsed.store(flag, "true".into(), arg)?,
            Takes::Maybe(implied) => parsed.store(flag, implied.into(), arg)?,
            _ if !after.is_empty() => return parsed.store(flag, after.to_owned(), arg),
            _ => {
                let Some(value) = rest.next() else {
                    return usage(format!("flag needs an argument: '{letter}' in -{letters}"));
                };
                return parsed.store(flag, value.clone(), arg);
            }
        }
        letters = after;
    }
    Ok(())
}

impl Parsed {
    fn store(&mut self, flag: &Flag, value: String, _arg: &str) -> Outcome {
        let name = if flag.short == ' ' {
            format!("--{}", flag.name)
        } else {
            format!("-{}, --{}", flag.short, flag.name)
        };
        let invalid = |why: String| {
            usage(format!("invalid argument {} for {} flag: {why}", quote(&value), quote(&name)))
        };
        self.order.push((flag.name, value.clone()));
        match flag.takes {
            Takes::Bool if boolean(&value).is_none() => {
                return invalid(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(&value)));
            }
            Takes::Number if parse_int(&value).is_none() => {
                return invalid(format!("strconv.ParseInt: parsing {}: invalid syntax", quote(&value)));
            }
            Takes::Span if parse_duration(&value).is_none() => {
                return invalid(duration_error(&value));
            }
            Takes::List => {
                let all = self.values.entry(flag.name).or_default();
                if !value.is_empty() {
                    all.extend(value.split(',').map(str::to_owned));
                }
                return Ok(());
            }
            Takes::Array => {
                self.values.entry(flag.name).or_default().push(value);
                return Ok(());
            }
            _ => {}
        }
        self.values.insert(flag.name, vec![value]);
        Ok(())
    }
}

/// What Go takes for a truth value.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Some(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn parse_int(text: &str) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if let Some(hex) = digits.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok().map(|n| sign * n);
    }
    digits.parse::<i64>().ok().map(|n| sign * n)
}

/// Go's wording for text that is no duration.
pub(crate) fn duration_error(text: &str) -> String {
    let digits = text.trim_start_matches(['+', '-']);
    let bare = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    if bare {
        return format!("time: missing unit in duration {}", quote(text));
    }
    let unit: String = digits
        .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
        .chars()
        .take_while(|c| !c.is_ascii_digit() && *c != '.')
        .collect();
    if digits.starts_with(|c: char| c.is_ascii_digit()) && !unit.is_empty() {
        return format!("time: unknown unit {} in duration {}", quote(&unit), quote(text));
    }
    format!("time: invalid duration {}", quote(text))
}

/// A Go duration (`1h2m3.5s`, `0`) in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        total += number
            * match &rest[..unit_end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Some(sign * total as i128)
}
