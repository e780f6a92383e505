//! A template as text, cut into tokens.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Opens an action.
    Left,
    /// Closes it.
    Right,
    Space,
    Dot,
    Field,
    Variable,
    Identifier,
    Keyword,
    Constant,
    Quoted,
    Raw,
    Number,
    Pipe,
    LeftParen,
    RightParen,
    Declare,
    Assign,
    Comma,
    End,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) text: &'t str,
    /// Bytes from the beginning.
    pub(super) position: usize,
}

impl Token<'_> {
    /// As error messages name it.
    pub(super) fn shown(&self) -> String {
        match self.kind {
            Kind::End => "EOF".to_owned(),
            Kind::Keyword => format!("<{}>", self.text),
            _ if self.text.chars().count() > 10 => {
                let start: String = self.text.chars().take(10).collect();
                format!("{}...", crate::failure::quote(&start))
            }
            _ => crate::failure::quote(self.text),
        }
    }
}

const KEYWORDS: [&str; 10] =
    ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];

/// All tokens, the last of them [`Kind::End`].
///
/// # Errors
/// Where a piece is not closed or no piece of a template: what is wrong, and at which byte.
pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, (String, usize)> {
    let mut lexer = Lexer { text, at: 0, tokens: Vec::new(), parens: 0 };
    lexer.all()?;
    lexer.push(Kind::End, lexer.text.len());
    Ok(lexer.tokens)
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    tokens: Vec<Token<'t>>,
    parens: usize,
}

const WHITE: [char; 4] = [' ', '\t', '\r', '\n'];

impl<'t> Lexer<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn push(&mut self, kind: Kind, end: usize) {
        self.tokens.push(Token { kind, text: &self.text[self.at..end], position: self.at });
        self.at = end;
    }

    fn wrong<T>(&self, what: impl Into<String>) -> Result<T, (String, usize)> {
        Err((what.into(), self.at))
    }

    fn all(&mut self) -> Result<(), (String, usize)> {
        let mut trim = false;
        loop {
            let open = self.rest().find("{{").map_or(self.text.len(), |open| self.at + open);
            let inside = open + 2;
            let trims = self.text[open..].len() > 3
                && self.text[inside..].starts_with('-')
                && self.text[inside + 1..].starts_with(WHITE);
            let mut text = &self.text[self.at..open];
            if trim {
                text = text.trim_start_matches(WHITE);
            }
            if trims {
                text = text.trim_end_matches(WHITE);
            }
            if !text.is_empty() {
                self.tokens.push(Token { kind: Kind::Text, text, position: self.at });
            }
            self.at = open;
            if open == self.text.len() {
                return Ok(());
            }
            trim = self.action(if trims { inside + 2 } else { inside })?;
        }
    }

    /// Whether the text after it loses its leading space.
    fn action(&mut self, inside: usize) -> Result<bool, (String, usize)> {
        if self.text[inside..].starts_with("/*") {
            return self.comment(inside);
        }
        self.push(Kind::Left, inside);
        self.parens = 0;
        loop {
            let rest = self.rest();
            let trims = rest.len() > 3 && rest.starts_with(WHITE) && rest[1..].starts_with("-}}");
            if trims || rest.starts_with("}}") {
                if self.parens > 0 {
                    return self.wrong("unclosed left paren");
                }
                self.push(Kind::Right, self.at + if trims { 4 } else { 2 });
                return Ok(trims);
            }
            self.token()?;
        }
    }

    fn comment(&mut self, inside: usize) -> Result<bool, (String, usize)> {
        let Some(end) = self.text[inside..].find("*/") else { return self.wrong("unclosed comment") };
        let after = &self.text[inside + end + 2..];
        let trims = after.starts_with(WHITE) && after[1..].starts_with("-}}");
        if !trims && !after.starts_with("}}") {
            return self.wrong("comment ends before closing delimiter");
        }
        self.at = inside + end + 2 + if trims { 4 } else { 2 };
        Ok(trims)
    }

    fn token(&mut self) -> Result<(), (String, usize)> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return self.wrong("unclosed action") };
        let word = |from: usize| {
            let end = rest[from..].find(|c: char| c != '_' && !c.is_alphanumeric());
            self.at + end.map_or(rest.len(), |end| from + end)
        };
        let one = self.at + first.len_utf8();
        match first {
            c if WHITE.contains(&c) => {
                let blanks = rest.len() - rest.trim_start_matches(WHITE).len();
                // The space before a trimming end belongs to it.
                let end = self.at + blanks;
                let keep = blanks > 1 && self.text[end..].starts_with("-}}");
                self.push(Kind::Space, if keep { end - 1 } else { end });
            }
            ':' if rest.starts_with(":=") => self.push(Kind::Declare, self.at + 2),
            ':' => return self.wrong("expected :="),
            '=' => self.push(Kind::Assign, one),
            '|' => self.push(Kind::Pipe, one),
            ',' => self.push(Kind::Comma, one),
            '"' => self.quoted('"', "unterminated quoted string")?,
            '\'' => self.quoted('\'', "unterminated character constant")?,
            '`' => match rest[1..].find('`') {
                Some(end) => self.push(Kind::Raw, self.at + end + 2),
                None => return self.wrong("unterminated raw quoted string"),
            },
            '(' => {
                self.parens += 1;
                self.push(Kind::LeftParen, one);
            }
            ')' if self.parens == 0 => return self.wrong("unexpected right paren"),
            ')' => {
                self.parens -= 1;
                self.push(Kind::RightParen, one);
            }
            '$' => self.push(Kind::Variable, word(1)),
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let end = word(1);
                self.push(if end == one { Kind::Dot } else { Kind::Field }, end);
            }
            c if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => {
                let number = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '+' | '-');
                let end = rest.find(number).map_or(self.text.len(), |end| self.at + end);
                self.push(Kind::Number, end);
            }
            c if c == '_' || c.is_alphanumeric() => {
                let end = word(0);
                let kind = match &self.text[self.at..end] {
                    "true" | "false" | "nil" => Kind::Constant,
                    name if KEYWORDS.contains(&name) => Kind::Keyword,
                    _ => Kind::Identifier,
                };
                self.push(kind, end);
            }
            c => return self.wrong(format!("unrecognized character in action: U+{:04X} '{c}'", c as u32)),
        }
        Ok(())
    }

    fn quoted(&mut self, quote: char, wrong: &str) -> Result<(), (String, usize)> {
        let mut escaped = false;
        let end = self.rest().char_indices().skip(1).find(|(_, c)| {
            let ends = *c == '\n' || !escaped && *c == quote;
            escaped = !escaped && *c == '\\';
            ends
        });
        match end {
            Some((end, c)) if c == quote => {
                self.push(Kind::Quoted, self.at + end + 1);
                Ok(())
            }
            _ => self.wrong(wrong),
        }
    }
}
