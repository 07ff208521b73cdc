//! YAML as Goose writes it, read into the same values as the other files.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::tree::{Broken, Data, Member, Node};

const HINT: &str = "indent with spaces, and quote texts that hold `: ` or ` #`";
/// Aliases can stand for aliases: what a text of some kilobytes comes to must not fill the memory.
const MOST_NODES: usize = 100_000;

struct Reader<'t> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    /// Bytes at which characters begin: the parser counts characters.
    bytes: Vec<usize>,
    anchors: HashMap<usize, Node>,
    left: usize,
}

pub(super) fn parse(text: &str) -> Result<Node, Broken> {
    let mut bytes: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    bytes.push(text.len());
    let mut reader =
        Reader { events: Parser::new_from_str(text), bytes, anchors: HashMap::new(), left: MOST_NODES };
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => return Ok(Node { at: 0..0, data: Data::Null }),
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) => {
                return reader.node(event, span, 0);
            }
            _ => {}
        }
    }
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Broken> {
        match self.events.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let at = self.byte(error.marker().index());
                Err(Broken::new(at, format!("this is not valid YAML: {}", error.info()), HINT))
            }
            None => Err(Broken::new(0, "this is not valid YAML: it ends too early".to_owned(), HINT)),
        }
    }

    fn byte(&self, character: usize) -> usize {
        self.bytes.get(character).or(self.bytes.last()).copied().unwrap_or_default()
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Broken> {
        let start = self.byte(span.start.index());
        let end = self.byte(span.end.index());
        self.left = self.left.saturating_sub(1);
        if depth > 64 || self.left == 0 {
            return Err(Broken::new(start, "this YAML is nested too deeply, or too large".to_owned(), HINT));
        }
        let (anchor, data) = match event {
            Event::Scalar(text, style, anchor, _) => (anchor, scalar(&text, style)),
            Event::Alias(anchor) => {
                let copy = self.anchors.get(&anchor).cloned();
                let copy = copy.map_or(Data::Null, |node| node.data);
                self.left = self.left.saturating_sub(size(&copy));
                (0, copy)
            }
            Event::SequenceStart(anchor, _) => (anchor, Data::List(self.items(depth)?)),
            Event::MappingStart(anchor, _) => (anchor, Data::Table(self.members(depth)?)),
            _ => (0, Data::Null),
        };
        let node = Node { at: start..end, data };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Broken> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn members(&mut self, depth: usize) -> Result<Vec<Member>, Broken> {
        let mut members = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(members),
                (event, span) => self.node(event, span, depth + 1)?,
            };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            let name = match &key.data {
                Data::Text(text) | Data::Number(text) => text.clone(),
                other => format!("{other:?}"),
            };
            members.push(Member { key: name, key_at: key.at, node });
        }
    }
}

fn size(data: &Data) -> usize {
    match data {
        Data::List(items) => 1 + items.iter().map(|item| size(&item.data)).sum::<usize>(),
        Data::Table(members) => 1 + members.iter().map(|member| size(&member.node.data)).sum::<usize>(),
        _ => 1,
    }
}

/// As the core schema of YAML 1.2 takes plain scalars.
fn scalar(text: &str, style: ScalarStyle) -> Data {
    if style != ScalarStyle::Plain {
        return Data::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Data::Null,
        "true" | "True" | "TRUE" => Data::Boolean(true),
        "false" | "False" | "FALSE" => Data::Boolean(false),
        _ if text.parse::<f64>().is_ok()
            && text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) =>
        {
            Data::Number(text.to_owned())
        }
        _ => Data::Text(text.to_owned()),
    }
}
