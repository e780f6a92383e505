//! `set subject`: who a role binding is for.

use super::create::rbac::subjects;
use crate::builder::{self, Builder};
use crate::context::Context;
use crate::failure::{Failure, Outcome, fail};
use crate::flags::{Flag, Takes, flag};
use crate::object::list;
use crate::printers::{DRY_RUN, DryRun, PRINT, Teller};
use crate::write::{self, MERGE};
use serde_json::{Value, json};

/// Its flags.
pub(crate) const FLAGS: [&[Flag]; 3] = [
    &PRINT,
    &builder::FILES,
    &[
        DRY_RUN,
        builder::SELECTOR,
        builder::ALL,
        write::LOCAL,
        write::manager("kubectl-set"),
        flag("user", Takes::Array, "[]", "Users"),
        flag("group", Takes::Array, "[]", "Groups"),
        flag("serviceaccount", Takes::Array, "[]", "Service accounts, NAMESPACE:NAME"),
    ],
];

/// Runs it.
///
/// # Errors
/// What the command line or the server is to blame for; the server may have no role bindings.
pub(crate) async fn run(context: &Context) -> Outcome {
    let teller = Teller::from_flags(context)?;
    let new = subjects(context)?;
    let mut builder = Builder::new(context, &context.flags.args);
    builder.latest = !context.flags.on("local");
    let found = builder.run(context).await?;
    if new.is_empty() {
        return fail("you must specify at least one value of user, group or serviceaccount");
    }
    let mut failures = found.failures;
    for info in found.infos {
        if !matches!(info.mapping.kind.as_str(), "RoleBinding" | "ClusterRoleBinding") {
            failures.push(Failure::Message(format!(
                "{}/{} is not a role binding: only those have subjects",
                info.mapping.plural, info.name
            )));
            continue;
        }
        let mut all: Vec<Value> = list(&info.object, "/subjects").to_vec();
        let known = all.len();
        all.extend(new.iter().filter(|subject| !list(&info.object, "/subjects").contains(subject)).cloned());
        let mut object = info.object.clone();
        object["subjects"] = all.clone().into();
        if teller.dry_run != DryRun::Client && !context.flags.on("local") {
            if all.len() == known {
                continue;
            }
            let query = teller.query(context.flags.text("field-manager"));
            let patch = json!({"subjects": all});
            match write::patch(context, &info, MERGE, &patch, &query, "").await {
                Ok(patched) => object = patched,
                Err(error) => {
                    failures.push(error);
                    continue;
                }
            }
        }
        teller.tell(&object, "subjects updated")?;
    }
    Failure::aggregate(failures)
}
