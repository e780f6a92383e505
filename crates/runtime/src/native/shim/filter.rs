//! From an OCI seccomp profile to the program the kernel runs at each system call (classic BPF over `seccomp_data`,
//! see seccomp(2)). Pure.
//!
//! System calls are known by name; their numbers come from the `syscalls` crate. Names that an architecture does not
//! have are passed over, as every runtime does: profiles are written for all of them.

use libcontainer::oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator,
};
use std::collections::{BTreeMap, BTreeSet};

/// Instructions, as the kernel has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) if_true: u8,
    pub(super) if_false: u8,
    pub(super) value: u32,
}

// Of linux/bpf_common.h.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_NOT_LESS: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `SECCOMP_RET_KILL_PROCESS`: for architectures this filter does not know.
const KILL_PROCESS: u32 = 0x8000_0000;
/// `EPERM`, when a profile names no error.
const NOT_ALLOWED: u32 = 1;
/// Most instructions the kernel takes.
const MOST: usize = 4096;

/// An architecture whose programs run on this machine.
struct Table {
    /// `AUDIT_ARCH_…`.
    audit: u32,
    /// The number of a system call.
    number: fn(&str) -> Option<u32>,
    /// Numbers from here on are of yet another ABI (x32), which nobody gets.
    end: Option<u32>,
}

macro_rules! numbers {
    ($table:path) => {
        |name| {
            use $table as Numbers;
            name.parse::<Numbers>().ok().and_then(|found| u32::try_from(found.id()).ok())
        }
    };
}

#[cfg(target_arch = "x86_64")]
const TABLES: &[Table] = &[
    Table { audit: 0xc000_003e, number: numbers!(syscalls::x86_64::Sysno), end: Some(0x4000_0000) },
    Table { audit: 0x4000_0003, number: numbers!(syscalls::x86::Sysno), end: None },
];
#[cfg(target_arch = "aarch64")]
const TABLES: &[Table] = &[
    Table { audit: 0xc000_00b7, number: numbers!(syscalls::aarch64::Sysno), end: None },
    Table { audit: 0x4000_0028, number: numbers!(syscalls::arm::Sysno), end: None },
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("this architecture has no table of system calls yet: add one here");

/// The program for a profile.
///
/// # Errors
/// The sentence to show if the profile asks for what cannot be had.
pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Vec<Instruction>, String> {
    let otherwise = value_of(profile.default_action(), profile.default_errno_ret())?;
    let mut program = vec![load(ARCHITECTURE)];
    for table in TABLES {
        let block = block(profile, table, otherwise)?;
        // Jumps by a test are short, so it only chooses between going on and the long jump.
        program.push(test(JUMP_EQUAL, table.audit, 1, 0));
        program.push(Instruction { code: JUMP, if_true: 0, if_false: 0, value: length(&block)? });
        program.extend(block);
    }
    program.push(give(KILL_PROCESS));
    match program.len() <= MOST {
        true => Ok(program),
        false => Err(format!("the seccomp profile needs {} instructions of at most {MOST}", program.len())),
    }
}

fn length(block: &[Instruction]) -> Result<u32, String> {
    u32::try_from(block.len()).map_err(|error| error.to_string())
}

/// What is done with one system call: the same whatever its arguments, or by the first alternative that fits.
#[derive(Default)]
struct Rule {
    always: Option<u32>,
    alternatives: Vec<(Vec<LinuxSeccompArg>, u32)>,
}

/// The part for one architecture; every path through it ends with an answer.
fn block(profile: &LinuxSeccomp, table: &Table, otherwise: u32) -> Result<Vec<Instruction>, String> {
    let mut rules: BTreeMap<u32, Rule> = BTreeMap::new();
    for given in profile.syscalls().iter().flatten() {
        let value = value_of(given.action(), given.errno_ret())?;
        for number in given.names().iter().filter_map(|name| (table.number)(name)) {
            let rule = rules.entry(number).or_default();
            match given.args().as_deref().unwrap_or_default() {
                [] => rule.always = rule.always.or(Some(value)),
                arguments => {
                    let alternatives = alternatives(arguments).into_iter();
                    rule.alternatives.extend(alternatives.map(|arguments| (arguments, value)));
                }
            }
        }
    }
    let mut block = vec![load(NUMBER)];
    if let Some(end) = table.end {
        block.extend([test(JUMP_NOT_LESS, end, 0, 1), give(otherwise)]);
    }
    for (first, last, value) in ranges(&rules) {
        match first == last {
            true => block.push(test(JUMP_EQUAL, first, 0, 1)),
            false => {
                block.push(test(JUMP_NOT_LESS, first, 0, 2));
                block.push(test(JUMP_GREATER, last, 1, 0));
            }
        }
        block.push(give(value));
    }
    for (number, rule) in rules.iter().filter(|(_, rule)| rule.always.is_none()) {
        let mut body = Vec::new();
        for (arguments, value) in &rule.alternatives {
            body.extend(alternative(arguments, *value)?);
        }
        body.push(give(otherwise));
        block.push(test(JUMP_EQUAL, *number, 1, 0));
        block.push(Instruction { code: JUMP, if_true: 0, if_false: 0, value: length(&body)? });
        block.extend(body);
    }
    block.push(give(otherwise));
    Ok(block)
}

/// Arguments that all have to fit; but if an argument is there twice each is a rule of its own, as runc (for want of
/// anything else in libseccomp) has it, and as profiles rely on.
fn alternatives(arguments: &[LinuxSeccompArg]) -> Vec<Vec<LinuxSeccompArg>> {
    let indices: BTreeSet<usize> = arguments.iter().map(LinuxSeccompArg::index).collect();
    if indices.len() == arguments.len() {
        return vec![arguments.to_vec()];
    }
    arguments.iter().map(|argument| vec![*argument]).collect()
}

/// Neighbours with the same answer, together.
fn ranges(rules: &BTreeMap<u32, Rule>) -> Vec<(u32, u32, u32)> {
    let mut ranges: Vec<(u32, u32, u32)> = Vec::new();
    for (number, rule) in rules {
        let Some(value) = rule.always else { continue };
        match ranges.last_mut() {
            Some((_, last, same)) if *last + 1 == *number && *same == value => *last = *number,
            _ => ranges.push((*number, *number, value)),
        }
    }
    ranges
}

/// Where a test in an alternative leads.
#[derive(Clone, Copy)]
enum To {
    /// The next instruction.
    Next,
    /// Behind the tests of this argument: it fits.
    Fits,
    /// Behind the alternative: it does not fit.
    Fails,
}

/// Answers if all arguments fit; goes on behind itself if not.
fn alternative(arguments: &[LinuxSeccompArg], value: u32) -> Result<Vec<Instruction>, String> {
    let tests: Vec<Vec<(Instruction, To, To)>> = arguments.iter().map(argument).collect::<Result<_, _>>()?;
    let whole = tests.iter().map(Vec::len).sum::<usize>() + 1;
    let mut out = Vec::with_capacity(whole);
    for of_argument in tests {
        let end = out.len() + of_argument.len();
        for (instruction, if_true, if_false) in of_argument {
            let after = out.len() + 1;
            let distance = |to: To| {
                let target = match to {
                    To::Next => after,
                    To::Fits => end,
                    To::Fails => whole,
                };
                u8::try_from(target - after).map_err(|_| "too many arguments in a seccomp rule".to_owned())
            };
            out.push(Instruction {
                if_true: distance(if_true)?,
                if_false: distance(if_false)?,
                ..instruction
            });
        }
    }
    out.push(give(value));
    Ok(out)
}

/// The tests of one argument: 64 bits in two halves, as the kernel's machine has words of 32.
fn argument(given: &LinuxSeccompArg) -> Result<Vec<(Instruction, To, To)>, String> {
    use LinuxSeccompOperator as Operator;
    use To::{Fails, Fits, Next};
    let index = u32::try_from(given.index()).ok().filter(|index| *index < 6);
    let index = index.ok_or_else(|| format!("a system call has no argument {}", given.index()))?;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let place = ARGUMENTS + 8 * index;
    let (place_high, place_low) =
        if cfg!(target_endian = "big") { (place, place + 4) } else { (place + 4, place) };
    let (high, low) = halves(given.value());
    let plain = |instruction| (instruction, Next, Next);
    let jump = |code, value, if_true, if_false| (test(code, value, 0, 0), if_true, if_false);
    let (load_high, load_low) = (plain(load(place_high)), plain(load(place_low)));
    Ok(match given.op() {
        Operator::ScmpCmpEq => {
            vec![load_high, jump(JUMP_EQUAL, high, Next, Fails), load_low, jump(JUMP_EQUAL, low, Next, Fails)]
        }
        Operator::ScmpCmpNe => {
            vec![load_high, jump(JUMP_EQUAL, high, Next, Fits), load_low, jump(JUMP_EQUAL, low, Fails, Next)]
        }
        Operator::ScmpCmpMaskedEq => {
            let (wanted_high, wanted_low) = halves(given.value_two().unwrap_or_default());
            vec![
                load_high,
                plain(Instruction { code: AND, if_true: 0, if_false: 0, value: high }),
                jump(JUMP_EQUAL, wanted_high & high, Next, Fails),
                load_low,
                plain(Instruction { code: AND, if_true: 0, if_false: 0, value: low }),
                jump(JUMP_EQUAL, wanted_low & low, Next, Fails),
            ]
        }
        Operator::ScmpCmpGt | Operator::ScmpCmpGe => {
            let code = if given.op() == Operator::ScmpCmpGt { JUMP_GREATER } else { JUMP_NOT_LESS };
            vec![
                load_high,
                jump(JUMP_GREATER, high, Fits, Next),
                jump(JUMP_EQUAL, high, Next, Fails),
                load_low,
                jump(code, low, Next, Fails),
            ]
        }
        Operator::ScmpCmpLt | Operator::ScmpCmpLe => {
            let code = if given.op() == Operator::ScmpCmpLe { JUMP_GREATER } else { JUMP_NOT_LESS };
            vec![
                load_high,
                jump(JUMP_GREATER, high, Fails, Next),
                jump(JUMP_EQUAL, high, Next, Fits),
                load_low,
                jump(code, low, Fails, Next),
            ]
        }
    })
}

/// What the kernel is to do, as it wants to be told.
fn value_of(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, String> {
    let data = errno.unwrap_or(NOT_ALLOWED) & 0xffff;
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActKillProcess => KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno => 0x0005_0000 | data,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | data,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
        LinuxSeccompAction::ScmpActNotify => return Err("SCMP_ACT_NOTIFY is not supported".to_owned()),
    })
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, if_true: 0, if_false: 0, value: offset }
}

fn test(code: u16, value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction { code, if_true, if_false, value }
}

fn give(value: u32) -> Instruction {
    Instruction { code: RETURN, if_true: 0, if_false: 0, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    const ALLOW: u32 = 0x7fff_0000;
    const EPERM: u32 = 0x0005_0001;

    /// What the kernel's machine would say.
    fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = [0_u8; 64];
        data[..4].copy_from_slice(&number.to_ne_bytes());
        data[4..8].copy_from_slice(&architecture.to_ne_bytes());
        for (index, argument) in arguments.iter().enumerate() {
            data[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_ne_bytes());
        }
        let (mut at, mut word) = (0, 0);
        loop {
            let Instruction { code, if_true, if_false, value } = program[at];
            at += 1;
            let mut jump = |holds: bool| at += usize::from(if holds { if_true } else { if_false });
            match code {
                LOAD => {
                    let from = value as usize;
                    word = u32::from_ne_bytes(data[from..from + 4].try_into().expect("four"));
                }
                AND => word &= value,
                JUMP => at += value as usize,
                JUMP_EQUAL => jump(word == value),
                JUMP_GREATER => jump(word > value),
                JUMP_NOT_LESS => jump(word >= value),
                RETURN => return value,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn compiled(rules: serde_json::Value) -> Vec<Instruction> {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
        compile(&serde_json::from_value(profile).expect("profile")).expect("program")
    }

    fn number(name: &str) -> u32 {
        (TABLES[0].number)(name).expect(name)
    }

    #[test]
    fn what_is_named_is_allowed_on_every_architecture_and_nothing_else() {
        let names = ["read", "write", "close", "exit_group", "no_such_call"];
        let program = compiled(json!([{"names": names, "action": "SCMP_ACT_ALLOW"}]));
        for table in TABLES {
            let say = |name| run(&program, table.audit, (table.number)(name).expect("number"), [0; 6]);
            assert_eq!(say("read"), ALLOW);
            assert_eq!(say("exit_group"), ALLOW);
            assert_eq!(say("ptrace"), EPERM);
        }
        assert_eq!(run(&program, 0x1234, number("read"), [0; 6]), KILL_PROCESS);
        assert_eq!(run(&program, TABLES[0].audit, number("read") | 0x4000_0000, [0; 6]), EPERM, "x32");
    }

    #[rstest]
    #[case("SCMP_CMP_EQ", 5, &[5], &[4, 6, 5 | 1 << 32])]
    #[case("SCMP_CMP_NE", 5, &[4, 6, 5 | 1 << 32], &[5])]
    #[case("SCMP_CMP_GT", 5, &[6, 1 << 32], &[5, 4])]
    #[case("SCMP_CMP_GE", 5, &[5, 6, 1 << 32], &[4])]
    #[case("SCMP_CMP_LT", 5, &[4, 0], &[5, 6, 1 << 32])]
    #[case("SCMP_CMP_LE", 5, &[4, 5], &[6, 1 << 32])]
    #[case("SCMP_CMP_GT", 5 | 1 << 32, &[6 | 1 << 32, 1 << 33], &[5 | 1 << 32, 6, 0])]
    #[case("SCMP_CMP_LT", 5 | 1 << 32, &[4 | 1 << 32, 6], &[5 | 1 << 32, 1 << 33])]
    fn arguments_are_compared_in_all_64_bits(
        #[case] op: &str,
        #[case] value: u64,
        #[case] fits: &[u64],
        #[case] fails: &[u64],
    ) {
        let args = json!([{"index": 1, "value": value, "op": op}]);
        let program = compiled(json!([{"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": args}]));
        let say = |value| run(&program, TABLES[0].audit, number("ioctl"), [9, value, 9, 9, 9, 9]);
        assert!(fits.iter().all(|value| say(*value) == ALLOW));
        assert!(fails.iter().all(|value| say(*value) == EPERM));
    }

    #[test]
    fn one_of_several_alternatives_is_enough_and_all_arguments_of_one_are_needed() {
        let is = |index: usize, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
        let rule = |args| json!({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args});
        let program = compiled(json!([rule(json!([is(0, 1), is(1, 2)])), rule(json!([is(0, 7)]))]));
        let say =
            |first, second| run(&program, TABLES[0].audit, number("socket"), [first, second, 0, 0, 0, 0]);
        assert_eq!((say(1, 2), say(7, 9)), (ALLOW, ALLOW));
        assert_eq!((say(1, 3), say(2, 2)), (EPERM, EPERM));
    }

    #[test]
    fn an_argument_named_twice_may_be_either() {
        let is = |index: usize, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
        let args = json!([is(0, 1), is(0, 2), is(1, 7)]);
        let program = compiled(json!([{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args}]));
        let say =
            |first, second| run(&program, TABLES[0].audit, number("socket"), [first, second, 0, 0, 0, 0]);
        assert_eq!((say(1, 0), say(2, 0), say(3, 7)), (ALLOW, ALLOW, ALLOW));
        assert_eq!(say(3, 0), EPERM);
    }

    #[test]
    fn flags_are_masked_and_errors_can_be_chosen() {
        let args = json!([{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
        let program = compiled(json!([
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": args},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ]));
        let say = |name, flags| run(&program, TABLES[0].audit, number(name), [flags, 0, 0, 0, 0, 0]);
        assert_eq!(say("clone", 0x11), ALLOW);
        assert_eq!(say("clone", 0x1000_0011), EPERM, "a user namespace");
        assert_eq!(say("clone3", 0), 0x0005_0000 | 38);
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let profile = json!({"defaultAction": "SCMP_ACT_NOTIFY"});
        assert!(compile(&serde_json::from_value(profile).expect("profile")).is_err());
    }
}
