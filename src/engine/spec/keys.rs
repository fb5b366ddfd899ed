//! Which key was meant by one that nothing reads: by how the field and other programs call the same thing, by its
//! spelling, or by its words.
//!
//! This module does not know which keys a table has; it is given them. A dotted one is a key of a table below.

use crate::diagnostic::nearest;

/// What people and other programs call keys, and the keys that they may mean here.
pub type Synonyms = [(&'static [&'static str], &'static [&'static str])];

/// Those of the engine's own keys.
const SYNONYMS: &Synonyms = &[
    (&["type", "op", "class", "node_kind", "task", "kind_of"], &["kind"]),
    (&["input", "in", "depends_on", "needs", "deps", "from_nodes", "requires"], &["inputs"]),
    (&["random_seed", "rng", "random_state", "manual_seed"], &["seed"]),
    (&["sweep", "grid", "foreach", "param_grid", "strategy", "axes"], &["matrix"]),
    (&["frozen", "freezed", "pin", "pinned", "skip"], &["freeze"]),
    (&["includes", "import", "imports", "extends"], &["include"]),
    (&["retry", "max_retries", "attempts"], &["retries"]),
    (&["path", "folder", "repo", "repo_id", "id", "name", "url", "hub_id", "model_path"], &["source"]),
    (&["rev", "branch", "tag", "commit", "version"], &["revision"]),
    (&["title", "id"], &["name"]),
];

/// The keys of `known` that `written` most probably means, the likeliest first; `synonyms` are the program's.
pub fn meant<'a>(written: &str, known: &[&'a str], synonyms: &Synonyms) -> Vec<&'a str> {
    let plain = snake(written);
    if let Some(same) = known.iter().find(|key| **key == plain && **key != written) {
        return vec![same];
    }
    if let Some(port) = known.iter().find(|key| key.rsplit_once('.').is_some_and(|(_, last)| last == plain)) {
        return vec![port];
    }
    let all = synonyms.iter().chain(SYNONYMS);
    let stands_for = all.filter(|(words, _)| words.contains(&plain.as_str())).flat_map(|(_, keys)| *keys);
    // A key of a table below may be written where the table may; of inputs, those that the kind has are known.
    let can_be = |key: &str| known.iter().copied().find(|known| *known == key);
    let below = |key: &'static str| {
        key.split_once('.').filter(|(table, _)| *table != "inputs" && can_be(table).is_some()).map(|_| key)
    };
    let mut found: Vec<&'a str> = Vec::new();
    for key in stands_for {
        if let Some(key) = can_be(key).or_else(|| below(key))
            && !found.contains(&key)
        {
            found.push(key);
        }
    }
    if !found.is_empty() {
        found.truncate(2);
        return found;
    }
    // The name of something else is no misspelling; at most a letter is missing, as in `model` for `models`.
    let is_plain = |name: &str| name == plain || name.rsplit_once('.').is_some_and(|(_, last)| last == plain);
    let is_name = synonyms.iter().any(|(words, keys)| words.iter().chain(*keys).any(|name| is_plain(name)));
    let can_be_meant = |key: &str| !is_name || key.starts_with(&plain) || plain.starts_with(key);
    let own = || known.iter().copied().filter(|key| !key.contains('.') && can_be_meant(key));
    nearest(&plain, own()).or_else(|| by_words(&plain, own())).into_iter().collect()
}

/// The advice on the unknown name `written`: what may have been meant, else all known names.
pub fn suggestion(written: &str, known: &[String], synonyms: &Synonyms) -> Option<String> {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    match meant(written, &known, synonyms)[..] {
        [only] => Some(format!("did you mean `{only}`?")),
        [first, second, ..] => Some(format!("did you mean `{first}`, or `{second}`?")),
        [] => {
            // All of them: a list that is cut is one in which the key is not found.
            let own: Vec<String> =
                known.iter().filter(|key| !key.contains('.')).map(|key| format!("`{key}`")).collect();
            (!own.is_empty()).then(|| format!("known keys: {}", own.join(", ")))
        }
    }
}

/// `maxNewTokens` and `max-new-tokens` as `max_new_tokens`.
fn snake(written: &str) -> String {
    let mut plain = String::new();
    let mut lower = false;
    for c in written.chars() {
        if c.is_uppercase() && lower {
            plain.push('_');
        }
        lower = c.is_lowercase();
        plain.extend(if c == '-' || c == ' ' { vec!['_'] } else { c.to_lowercase().collect() });
    }
    plain
}

/// The key that has all words of `written`, or all of whose words `written` has: the one with the most words in common.
fn by_words<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let words: Vec<&str> = written.split('_').filter(|word| word.len() > 2).collect();
    let common = |key: &str| {
        let of_key: Vec<&str> = key.split('_').filter(|word| word.len() > 2).collect();
        let both = of_key.iter().filter(|word| words.contains(word)).count();
        let all = both > 0 && (both == of_key.len() || both == words.len());
        all.then_some(both)
    };
    known
        .filter_map(|key| Some((common(key)?, key)))
        .max_by_key(|(both, key)| (*both, std::cmp::Reverse(key.len())))
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_synonym_spelling_and_words() {
        let known = &["kind", "inputs", "inputs.pairs", "seed", "warmup_ratio", "max_new_tokens", "speed"];
        let synonyms: &Synonyms = &[(&["velocity"], &["speed"]), (&["spead"], &["spread", "speeds", "inputs.spread"])];
        let pairs = [
            ("type", "kind"),
            ("depends_on", "inputs"),
            ("velocity", "speed"),
            ("pairs", "inputs.pairs"),
            ("maxNewTokens", "max_new_tokens"),
            ("Max-New-Tokens", "max_new_tokens"),
            ("sead", "seed"),
            ("warmup", "warmup_ratio"),
            ("banana", ""),
            // Something else, though spelled alike, and an input that there is not.
            ("spread", ""),
            ("speeds", "speed"),
            ("spead", ""),
        ];
        for (written, expected) in pairs {
            assert_eq!(meant(written, known, synonyms).join(" "), expected, "{written}");
        }
    }
}
