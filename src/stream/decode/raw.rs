//! Raw values of fields, before anybody says what they should be.

use std::ops::Range;

use super::fields::{FieldPlace, Slots};

/// The raw value of a mapped field. [`FieldValues`] holds the strings and the elements of arrays.
// It is returned through memory. A tag of a byte is stored as one and loaded with its neighbours,
// which waits for the store to reach the cache: a tenth of decoding.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(u64)]
pub(crate) enum Raw {
    Missing,
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(Span),
    List(Span),
    /// An object, or an array within an array: no mapped field takes one, so its content is gone.
    Nested,
}

/// The place of a string or an array in the scratch. 32 bits are enough: no record or line is
/// larger than 10 MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Span {
        let narrow = |at| u32::try_from(at).expect("a record is far below 4 GiB");
        Span { start: narrow(start), end: narrow(end) }
    }

    #[inline]
    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

impl Raw {
    /// Its kind, for messages.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Raw::Missing => "nothing",
            Raw::Null => "null",
            Raw::Bool(_) => "a boolean",
            Raw::Signed(_) | Raw::Unsigned(_) => "an integer",
            Raw::Float(_) => "a number with a decimal point or an exponent",
            Raw::Text(_) => "a string",
            Raw::List(_) => "an array",
            Raw::Nested => "an object or a nested array",
        }
    }

    /// A scalar as text: an integer in decimal; none for anything else.
    pub(crate) fn scalar<'r>(
        self,
        found: &'r FieldValues,
        digits: &'r mut itoa::Buffer,
    ) -> Option<&'r str> {
        Some(match self {
            Raw::Text(text) => found.text(text),
            Raw::Signed(value) => digits.format(value),
            Raw::Unsigned(value) => digits.format(value),
            Raw::Bool(true) => "true",
            Raw::Bool(false) => "false",
            _ => return None,
        })
    }

    /// `null` means the same as no field at all.
    #[inline]
    pub(crate) fn absent(self) -> bool {
        matches!(self, Raw::Missing | Raw::Null)
    }

    /// Null and empty strings name nothing.
    #[inline]
    pub(crate) fn names_something(self) -> bool {
        !self.absent() && !matches!(self, Raw::Text(text) if text.range().is_empty())
    }
}

/// Events of one record at most: a session's basket is dozens. Those beyond are counted, not kept.
pub(super) const EVENTS_MAX: usize = 1000;

/// Values of the mapped fields of one record.
#[derive(Debug, Default)]
pub(crate) struct FieldValues {
    pub(super) slots: Vec<Raw>,
    /// Elements of the mapped fields' arrays.
    pub(super) elements: Vec<Raw>,
    /// Their strings, unescaped.
    pub(super) text: String,
    /// Where the record holds several events, what differs between them: an event's values of
    /// [`Fields::each`] a row or, if `rows_are_whole`, of all slots.
    pub(super) rows: Vec<Raw>,
    pub(super) rows_are_whole: bool,
    /// Events that the record holds.
    pub(super) events: usize,
    /// The mapped field that is being read, or was read last.
    pub(super) at: Option<usize>,
}

impl FieldValues {
    /// The value at `place`; a key spelt with dots goes before a path through objects.
    #[inline]
    pub(crate) fn get(&self, place: FieldPlace) -> Raw {
        let at = |slots: Slots| match (self.slots[slots.literal], slots.nested) {
            (Raw::Missing, Some(nested)) => self.slots[nested],
            (literal, _) => literal,
        };
        match place.inner.map(at) {
            None | Some(Raw::Missing) => at(place.own),
            Some(inner) => inner,
        }
    }

    /// Events that the record which was read last holds; [`Fields::select`] chooses one.
    #[inline]
    pub(crate) fn events(&self) -> usize {
        self.events
    }

    pub(super) fn keep(&mut self, text: &str) -> Raw {
        let start = self.text.len();
        self.text.push_str(text);
        Raw::Text(Span::new(start, self.text.len()))
    }

    /// An event is complete, whose values of these `slots` are its own; the next one begins.
    pub(super) fn end_row(&mut self, slots: &[usize]) {
        if self.events < EVENTS_MAX {
            self.rows.extend(slots.iter().map(|&slot| self.slots[slot]));
        }
        self.events += 1;
        slots.iter().for_each(|&slot| self.slots[slot] = Raw::Missing);
    }

    /// A string.
    #[inline]
    pub(crate) fn text(&self, span: Span) -> &str {
        &self.text[span.range()]
    }

    /// Elements of an array.
    #[inline]
    pub(crate) fn elements(&self, span: Span) -> &[Raw] {
        &self.elements[span.range()]
    }
}
