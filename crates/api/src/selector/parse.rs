//! The text form of label selectors.

use super::{Operator, Requirement, SelectorError};
use crate::field;
use crate::field::Path;
use crate::name;
use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    End,
    Word(String),
    Symbol(&'static str),
    /// Symbols in a row that mean nothing.
    Garbage(String),
}

impl Token {
    /// As error messages show it.
    fn literal(&self) -> String {
        match self {
            Self::End => String::new(),
            Self::Word(word) => word.clone(),
            Self::Symbol(symbol) => (*symbol).to_owned(),
            Self::Garbage(text) => format!("error expected: keyword found '{text}'"),
        }
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self, Self::Symbol(own) if *own == symbol)
    }
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(BLANKS);
    while !rest.is_empty() {
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else if rest.starts_with('\0') {
            tokens.push(Token::Garbage("\0".to_owned()));
            rest = &rest[1..];
        } else {
            let end = rest.find(|c| BLANKS.contains(&c) || "=!(),><\0".contains(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start_matches(BLANKS);
    }
    tokens
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

struct Parser {
    tokens: std::vec::IntoIter<Token>,
}

impl Parser {
    fn next(&mut self) -> Token {
        self.tokens.next().unwrap_or(Token::End)
    }

    fn peek(&self) -> Token {
        self.tokens.as_slice().first().cloned().unwrap_or(Token::End)
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let negated = token.is("!");
        if negated {
            token = self.next();
        }
        let Token::Word(key) = token else {
            return Err(format!("found '{}', expected: identifier", token.literal()));
        };
        let wrong = name::qualified_name(&key);
        if !wrong.is_empty() {
            // Upstream's path is nil here, and shown so.
            return Err(field::invalid(&Path::new("<nil>"), &key, &wrong.join("; ")).to_string());
        }
        let (operator, values) = if negated {
            (Operator::DoesNotExist, BTreeSet::new())
        } else if self.peek() == Token::End || self.peek().is(",") {
            (Operator::Exists, BTreeSet::new())
        } else {
            self.operator_and_values()?
        };
        Requirement::new(&key, operator, values).map_err(|error| error.0)
    }

    fn operator_and_values(&mut self) -> Result<(Operator, BTreeSet<String>), String> {
        let token = self.next();
        let operator = match &token {
            Token::Symbol("=") => Operator::Equals,
            Token::Symbol("==") => Operator::DoubleEquals,
            Token::Symbol("!=") => Operator::NotEquals,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            Token::Word(word) if word == "in" => return Ok((Operator::In, self.values()?)),
            Token::Word(word) if word == "notin" => return Ok((Operator::NotIn, self.values()?)),
            other => {
                let literal = other.literal();
                return Err(format!("found '{literal}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        };
        let value = match self.peek() {
            Token::End => String::new(),
            token if token.is(",") => String::new(),
            Token::Word(word) => {
                self.next();
                word
            }
            other => return Err(format!("found '{}', expected: identifier", other.literal())),
        };
        Ok((operator, BTreeSet::from([value])))
    }

    /// `(a,b)`. A missing value between commas is the empty string.
    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let open = self.next();
        if !open.is("(") {
            return Err(format!("found '{}' expected: '('", open.literal()));
        }
        if self.peek().is(")") {
            self.next();
            return Ok(BTreeSet::new());
        }
        let mut values = BTreeSet::new();
        loop {
            match self.peek() {
                Token::Word(word) => {
                    self.next();
                    values.insert(word);
                }
                token if token.is(",") || token.is(")") => {
                    values.insert(String::new());
                }
                other => {
                    return Err(format!("found '{}', expected: ',', ')' or identifier", other.literal()));
                }
            }
            match self.next() {
                token if token.is(",") => {}
                token if token.is(")") => return Ok(values),
                other => return Err(format!("found '{}', expected: ',' or ')'", other.literal())),
            }
        }
    }
}

/// The requirements of a selector, in the order given.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text).into_iter() };
    let mut requirements = Vec::new();
    if parser.peek() == Token::End {
        return Ok(requirements);
    }
    loop {
        let first = parser.peek();
        if !(matches!(first, Token::Word(_)) || first.is("!")) {
            let literal = first.literal();
            return Err(SelectorError(if requirements.is_empty() {
                format!("found '{literal}', expected: !, identifier, or 'end of string'")
            } else {
                format!("found '{literal}', expected: identifier after ','")
            }));
        }
        let requirement =
            parser.requirement().map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
        requirements.push(requirement);
        match parser.next() {
            Token::End => return Ok(requirements),
            token if token.is(",") => {}
            other => {
                let literal = other.literal();
                return Err(SelectorError(format!("found '{literal}', expected: ',' or 'end of string'")));
            }
        }
    }
}
