//! Parameters of nodes and tables, each declared once: name, type, default, class, and a line of help.
//!
//! A declaration is one line of [`parameters!`](crate::parameters). The reader of a pipeline file, the fields of a key,
//! what `stic why` says of a default, the reference and the schema all come from it.

use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::path::PathBuf;

pub use super::declaration::{Class, Declaration, Fallback, Form, by_default, left_out};
use super::declared::{Resource, ResourceKind};
use super::reader::Reader;
use crate::digest::Value;

/// A parameter that names the result: a field of a node's key. Parameters of execution and parameters equal to their
/// default are no fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its dotted name, as in the pipeline file.
    pub name: String,
    /// What it represents: a string, not the file that contains it.
    pub value: Value,
    /// What its change makes stale.
    pub class: Class,
}

impl Parameter {
    /// A parameter of class [`Class::Function`].
    pub fn function(name: &str, value: impl Into<Value>) -> Self {
        Self { name: name.to_owned(), value: value.into(), class: Class::Function }
    }

    /// A parameter of class [`Class::Selection`].
    pub fn selection(name: &str, value: impl Into<Value>) -> Self {
        Self { name: name.to_owned(), value: value.into(), class: Class::Selection }
    }
}

/// The parameters of a table, as [`parameters!`](crate::parameters) declares them.
pub trait Parameters: Sized {
    /// Reads them, reporting every mistake; `None` when one that has no default is missing or wrong.
    fn read(table: &mut Reader<'_>) -> Option<Self>;

    /// Their declarations.
    fn declared() -> Vec<Declaration>;

    /// Those that differ from their defaults, without those of execution and those that enter keys by what they lead
    /// to ([`Setting::resolved`]).
    fn key_fields(&self) -> Vec<Parameter>;

    /// What a table of them may be.
    fn form() -> Form {
        Form::Table { keys: Self::declared(), rest: None }
    }
}

/// Declares the parameters of a table: a struct with a field for each, and [`Parameters`] for it. A field's comment is
/// the parameter's line of help; after `=` comes a [`Setting`], a [`Group`] or a [`Below`].
///
/// ```
/// use stic_engine::spec::parameter::{Parameters, above, number};
///
/// stic_engine::parameters! {
///     /// What a loss needs.
///     pub struct LossParameters {
///         /// Weight of the penalty (Table 6)
///         alpha: f64 = number(above(0.0)).default(0.5),
///     }
/// }
/// assert_eq!(LossParameters::declared()[0].help, "Weight of the penalty (Table 6)");
/// assert!(LossParameters { alpha: 0.5 }.key_fields().is_empty());
/// ```
#[macro_export]
macro_rules! parameters {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[doc = $help:literal])+ $field:ident: $type:ty = $setting:expr,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        $vis struct $name { $($(#[doc = $help])+ pub $field: $type,)* }

        impl $crate::spec::parameter::Parameters for $name {
            fn read(table: &mut $crate::spec::Reader<'_>) -> Option<Self> {
                use $crate::spec::parameter::{Declare, key, of};
                // All are read before a missing one ends it: a key that was never read would be reported as unknown.
                $(let $field = of::<$type, _>($setting).read(table, key(stringify!($field)));)*
                let _ = table;
                Some(Self { $($field: $field?,)* })
            }

            fn declared() -> Vec<$crate::spec::parameter::Declaration> {
                use $crate::spec::parameter::{Declaration, Declare, key, of};
                let lists: Vec<Vec<Declaration>> = vec![$(
                    of::<$type, _>($setting).declared(key(stringify!($field)), concat!($($help),+).trim()),
                )*];
                lists.concat()
            }

            fn key_fields(&self) -> Vec<$crate::spec::parameter::Parameter> {
                use $crate::spec::parameter::{Declare, Parameter, key, of};
                let lists: Vec<Vec<Parameter>> =
                    vec![$(of::<$type, _>($setting).key_fields(key(stringify!($field)), &self.$field),)*];
                lists.concat()
            }
        }
    };
}

/// The key of a field: `r#where` is `where`.
#[doc(hidden)]
pub fn key(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// Ties the expression after `=` to the field's type.
#[doc(hidden)]
pub fn of<T, D: Declare<Value = T>>(declared: D) -> D {
    declared
}

/// The expression after `=` in a declaration.
pub trait Declare {
    /// The field's type.
    type Value;

    /// See [`Parameters::read`].
    fn read(&self, table: &mut Reader<'_>, key: &'static str) -> Option<Self::Value>;

    /// See [`Parameters::declared`].
    fn declared(&self, key: &'static str, help: &'static str) -> Vec<Declaration>;

    /// See [`Parameters::key_fields`].
    fn key_fields(&self, key: &'static str, value: &Self::Value) -> Vec<Parameter>;
}

/// Reads the value of a key; `None` if there is none, or if it is wrong (which is reported).
type Read<T> = Box<dyn Fn(&mut Reader<'_>, &str) -> Option<T>>;

/// The value in the key.
type KeyValue<T> = Box<dyn Fn(&T) -> Option<Value>>;

/// One parameter: what it may be, its default and its class; at first required, of class [`Class::Function`].
pub struct Setting<T> {
    form: Form,
    read: Read<T>,
    /// The value in a key; `None`: it is left out.
    value: KeyValue<T>,
    default: Option<T>,
    fallback: Fallback,
    class: Class,
    resolved: bool,
    /// The key, where that is not the field's name.
    name: Option<&'static str>,
}

impl<T: Clone + 'static> Setting<T> {
    /// A parameter of any type: `read` reads it where it is written, `value` is its value in a key.
    pub fn new(
        form: Form,
        read: impl Fn(&mut Reader<'_>, &str) -> Option<T> + 'static,
        value: impl Fn(&T) -> Option<Value> + 'static,
    ) -> Self {
        let (read, value) = (Box::new(read), Box::new(value));
        Self {
            form,
            read,
            value,
            default: None,
            fallback: Fallback::Required,
            class: Class::Function,
            resolved: false,
            name: None,
        }
    }

    /// Its value unless the file gives one.
    #[must_use]
    pub fn default(mut self, default: T) -> Self {
        self.fallback = (self.value)(&default).map_or(Fallback::Words("none"), Fallback::Value);
        self.default = Some(default);
        self
    }

    /// The same, for a default that no value in the file can express; `words` describe it.
    #[must_use]
    pub fn otherwise(mut self, words: &'static str, default: T) -> Self {
        (self.default, self.fallback) = (Some(default), Fallback::Words(words));
        self
    }

    /// An optional parameter; `words` describe its absence.
    #[must_use]
    pub fn optional(self, words: &'static str) -> Setting<Option<T>> {
        let Self { form, read, value, class, resolved, name, .. } = self;
        Setting {
            form,
            read: Box::new(move |table, key| read(table, key).map(Some)),
            value: Box::new(move |optional| optional.as_ref().and_then(&value)),
            default: Some(None),
            fallback: Fallback::Words(words),
            class,
            resolved,
            name,
        }
    }

    /// Under another key than the field's name.
    #[must_use]
    pub fn named(self, key: &'static str) -> Self {
        Self { name: Some(key), ..self }
    }

    /// As [`Setting::default`], where it matters whether the value was written.
    #[must_use]
    pub fn optional_default(self, default: T) -> Setting<Option<T>> {
        let fallback = (self.value)(&default).map_or(Fallback::Words("none"), Fallback::Value);
        Setting { fallback, ..self.optional("") }
    }

    /// Of class [`Class::Selection`].
    #[must_use]
    pub fn selection(self) -> Self {
        Self { class: Class::Selection, ..self }
    }

    /// Of class [`Class::Execution`].
    #[must_use]
    pub fn execution(self) -> Self {
        Self { class: Class::Execution, ..self }
    }

    /// One that enters keys by what it leads to: a model by its digest, a file by its content. The kind puts it
    /// there, in [`Node::sources`](crate::node::Node::sources).
    #[must_use]
    pub fn resolved(self) -> Self {
        Self { resolved: true, ..self }
    }
}

impl<T: Clone + 'static> Declare for Setting<T> {
    type Value = T;

    fn read(&self, table: &mut Reader<'_>, key: &'static str) -> Option<T> {
        let key = self.name.unwrap_or(key);
        if self.fallback == Fallback::Required {
            table.require(key, &self.form.expected());
        }
        (self.read)(table, key).or_else(|| self.default.clone())
    }

    fn declared(&self, key: &'static str, help: &'static str) -> Vec<Declaration> {
        let (form, fallback, class) = (self.form.clone(), self.fallback.clone(), self.class);
        vec![Declaration { name: self.name.unwrap_or(key), form, fallback, class, help }]
    }

    fn key_fields(&self, key: &'static str, value: &T) -> Vec<Parameter> {
        let key = self.name.unwrap_or(key);
        if self.resolved || self.class == Class::Execution {
            return Vec::new();
        }
        let value = (self.value)(value).filter(|value| self.fallback != Fallback::Value(value.clone()));
        value.map(|value| Parameter { name: key.to_owned(), value, class: self.class }).into_iter().collect()
    }
}

/// Parameters of the same table that are declared elsewhere, since several kinds have them.
pub struct Group<T>(std::marker::PhantomData<T>);

/// See [`Group`].
pub const fn group<T: Parameters>() -> Group<T> {
    Group(std::marker::PhantomData)
}

impl<T: Parameters> Declare for Group<T> {
    type Value = T;

    fn read(&self, table: &mut Reader<'_>, _: &'static str) -> Option<T> {
        T::read(table)
    }

    fn declared(&self, _: &'static str, _: &'static str) -> Vec<Declaration> {
        T::declared()
    }

    fn key_fields(&self, _: &'static str, value: &T) -> Vec<Parameter> {
        value.key_fields()
    }
}

/// Parameters of a table below this one, all of which have defaults.
pub struct Below<T> {
    class: Class,
    table: std::marker::PhantomData<T>,
}

/// See [`Below`].
pub const fn below<T: Parameters>(class: Class) -> Below<T> {
    Below { class, table: std::marker::PhantomData }
}

impl<T: Parameters> Declare for Below<T> {
    type Value = T;

    fn read(&self, table: &mut Reader<'_>, key: &'static str) -> Option<T> {
        let mut below = table.table(key).unwrap_or_else(|| table.empty_table());
        T::read(&mut below)
    }

    fn declared(&self, key: &'static str, help: &'static str) -> Vec<Declaration> {
        let form = T::form();
        let words = match &form {
            Form::Table { keys, rest: None } if !keys.is_empty() => "the defaults of its keys",
            _ => "none",
        };
        vec![Declaration { name: key, form, fallback: Fallback::Words(words), class: self.class, help }]
    }

    fn key_fields(&self, key: &'static str, value: &T) -> Vec<Parameter> {
        let mut fields = value.key_fields();
        fields.iter_mut().for_each(|field| field.name = format!("{key}.{}", field.name));
        fields
    }
}

fn some<T: Clone + Into<Value>>(value: &T) -> Option<Value> {
    Some(value.clone().into())
}

/// `true` or `false`.
pub fn boolean() -> Setting<bool> {
    Setting::new(Form::Boolean, |table, key| table.optional(key), some)
}

/// A finite number in `range`.
pub fn number(range: impl RangeBounds<f64>) -> Setting<f64> {
    let (low, high) = (range.start_bound().cloned(), range.end_bound().cloned());
    let read = move |table: &mut Reader<'_>, key: &str| table.optional_number(key, (low, high));
    Setting::new(Form::Number { low, high }, read, some)
}

/// Numbers above `low`.
pub const fn above(low: f64) -> (Bound<f64>, Bound<f64>) {
    (Bound::Excluded(low), Bound::Unbounded)
}

/// An integer in `range`.
pub fn integer<T>(range: impl RangeBounds<u64>) -> Setting<T>
where
    T: Clone + TryFrom<u64> + Into<Value> + 'static,
{
    let low = match range.start_bound() {
        Bound::Included(low) => *low,
        Bound::Excluded(low) => low + 1,
        Bound::Unbounded => 0,
    };
    let high = match range.end_bound() {
        Bound::Included(high) => Some(*high),
        Bound::Excluded(high) => Some(high.saturating_sub(1)),
        Bound::Unbounded => None,
    };
    let bounds = (Bound::Included(low), high.map_or(Bound::Unbounded, Bound::Included));
    let read = move |table: &mut Reader<'_>, key: &str| T::try_from(table.optional_integer(key, bounds)?).ok();
    Setting::new(Form::Integer { low, high }, read, some)
}

/// Any string.
pub fn string(what: &'static str) -> Setting<String> {
    Setting::new(Form::String { what, blank: true }, |table, key| table.optional(key), some)
}

/// A string that is not blank; messages call it `what`.
pub fn filled_string(what: &'static str) -> Setting<String> {
    Setting::new(Form::String { what, blank: false }, move |table, key| table.string(key, what), some)
}

/// Strings.
pub fn strings(what: &'static str) -> Setting<Vec<String>> {
    let of = Box::new(Form::String { what, blank: true });
    let form = Form::List { of, least: 0, most: None, distinct: false };
    Setting::new(form, |table, key| table.optional(key), some)
}

/// A path, resolved against the pipeline file's directory. Never in a key: what it leads to is.
pub fn path() -> Setting<PathBuf> {
    Setting::new(Form::Path, |table, key| table.path(key), |_| None).resolved()
}

/// One of `choices`, by name.
pub fn choice<T: Clone + PartialEq + 'static>(choices: impl Into<Vec<(&'static str, T)>>) -> Setting<T> {
    let choices: Vec<(&'static str, T)> = choices.into();
    let form = Form::Choice(choices.iter().map(|(name, _)| *name).collect());
    let names = choices.clone();
    let name = move |value: &T| names.iter().find(|(_, known)| known == value).map(|(name, _)| Value::from(*name));
    Setting::new(form, move |table, key| table.optional_choice(key, &choices), name)
}

/// Two numbers in `within`, the first below the second.
pub fn interval(within: RangeInclusive<f64>) -> Setting<[f64; 2]> {
    let (low, high) = (Bound::Included(*within.start()), Bound::Included(*within.end()));
    let form = Form::List { of: Box::new(Form::Number { low, high }), least: 2, most: Some(2), distinct: true };
    let read = move |table: &mut Reader<'_>, key: &str| table.optional_interval(key, within.clone());
    Setting::new(form, read, |value| Some(value.to_vec().into()))
}

/// The name of a resource. Never in a key: its content is.
pub fn resource(kind: ResourceKind) -> Setting<Resource> {
    let form = Form::Resource { noun: kind.noun, table: kind.table };
    Setting::new(form, move |table, key| table.optional_resource(key, &kind), |_| None).resolved()
}
