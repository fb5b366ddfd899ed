//! TOML values as Rust's.

use super::mistake::{Mistake, Mistakes};
use super::syntax::{Located, Syntax};

/// A TOML value that a key can have.
pub trait FromToml: Sized {
    /// What to call it in a message: `a number`, `a string`.
    fn expected() -> String;

    /// What to call several: `numbers`, `strings`.
    fn plural() -> String;

    /// The value, or its mistake and place.
    #[doc(hidden)]
    fn from_toml(value: &Located, key: &str, mistakes: &Mistakes) -> Option<Self>;
}

pub(super) fn wrong_type<T: FromToml>(value: &Located, key: &str, mistakes: &Mistakes) -> Option<T> {
    if value.value != Syntax::Broken {
        let found = value.value.name();
        mistakes.add(Mistake::Type { key: key.to_owned(), expected: T::expected(), found }, value.span.clone());
    }
    None
}

impl FromToml for bool {
    fn expected() -> String {
        "a boolean".to_owned()
    }
    fn plural() -> String {
        "booleans".to_owned()
    }
    fn from_toml(value: &Located, key: &str, mistakes: &Mistakes) -> Option<Self> {
        match value.value {
            Syntax::Boolean(value) => Some(value),
            _ => wrong_type(value, key, mistakes),
        }
    }
}

macro_rules! from_toml_integer {
    ($($type:ty),*) => {
        $(impl FromToml for $type {
            fn expected() -> String {
                "an integer".to_owned()
            }
            fn plural() -> String {
                "integers".to_owned()
            }
            fn from_toml(value: &Located, key: &str, mistakes: &Mistakes) -> Option<Self> {
                let Syntax::Integer(number) = value.value else { return wrong_type(value, key, mistakes) };
                // TOML promises 63 bits; more would not survive other programs.
                let limit = i128::from(<$type>::MAX).min(i128::from(i64::MAX));
                let number = number.filter(|number| (0..=limit).contains(number));
                if number.is_none() {
                    let expected = format!("an integer from 0 to {limit}");
                    mistakes.add(Mistake::Range { key: key.to_owned(), expected }, value.span.clone());
                }
                number.and_then(|number| Self::try_from(number).ok())
            }
        })*
    };
}
from_toml_integer!(u64, u32);

impl FromToml for usize {
    fn expected() -> String {
        u64::expected()
    }
    fn plural() -> String {
        u64::plural()
    }
    fn from_toml(value: &Located, key: &str, mistakes: &Mistakes) -> Option<Self> {
        u64::from_toml(value, key, mistakes).and_then(|number| Self::try_from(number).ok())
    }
}

impl FromToml for f64 {
    fn expected() -> String {
        "a number".to_owned()
    }
    fn plural() -> String {
        "numbers".to_owned()
    }
    fn from_toml(value: &Located, key: &str, mistakes: &Mistakes) -> Option<Self> {
        let number = match value.value {
            Syntax::Float(number) => number,
            Syntax::Integer(number) => number.map_or(Self::INFINITY, |number| number as Self),
            _ => return wrong_type(value, key, mistakes),
        };
        if !number.is_finite() {
            let expected = "a finite number".to_owned();
            mistakes.add(Mistake::Range { key: key.to_owned(), expected }, value.span.clone());
            return None;
        }
        Some(number)
    }
}

impl FromToml for String {
    fn expected() -> String {
        "a string".to_owned()
    }
    fn plural() -> String {
        "strings".to_owned()
    }
    fn from_toml(value: &Located, key: &str, mistakes: &Mistakes) -> Option<Self> {
        match &value.value {
            Syntax::String(text) => Some(text.clone()),
            _ => wrong_type(value, key, mistakes),
        }
    }
}

impl<T: FromToml> FromToml for Vec<T> {
    fn expected() -> String {
        format!("a list of {}", T::plural())
    }
    fn plural() -> String {
        format!("lists of {}", T::plural())
    }
    fn from_toml(value: &Located, key: &str, mistakes: &Mistakes) -> Option<Self> {
        let Syntax::List(items) = &value.value else { return wrong_type(value, key, mistakes) };
        // Not `collect`, which would stop at the first mistake.
        let element = |(index, item)| T::from_toml(item, &format!("{key}[{index}]"), mistakes);
        let read: Vec<Option<T>> = items.iter().enumerate().map(element).collect();
        read.into_iter().collect()
    }
}

impl<T: FromToml, const N: usize> FromToml for [T; N] {
    fn expected() -> String {
        format!("a list of {N} {}", T::plural())
    }
    fn plural() -> String {
        format!("lists of {N} {}", T::plural())
    }
    fn from_toml(value: &Located, key: &str, mistakes: &Mistakes) -> Option<Self> {
        if !matches!(value.value, Syntax::List(_)) {
            return wrong_type(value, key, mistakes);
        }
        let items = Vec::<T>::from_toml(value, key, mistakes)?;
        let found = items.len();
        let items = items.try_into().ok();
        if items.is_none() {
            mistakes
                .add(Mistake::Length { key: key.to_owned(), expected: Self::expected(), found }, value.span.clone());
        }
        items
    }
}
