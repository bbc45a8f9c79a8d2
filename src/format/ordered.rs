//! A line as data for serde, with its members in their original order.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{Error as _, SerializeMap as _},
};

use super::Value;

/// A value whose objects keep their order, unlike those of [`Value`], and whose numbers lose no precision.
enum Ordered {
    Null,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Ordered>),
    Object(Vec<(String, Ordered)>),
}

/// Serialises a line as an object. The hash covers the line itself: the result may escape texts differently.
pub(crate) fn serialize_line<S: Serializer>(line: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let ordered: Ordered = serde_json::from_str(line).map_err(S::Error::custom)?;
    ordered.serialize(serializer)
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(bool) => serializer.serialize_bool(*bool),
            Self::Integer(integer) => serializer.serialize_i64(*integer),
            Self::Unsigned(unsigned) => serializer.serialize_u64(*unsigned),
            Self::Float(float) => serializer.serialize_f64(*float),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => serializer.collect_seq(list),
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(bool) => serializer.serialize_bool(*bool),
            Self::Integer(integer) => serializer.serialize_i64(*integer),
            Self::Float(float) => serializer.serialize_f64(*float),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => serializer.collect_seq(list),
            Self::Object(members) => serializer.collect_map(members),
        }
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OrderedVisitor)
    }
}

struct OrderedVisitor;

impl<'de> Visitor<'de> for OrderedVisitor {
    type Value = Ordered;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Ordered, E> {
        Ok(Ordered::Null)
    }

    fn visit_bool<E>(self, bool: bool) -> Result<Ordered, E> {
        Ok(Ordered::Bool(bool))
    }

    fn visit_i64<E>(self, integer: i64) -> Result<Ordered, E> {
        Ok(Ordered::Integer(integer))
    }

    fn visit_u64<E>(self, unsigned: u64) -> Result<Ordered, E> {
        Ok(Ordered::Unsigned(unsigned))
    }

    fn visit_f64<E>(self, float: f64) -> Result<Ordered, E> {
        Ok(Ordered::Float(float))
    }

    fn visit_str<E>(self, text: &str) -> Result<Ordered, E> {
        Ok(Ordered::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Ordered, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element()? {
            list.push(value);
        }
        Ok(Ordered::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Ordered, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = entries.next_entry()? {
            members.push(member);
        }
        Ok(Ordered::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let mut written = Vec::new();
        serialize_line(line, &mut serde_json::Serializer::new(&mut written)).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn members_keep_their_order_and_numbers_their_precision() {
        for line in [
            r#"{"z":1,"a":{"y":[null,true,-3,{"c":"d","b":"e"}],"x":false},"m":""}"#,
            r#"{"integers":[0,-9007199254740991,9007199254740991,18446744073709551615]}"#,
            r#"{"floats":[0.1,0.30000000000000004,-0.0,5e-324,1.7976931348623157e+308,2.2250738585072014e-308]}"#,
        ] {
            check(line, line);
        }
        check(r#"{"text":"\u00fc\u202e\""}"#, "{\"text\":\"\u{fc}\u{202e}\\\"\"}");
    }
}
