//! JSON read in one pass, of which only what matters is looked at: the members of an object as they stand, the first
//! element of a list.
//!
//! A derived struct refuses an object with equal keys. Here each member is shown in its turn, so that of equal ones the last
//! can count, as in most JSON readers.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// What becomes of the members of an object.
pub(super) trait Members<'de>: Default {
    /// The names that it tells apart.
    type Name: Deserialize<'de>;

    /// Whether it takes a member of that name; else the value is skipped, and not even checked for being text.
    fn wants(name: &Self::Name) -> bool;

    /// Takes the next member.
    fn take(&mut self, name: Self::Name, value: &'de RawValue);
}

/// An object, read by its members.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read<M>(pub(super) M);

impl<'de, M: Members<'de>> Deserialize<'de> for Read<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each<M>(PhantomData<M>);

        impl<'de, M: Members<'de>> Visitor<'de> for Each<M> {
            type Value = Read<M>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = M::default();
                while let Some(name) = map.next_key()? {
                    if M::wants(&name) {
                        members.take(name, map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Read(members))
            }
        }

        deserializer.deserialize_map(Each(PhantomData))
    }
}

/// A list: its first element, and how many it has. The others are skipped.
#[derive(Debug)]
pub(super) struct List<T> {
    pub(super) first: Option<T>,
    pub(super) length: u64,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Counting<T> {
            type Value = List<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let first = list.next_element()?;
                let mut length = u64::from(first.is_some());
                while list.next_element::<IgnoredAny>()?.is_some() {
                    length += 1;
                }
                Ok(List { first, length })
            }
        }

        deserializer.deserialize_seq(Counting(PhantomData))
    }
}
