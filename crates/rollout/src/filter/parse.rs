//! The filter parser: recursive descent with a bounded depth.

use super::{Expr, Field, FilterError, MAX_FILTER_BYTES, Op};

/// Deepest nesting of parentheses and `NOT`; stops stack exhaustion.
const MAX_DEPTH: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Op(Op),
    Has,
    Open,
    Close,
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
}

pub(super) fn parse(text: &str) -> Result<Option<Expr>, FilterError> {
    if text.len() > MAX_FILTER_BYTES {
        return Err(error(1, format!("has {} bytes, at most {MAX_FILTER_BYTES}", text.len())));
    }
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Ok(None);
    }
    let mut parser = Parser { tokens, next: 0, end: text.chars().count() + 1 };
    let root = parser.expression(0)?;
    match parser.tokens.get(parser.next) {
        None => Ok(Some(root)),
        Some((at, _)) => Err(error(*at, "expected AND, OR or the end")),
    }
}

fn error(at: usize, why: impl Into<String>) -> FilterError {
    FilterError { at, why: why.into() }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let (start, next) = (i + 1, chars.get(i + 1));
        let (token, width) = match (chars[i], next) {
            (c, _) if c.is_whitespace() => {
                i += 1;
                continue;
            }
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Close, 1),
            (':', _) => (Token::Has, 1),
            ('=', _) => (Token::Op(Op::Equal), 1),
            ('!', Some('=')) => (Token::Op(Op::NotEqual), 2),
            ('<', Some('=')) => (Token::Op(Op::AtMost), 2),
            ('<', _) => (Token::Op(Op::Less), 1),
            ('>', Some('=')) => (Token::Op(Op::AtLeast), 2),
            ('>', _) => (Token::Op(Op::Greater), 1),
            ('"', _) => {
                let length = chars[i + 1..].iter().position(|c| *c == '"');
                let length = length.ok_or_else(|| error(start, "the closing quote is missing"))?;
                (Token::Text(chars[i + 1..i + 1 + length].iter().collect()), length + 2)
            }
            (c, _) if is_word(c) => {
                let word: String = chars[i..].iter().take_while(|c| is_word(**c)).collect();
                let width = word.chars().count();
                (Token::Word(word), width)
            }
            (c, _) => {
                return Err(error(start, format!("{c:?} has no meaning here; put values in double quotes")));
            }
        };
        tokens.push((start, token));
        i += width;
    }
    Ok(tokens)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '*' | '/')
}

impl Parser {
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.next).map(|(_, t)| t.clone());
        self.next += usize::from(token.is_some());
        token
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_it = matches!(self.tokens.get(self.next), Some((_, Token::Word(w))) if w == word);
        self.next += usize::from(is_it);
        is_it
    }

    fn expression(&mut self, depth: usize) -> Result<Expr, FilterError> {
        let first = self.term(depth)?;
        let (word, other) = if self.take_word("AND") {
            ("AND", "OR")
        } else if self.take_word("OR") {
            ("OR", "AND")
        } else {
            return Ok(first);
        };
        let mut parts = vec![first, self.term(depth)?];
        while self.take_word(word) {
            parts.push(self.term(depth)?);
        }
        let at = self.at();
        if self.take_word(other) {
            return Err(error(at, "AND and OR don't mix without parentheses"));
        }
        Ok(if word == "AND" { Expr::All(parts) } else { Expr::Any(parts) })
    }

    fn term(&mut self, depth: usize) -> Result<Expr, FilterError> {
        let at = self.at();
        if depth > MAX_DEPTH {
            return Err(error(at, format!("nested deeper than {MAX_DEPTH}")));
        }
        if self.take_word("NOT") {
            return Ok(Expr::Not(Box::new(self.term(depth + 1)?)));
        }
        match self.take() {
            Some(Token::Open) => {
                let inner = self.expression(depth + 1)?;
                let at = self.at();
                if self.take() == Some(Token::Close) { Ok(inner) } else { Err(error(at, "expected )")) }
            }
            Some(Token::Word(name)) => self.restriction(field(&name).map_err(|why| error(at, why))?),
            _ => Err(error(at, "expected a field, NOT or (")),
        }
    }

    fn restriction(&mut self, field: Field) -> Result<Expr, FilterError> {
        let op_at = self.at();
        let op = self.take();
        let value_at = self.at();
        match (op, self.take()) {
            (Some(Token::Has), Some(Token::Word(star))) if star == "*" => Ok(Expr::Has(field)),
            (Some(Token::Op(op)), Some(Token::Word(value) | Token::Text(value))) => {
                check(&field, op, &value)
                    .map_err(|(is_op, why)| error(if is_op { op_at } else { value_at }, why))?;
                Ok(Expr::Compare { field, op, value })
            }
            (Some(Token::Op(_)), _) => Err(error(value_at, "expected a value")),
            (Some(Token::Has), _) => Err(error(value_at, "expected * (field:* asks whether it is there)")),
            _ => Err(error(op_at, "expected one of = != < <= > >= :*")),
        }
    }
}

fn check(field: &Field, op: Op, value: &str) -> Result<(), (bool, String)> {
    let is_order = !matches!(op, Op::Equal | Op::NotEqual);
    if is_order && !field.is_ordered() {
        return Err((true, "this field has no order; use = or !=".into()));
    }
    match field {
        Field::Online if !matches!(value, "true" | "false") => Err((false, "online is true or false".into())),
        Field::MemoryBytes if value.parse::<u64>().is_err() => {
            Err((false, "memory_bytes is a whole number".into()))
        }
        _ => Ok(()),
    }
}

fn field(name: &str) -> Result<Field, String> {
    Ok(match name {
        "device" => Field::Device,
        "class" => Field::Class,
        "arch" => Field::Arch,
        "agent_version" => Field::AgentVersion,
        "version" => Field::Version,
        "memory_bytes" => Field::MemoryBytes,
        "online" => Field::Online,
        _ => match name.strip_prefix("labels.") {
            Some(label) if !label.is_empty() => Field::Label(label.to_owned()),
            _ => {
                let known =
                    "device, class, arch, agent_version, version, memory_bytes, online, labels.<name>";
                return Err(format!("no field {name:?}; known fields are {known}"));
            }
        },
    })
}
