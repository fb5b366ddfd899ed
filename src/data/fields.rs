//! Which fields of a record name its picture and hold its conversation.
//!
//! LLaVA's names are `image` and `conversations`; other tools write `images`, `messages` and more. Unambiguous names
//! are accepted. Other fields that look like a picture or a conversation are errors, because training on a record
//! without its picture teaches a model to hallucinate.

use serde_json::{Map, Value};

use super::record_notes::RecordNote;

/// The field that names the picture.
const IMAGE: &str = "image";

/// The field that holds the conversation.
const CONVERSATIONS: &str = "conversations";

/// Other names of `image`, regardless of their value, in lower case and without `_`, `-` and spaces.
const PICTURE_KEYS: [&str; 22] = [
    "image",
    "images",
    "img",
    "imgs",
    "imagepath",
    "imagepaths",
    "imgpath",
    "imagefile",
    "imagefiles",
    "imgfile",
    "imagename",
    "imgname",
    "imagefilename",
    "picture",
    "pictures",
    "picturepath",
    "photo",
    "photos",
    "pic",
    "imageurl",
    "imageurls",
    "imgurl",
];

/// Fields that name other media, without which a record makes no sense.
const OTHER_MEDIA: [&str; 8] =
    ["video", "videos", "videopath", "videofile", "audio", "audios", "audiopath", "audiofile"];

/// Names that mean a picture if their value has the extension of one.
const FILE_KEYS: [&str; 6] = ["file", "filename", "filepath", "path", "src", "source"];

/// Other names of `conversations`, written the same way.
const CONVERSATION_KEYS: [&str; 9] =
    ["conversations", "conversation", "messages", "message", "dialogue", "dialogues", "dialog", "dialogs", "turns"];

/// Names of answers in data sets with questions and answers instead of conversations.
const ANSWER_KEYS: [&str; 6] = ["answer", "answers", "response", "output", "completion", "chosen"];

/// Extensions of pictures, including unsupported formats.
const EXTENSIONS: [&str; 22] = [
    "apng", "avif", "bmp", "dib", "gif", "heic", "heif", "jfif", "jp2", "jpe", "jpeg", "jpg", "mpo", "pbm", "pgm",
    "png", "pnm", "ppm", "svg", "tif", "tiff", "webp",
];

/// The remark that a record without a conversation has an answer in another field.
pub fn unread_answer(fields: &Map<String, Value>) -> Option<RecordNote> {
    let key = fields.iter().find(|(key, value)| ANSWER_KEYS.contains(&plain(key).as_str()) && says(value));
    key.map(|(key, _)| RecordNote::UnreadAnswer(key.clone()))
}

/// Removes the picture's name from a record's fields. `inline` are the names in its conversation.
///
/// # Errors
/// When there are several, or a value is not the name of a file.
pub fn take_picture(
    fields: &mut Map<String, Value>,
    inline: &[String],
) -> Result<(Option<String>, Option<RecordNote>), String> {
    let mut named: Vec<(String, String)> = Vec::new();
    if let Some((key, _)) = fields.iter().find(|(key, value)| OTHER_MEDIA.contains(&plain(key).as_str()) && says(value))
    {
        return Err(format!("`{key}` names something other than a picture; a record has one picture or none"));
    }
    for key in picture_keys(fields) {
        let found = names(&fields[&key]).map_err(|cause| format!("`{key}` {cause}"))?;
        match found.as_slice() {
            [] => {}
            [name] => named.push((key, name.clone())),
            several => {
                return Err(format!("`{key}` names {} pictures; a record can have only one", several.len()));
            }
        }
    }
    named.extend(inline.iter().map(|name| ("the conversation".to_owned(), name.clone())));
    if let [(first, name), rest @ ..] = named.as_slice()
        && let Some((other, _)) = rest.iter().find(|(_, other)| other != name)
    {
        let quoted = |key: &str| if fields.contains_key(key) { format!("`{key}`") } else { key.to_owned() };
        return Err(format!("{} and {} name different pictures", quoted(first), quoted(other)));
    }
    for key in picture_keys(fields) {
        fields.shift_remove(&key);
    }
    match named.into_iter().next() {
        Some((key, name)) => {
            let usual = key == IMAGE || key == "images" || !inline.is_empty();
            Ok((Some(name), (!usual).then_some(RecordNote::Key(key))))
        }
        None => match fields.iter().find_map(|(key, value)| near_picture(key, value)) {
            Some(key) => Err(format!(
                "`{key}` looks like the name of a picture, but that is read from `{IMAGE}`: rename one of them"
            )),
            None => Ok((None, None)),
        },
    }
}

/// The keys that name the picture: `image` and `images`, or otherwise any other name of these.
fn picture_keys(fields: &Map<String, Value>) -> Vec<String> {
    let keys = |wanted: &dyn Fn(&str, &Value) -> bool| -> Vec<String> {
        fields.iter().filter(|(key, value)| wanted(key, value)).map(|(key, _)| key.clone()).collect()
    };
    let usual = keys(&|key, _| key == IMAGE || key == "images");
    if usual.iter().any(|key| says(&fields[key])) {
        return usual;
    }
    keys(&|key, value| {
        let plain = plain(key);
        is_picture_key(key) || (FILE_KEYS.contains(&plain.as_str()) && looks_like_a_picture(value))
    })
}

/// Whether a field of this name means a picture regardless of its value.
pub(super) fn is_picture_key(key: &str) -> bool {
    PICTURE_KEYS.contains(&plain(key).as_str())
}

/// Whether a field has a non-empty value.
pub(super) fn says(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(values) => !values.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::String(text) => !text.trim().is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// The remark that a record has a system message beside its conversation.
pub(super) fn system_beside(fields: &Map<String, Value>) -> Option<RecordNote> {
    ["system", "system_prompt"]
        .into_iter()
        .filter_map(|key| fields.get(key))
        .any(|message| message.is_string() && says(message))
        .then_some(RecordNote::System)
}

/// The key of a value that looks like a picture's name but is not read: the field itself, or one nested in it.
fn near_picture(key: &str, value: &Value) -> Option<String> {
    if key == "id" {
        return None;
    }
    if looks_like_a_picture(value) {
        return Some(key.to_owned());
    }
    let inner = value.as_object()?.iter().find(|(inner, value)| is_picture_key(inner) && looks_like_a_picture(value));
    inner.map(|(inner, _)| format!("{key}.{inner}"))
}

fn plain(key: &str) -> String {
    key.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

/// The picture names in a value: a string, an object with `path` as `datasets` writes it, or a list of these.
pub(super) fn names(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(name) => file_name(name).map(|name| vec![name]),
        Value::Array(values) => {
            let mut all = Vec::new();
            for value in values {
                all.extend(names(value)?);
            }
            Ok(all)
        }
        Value::Object(fields) => {
            let path = ["path", "file_name", "url", "image"].into_iter().find_map(|key| fields.get(key));
            match path.map(names).transpose()?.as_deref() {
                Some([name]) => Ok(vec![name.clone()]),
                _ if fields.get("bytes").is_some_and(|bytes| !bytes.is_null()) => {
                    Err("contains the picture itself; save it to a file and write the file name here".to_owned())
                }
                _ => Err("is not a picture's name".to_owned()),
            }
        }
        _ => Err("is not a picture's name".to_owned()),
    }
}

fn file_name(written: &str) -> Result<String, String> {
    let scheme = written.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        _ if written.trim().is_empty() => Err("is empty: omit it if the record has no picture".to_owned()),
        Some("http" | "https" | "s3" | "gs" | "hf" | "ftp") => Err("is a URL; pictures are read from files".to_owned()),
        Some("data") => Err("contains the picture itself; save it to a file and write the file name here".to_owned()),
        Some("file") => Ok(written[5..].trim_start_matches("//").to_owned()),
        _ => Ok(written.to_owned()),
    }
}

/// Whether a value is the name of one picture by its extension, or a list of such.
fn looks_like_a_picture(value: &Value) -> bool {
    match value {
        Value::String(name) => name.rsplit_once('.').is_some_and(|(stem, extension)| {
            let extension = extension.to_ascii_lowercase();
            !stem.is_empty() && EXTENSIONS.contains(&extension.as_str())
        }),
        Value::Array(values) => !values.is_empty() && values.iter().all(looks_like_a_picture),
        _ => false,
    }
}

/// Removes the conversation from a record's fields.
///
/// # Errors
/// When several fields hold one, or a field of that name does not.
pub fn take_conversation(fields: &mut Map<String, Value>) -> Result<Option<Value>, String> {
    let said = |key: &str, fields: &Map<String, Value>| fields.get(key).is_some_and(|value| !value.is_null());
    let mut keys: Vec<String> = fields
        .iter()
        .filter(|(key, value)| {
            CONVERSATION_KEYS.contains(&plain(key).as_str()) && (value.is_array() || *key == CONVERSATIONS)
        })
        .map(|(key, _)| key.clone())
        .filter(|key| said(key, fields))
        .collect();
    if keys.len() > 1 && keys.iter().all(|key| fields[key] == fields[&keys[0]]) {
        keys.split_off(1).iter().for_each(|key| drop(fields.shift_remove(key)));
    }
    match keys.as_slice() {
        [key] => Ok(fields.shift_remove(key)),
        [first, second, ..] => Err(format!("`{first}` and `{second}` hold different conversations")),
        [] => {
            fields.shift_remove(CONVERSATIONS);
            let near = |key: &str| {
                let plain = plain(key);
                matches!(plain.as_str(), "conversation" | "messages" | "conversations")
            };
            let other = |(key, value): &(&String, &Value)| {
                !matches!(key.as_str(), "chosen" | "rejected" | "prompt")
                    && (is_conversation(value) || (near(key) && !value.is_null()))
            };
            match fields.iter().find(other) {
                Some((key, value)) if is_conversation(value) => Err(format!(
                    "`{key}` looks like a conversation, but those are read from `{CONVERSATIONS}` or `messages`: rename it"
                )),
                Some((key, _)) => Err(format!("`{key}` is not a list of turns")),
                None => Ok(None),
            }
        }
    }
}

/// Whether a value is a list of turns.
fn is_conversation(value: &Value) -> bool {
    let has = |value: &Value, keys: [&str; 2]| keys.iter().any(|key| value.get(key).is_some());
    let turn = |value: &Value| has(value, ["from", "role"]) && has(value, ["value", "content"]);
    value.as_array().is_some_and(|turns| !turns.is_empty() && turns.iter().all(turn))
}

/// The keys of a record, for messages about a missing one.
pub fn fields_of(fields: &Map<String, Value>) -> String {
    const SHOWN: usize = 8;
    let mut keys: Vec<String> = fields.keys().take(SHOWN).map(|key| format!("`{key}`")).collect();
    keys.extend((fields.len() > SHOWN).then(|| "…".to_owned()));
    if keys.is_empty() { String::new() } else { format!(" (it has {})", keys.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    type Taken = Result<(Option<String>, Option<RecordNote>), String>;

    fn picture(value: Value) -> Taken {
        take_picture(value.as_object().cloned().as_mut().unwrap(), &[])
    }

    fn conversation(value: Value) -> Result<Option<Value>, String> {
        take_conversation(value.as_object().cloned().as_mut().unwrap())
    }

    #[test]
    fn a_picture_is_found_under_every_name_that_can_only_mean_one() {
        for value in [
            json!({"image": "a.png"}),
            json!({"image": ["a.png"]}),
            json!({"images": ["a.png"]}),
            json!({"images": "a.png", "image": null}),
            json!({"image": "a.png", "images": ["a.png"]}),
            json!({"image": {"bytes": null, "path": "a.png"}}),
            json!({"images": [{"path": "a.png"}], "file_name": "b.png"}),
            json!({"image": "file://a.png"}),
        ] {
            assert_eq!(picture(value.clone()), Ok((Some("a.png".to_owned()), None)), "{value}");
        }
        for key in ["img", "image_path", "imagePath", "Image", "picture", "file_name", "filename", "image-file", "path"]
        {
            let (name, remark) = picture(json!({key: "a.png", "id": 3})).unwrap();
            assert_eq!((name.as_deref(), remark), (Some("a.png"), Some(RecordNote::Key(key.to_owned()))));
        }
        assert_eq!(picture(json!({"image": null, "images": [], "img": null, "id": "a.png"})), Ok((None, None)));
        assert_eq!(picture(json!({"path": "chapter 1", "source": "vg", "image_id": 7})), Ok((None, None)));
    }

    #[test]
    fn what_names_no_picture_or_several_is_refused_by_its_key() {
        let cause = |value| picture(value).unwrap_err();
        assert_eq!(cause(json!({"image": ["a.png", "b.png"]})), "`image` names 2 pictures; a record can have only one");
        assert_eq!(
            cause(json!({"images": ["a.png", "b.png"]})),
            "`images` names 2 pictures; a record can have only one"
        );
        assert_eq!(
            cause(json!({"image": "a.png", "images": ["b.png"]})),
            "`image` and `images` name different pictures"
        );
        assert_eq!(cause(json!({"img": "a.png", "file": "b.png"})), "`img` and `file` name different pictures");
        assert_eq!(cause(json!({"image": 3})), "`image` is not a picture's name");
        assert_eq!(cause(json!({"img": {"a": 3}})), "`img` is not a picture's name");
        assert_eq!(cause(json!({"image": " "})), "`image` is empty: omit it if the record has no picture");
        assert!(cause(json!({"image": "https://x.org/a.png"})).contains("is a URL"));
        assert!(cause(json!({"image": {"bytes": "iVBO", "path": null}})).contains("contains the picture itself"));
        assert!(cause(json!({"screenshot": "a.png"})).starts_with("`screenshot` looks like the name of a picture"));
        assert!(cause(json!({"imgae": ["a.jpg"]})).starts_with("`imgae` looks like the name of a picture"));
    }

    #[test]
    fn a_picture_that_the_conversation_names_is_the_records() {
        let taken = |value: Value| take_picture(value.as_object().cloned().as_mut().unwrap(), &["a.png".to_owned()]);
        assert_eq!(taken(json!({})), Ok((Some("a.png".to_owned()), None)));
        assert_eq!(taken(json!({"images": ["a.png"]})), Ok((Some("a.png".to_owned()), None)));
        assert_eq!(
            taken(json!({"image": "b.png"})).unwrap_err(),
            "`image` and the conversation name different pictures"
        );
    }

    #[test]
    fn a_conversation_is_found_under_its_other_names() {
        let turns = json!([{"role": "user", "content": "a"}]);
        for key in ["conversations", "conversation", "messages", "Messages", "dialogue", "turns"] {
            assert_eq!(conversation(json!({key: turns.clone(), "id": 3})), Ok(Some(turns.clone())), "{key}");
        }
        assert_eq!(
            conversation(json!({"conversations": turns.clone(), "messages": turns.clone()})),
            Ok(Some(turns.clone()))
        );
        assert_eq!(conversation(json!({"conversations": null, "message": "hello"})), Ok(None));
        let cause = |value| conversation(value).unwrap_err();
        assert_eq!(
            cause(json!({"conversations": turns.clone(), "messages": []})),
            "`conversations` and `messages` hold different conversations"
        );
        assert_eq!(cause(json!({"messages": "a"})), "`messages` is not a list of turns");
        assert!(cause(json!({"talk": turns.clone()})).starts_with("`talk` looks like a conversation"));
        assert_eq!(conversation(json!({"chosen": turns})), Ok(None));
    }

    #[test]
    fn what_names_a_picture_out_of_place_or_something_else_to_look_at_is_refused() {
        let cause = |value| picture(value).unwrap_err();
        assert!(
            cause(json!({"meta": {"image": "a.png"}})).starts_with("`meta.image` looks like the name of a picture")
        );
        assert!(cause(json!({"image_url": "https://a.org/b"})).contains("is a URL"));
        for value in [
            json!({"video": "a.mp4"}),
            json!({"image": "a.png", "videos": ["b.mp4"]}),
            json!({"audio": {"path": "a.wav"}}),
        ] {
            assert!(
                cause(value.clone())
                    .ends_with("names something other than a picture; a record has one picture or none")
            );
        }
        assert_eq!(
            picture(json!({"videos": [], "audio": null, "video": false, "meta": {"id": "a.png"}})),
            Ok((None, None))
        );
        let known = json!({"image": "a.png", "meta": {"image": "b.png"}});
        assert_eq!(picture(known), Ok((Some("a.png".to_owned()), None)));
    }

    proptest! {
        #[test]
        fn any_record_is_read_or_refused(text in r#"[\[\]{}",:a-z0-9 .]{0,60}"#, key in "[a-z_]{1,12}", value: String) {
            for record in [serde_json::from_str::<Value>(&text).unwrap_or_default(), json!({key: value})] {
                if let Value::Object(mut fields) = record {
                    let _ = take_conversation(&mut fields);
                    let _ = take_picture(&mut fields, &[]);
                }
            }
        }
    }
}
