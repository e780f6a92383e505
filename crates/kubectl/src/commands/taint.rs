//! `taint`: marks on nodes that keep pods away.

use crate::builder::{self, Builder};
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::object;
use crate::printers::{DRY_RUN, DryRun, PRINT, Teller};
use crate::write::{self, MERGE};
use serde_json::{Value, json};

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 2] = [
    &PRINT,
    &[
        builder::SELECTOR,
        builder::ALL,
        DRY_RUN,
        write::VALIDATE,
        write::manager("kubectl-taint"),
        flag("overwrite", Takes::Bool, "false", "Change taints that are there"),
    ],
];

/// A taint; one to be removed may have no effect, and then stands for all of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Taint {
    key: String,
    value: String,
    effect: String,
}

impl Taint {
    fn text(&self) -> String {
        match (self.value.as_str(), self.effect.as_str()) {
            ("", "") => self.key.clone(),
            (value, "") => format!("{}={value}:", self.key),
            ("", effect) => format!("{}:{effect}", self.key),
            (value, effect) => format!("{}={value}:{effect}", self.key),
        }
    }

    fn of(value: &Value) -> Self {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        Self { key: text("key"), value: text("value"), effect: text("effect") }
    }

    fn same(&self, other: &Self) -> bool {
        self.key == other.key && self.effect == other.effect
    }

    fn hits(&self, other: &Self) -> bool {
        self.key == other.key && (self.effect.is_empty() || self.effect == other.effect)
    }
}

/// Taints to add and to remove.
fn parse(args: &[String]) -> Result<(Vec<Taint>, Vec<Taint>), String> {
    let (mut add, mut remove): (Vec<Taint>, Vec<Taint>) = (Vec::new(), Vec::new());
    for arg in args {
        match arg.strip_suffix('-') {
            Some(rest) => remove.push(one(rest)?),
            None => {
                let taint = one(arg)?;
                if taint.effect.is_empty() {
                    return Err(format!("invalid taint spec: {arg}"));
                }
                if add.iter().any(|known| known.same(&taint)) {
                    return Err(format!(
                        "duplicated taints with the same key and effect: {{{} {} {} <nil>}}",
                        taint.key, taint.value, taint.effect
                    ));
                }
                add.push(taint);
            }
        }
    }
    Ok((add, remove))
}

fn one(spec: &str) -> Result<Taint, String> {
    let parts: Vec<&str> = spec.split(':').collect();
    let (key, value, effect) = match parts.as_slice() {
        [key] => (*key, "", ""),
        [left, effect] => {
            if !matches!(*effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
                return Err(format!("invalid taint effect: {effect}, unsupported taint effect"));
            }
            match left.split('=').collect::<Vec<_>>().as_slice() {
                [key] => (*key, "", *effect),
                [key, value] => (*key, *value, *effect),
                _ => return Err(format!("invalid taint spec: {spec}")),
            }
        }
        _ => return Err(format!("invalid taint spec: {spec}")),
    };
    let wrong = |errors: Vec<String>| Err(format!("invalid taint spec: {spec}, {}", errors.join("; ")));
    let errors = sagong_api::name::label_value(value);
    if !errors.is_empty() {
        return wrong(errors);
    }
    let errors = sagong_api::name::qualified_name(key);
    if !errors.is_empty() {
        return wrong(errors);
    }
    Ok(Taint { key: key.into(), value: value.into(), effect: effect.into() })
}

/// Runs it.
///
/// # Errors
/// What the command line or the server is to blame for.
pub(crate) async fn run(context: &Context) -> Outcome {
    let flags = &context.flags;
    let is_taint = |arg: &&String| arg.contains(['=', ':']) || arg.ends_with('-');
    let split = flags.args.iter().position(|arg| is_taint(&arg)).unwrap_or(flags.args.len());
    let (resources, taints) = flags.args.split_at(split);
    if let Some(late) = taints.iter().find(|arg| !is_taint(arg)) {
        return fail(format!("all resources must be specified before taint changes: {late}"));
    }
    let (add, remove) = parse(taints).map_err(|why| context.usage(&why))?;
    let Some(resource) = resources.first() else {
        return fail("one or more resources must be specified as <resource> <name>");
    };
    if add.is_empty() && remove.is_empty() {
        return fail("at least one taint update is required");
    }
    if !matches!(resource.to_lowercase().as_str(), "node" | "nodes" | "no") {
        return fail(format!("invalid resource type {resource}, only node types are supported"));
    }
    let both: Vec<String> = remove
        .iter()
        .filter(|gone| add.iter().any(|new| gone.hits(new)))
        .map(|gone| format!("{}={}", gone.key, gone.effect))
        .collect();
    if !both.is_empty() {
        return fail(format!(
            "can not both modify and remove the following taint(s) in the same command: {}",
            both.join(", ")
        ));
    }
    let selector = flags.text("selector");
    if flags.on("all") && !selector.is_empty() {
        return fail("setting 'all' parameter with a non empty selector is prohibited");
    }
    if !flags.on("all") && selector.is_empty() && resources.len() < 2 {
        return fail("at least one resource name must be specified since 'all' parameter is not set");
    }
    let teller = Teller::from_flags(context)?;
    let found = Builder::new(context, resources).run(context).await?;
    let mut failures = found.failures;
    for info in found.infos {
        let before: Vec<Taint> = object::list(&info.object, "/spec/taints").iter().map(Taint::of).collect();
        let (after, done) = match change(&info.name, &before, &add, &remove, flags.on("overwrite")) {
            Ok(changed) => changed,
            Err(why) => {
                failures.push(Failure::Message(why));
                continue;
            }
        };
        let known = object::list(&info.object, "/spec/taints");
        let written: Vec<Value> = after.iter().map(|taint| written(taint, known)).collect();
        let taints = if written.is_empty() { Value::Null } else { written.into() };
        if teller.dry_run == DryRun::Client {
            let mut shown = info.object.clone();
            shown["spec"]["taints"] = taints;
            teller.tell(&shown, done)?;
            continue;
        }
        let query = teller.query(flags.text("field-manager"));
        let patch = json!({"spec": {"taints": taints}});
        match write::patch(context, &info, MERGE, &patch, &query, "").await {
            Ok(object) => teller.tell(&object, done)?,
            Err(error) => failures.push(error),
        }
    }
    Failure::aggregate(failures)
}

/// The taint as the API has it; one that was there keeps when it came.
fn written(taint: &Taint, known: &[Value]) -> Value {
    if let Some(old) = known.iter().find(|old| Taint::of(old) == *taint) {
        return old.clone();
    }
    let mut value = json!({"key": taint.key, "effect": taint.effect});
    if !taint.value.is_empty() {
        value["value"] = taint.value.clone().into();
    }
    value
}

/// The taints of a node afterwards, and what was done.
fn change(
    node: &str,
    before: &[Taint],
    add: &[Taint],
    remove: &[Taint],
    overwrite: bool,
) -> Result<(Vec<Taint>, &'static str), String> {
    let there: Vec<String> =
        add.iter().filter(|new| before.iter().any(|old| old.same(new))).map(|new| new.key.clone()).collect();
    if !overwrite && !there.is_empty() {
        return Err(format!(
            "node {node} already has {} taint(s) with same effect(s) and --overwrite is false",
            there.join(",")
        ));
    }
    let mut after = add.to_vec();
    after.extend(before.iter().filter(|old| !add.iter().any(|new| new.same(old))).cloned());
    let added = after.len() != before.len();
    let (mut missing, mut removed) = (Vec::new(), false);
    for gone in remove {
        let count = after.len();
        after.retain(|taint| !gone.hits(taint));
        if after.len() == count {
            missing.push(format!("taint \"{}\" not found", gone.text()));
        } else {
            removed = true;
        }
    }
    if !missing.is_empty() {
        return Err(if missing.len() == 1 { missing.remove(0) } else { format!("[{}]", missing.join(", ")) });
    }
    Ok((
        after,
        if added && removed || overwrite {
            "modified"
        } else if added {
            "tainted"
        } else {
            "untainted"
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn taints(specs: &str) -> Vec<Taint> {
        specs.split_whitespace().filter_map(|spec| one(spec).ok()).collect()
    }

    #[rstest]
    #[case("", "a=b:NoSchedule", "", false, Ok(("a=b:NoSchedule", "tainted")))]
    #[case("a=b:NoSchedule", "", "a", false, Ok(("", "untainted")))]
    #[case("a=b:NoSchedule", "a=c:NoSchedule", "", true, Ok(("a=c:NoSchedule", "modified")))]
    #[case("a=b:NoSchedule", "c:NoExecute", "a:NoSchedule", false, Ok(("c:NoExecute", "modified")))]
    #[case("a=b:NoSchedule", "", "x", false, Err("taint \"x\" not found"))]
    #[case(
        "a=b:NoSchedule",
        "a=c:NoSchedule",
        "",
        false,
        Err("node n already has a taint(s) with same effect(s) and --overwrite is false")
    )]
    fn taints_are_added_changed_and_removed(
        #[case] before: &str,
        #[case] add: &str,
        #[case] remove: &str,
        #[case] overwrite: bool,
        #[case] expected: Result<(&str, &'static str), &str>,
    ) {
        let found = change("n", &taints(before), &taints(add), &taints(remove), overwrite);
        let expected = expected.map(|(after, done)| (taints(after), done)).map_err(str::to_owned);
        assert_eq!(found, expected);
    }

    #[rstest]
    #[case("a=b:NoS", "invalid taint effect: NoS, unsupported taint effect")]
    #[case("a:b:c", "invalid taint spec: a:b:c")]
    #[case("a=b=c:NoExecute", "invalid taint spec: a=b=c:NoExecute")]
    #[case("a", "invalid taint spec: a")]
    fn a_wrong_taint_is_refused(#[case] typed: &str, #[case] why: &str) {
        assert_eq!(parse(&[typed.to_owned()]), Err(why.to_owned()));
    }
}
