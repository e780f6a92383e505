//! Pieces of a template as error messages show them.

use super::{Command, Operand, Pipe, Term};
use std::fmt::{Display, Formatter, Result};

impl Display for Pipe {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        if !self.variables.is_empty() {
            let sign = if self.assigns { "=" } else { ":=" };
            write!(out, "{} {sign} ", self.variables.join(", "))?;
        }
        joined(out, &self.commands, " | ")
    }
}

impl Display for Command {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        joined(out, &self.terms, " ")
    }
}

fn joined(out: &mut Formatter<'_>, parts: &[impl Display], between: &str) -> Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.write_str(between)?;
        }
        part.fmt(out)?;
    }
    Ok(())
}

impl Display for Term {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        let fields = |out: &mut Formatter<'_>, path: &[String]| {
            path.iter().try_for_each(|field| write!(out, ".{field}"))
        };
        match &self.operand {
            Operand::Dot => out.write_str("."),
            Operand::Field(path) => fields(out, path),
            Operand::Variable(name, path) => {
                out.write_str(name)?;
                fields(out, path)
            }
            Operand::Function(name) => out.write_str(name),
            Operand::Constant(_, source) => out.write_str(source),
            Operand::Group(pipe) => write!(out, "({pipe})"),
            Operand::Chain(term, path) => {
                term.fmt(out)?;
                fields(out, path)
            }
        }
    }
}
