//! Where values come from. Each source is one layer, so that every value can say which one it is from.

use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};

use super::Config;
use crate::failure::{Exit, Failure, Outcome};

/// The file that is read when no other is named.
pub(crate) const FILE: &str = "airstream.toml";
const PREFIX: &str = "AIRSTREAM__";

/// A value from the command line: the flag's name, the key it stands for, the text.
#[derive(Debug, Clone)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: String,
}

/// A configuration that knows where it comes from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    pub(super) figment: Figment,
}

/// Reads everything. `environment` is handed in so that tests need not change their own.
pub(crate) fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[Flag],
) -> Outcome<Loaded> {
    let defaults = defaults()?;
    let mut layers = vec![Layer { name: "default".to_owned(), dict: defaults.clone() }];
    let found = match file {
        Some(path) => Some((path.to_owned(), read(path)?)),
        None if Path::new(FILE).exists() => Some((PathBuf::from(FILE), read(Path::new(FILE))?)),
        None => None,
    };
    if let Some((path, text)) = &found {
        let dict = toml::from_str(text)
            .map_err(|error| Failure::usage(format!("{} is not valid TOML: {error}", path.display())))?;
        layers.push(Layer { name: path.display().to_string(), dict });
    }
    let mut variables: Vec<_> = environment.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    for (name, text) in variables {
        let key = name.trim_start_matches(PREFIX).to_lowercase().replace("__", ".");
        let dict = nested(&key, typed(&key, &text, &defaults));
        layers.push(Layer { name: format!("environment {name}"), dict });
    }
    for flag in flags {
        let dict = nested(flag.key, typed(flag.key, &flag.value, &defaults));
        layers.push(Layer { name: format!("flag {}", flag.name), dict });
    }
    let unknown: Vec<String> = layers.iter().flat_map(|layer| unknown_keys(layer, &defaults)).collect();
    if !unknown.is_empty() {
        return Err(wrong(unknown));
    }
    let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
    let (config, mut mistakes) = extract(&figment, &defaults);
    mistakes.extend(config.iter().flat_map(Config::mistakes));
    match config {
        Some(config) if mistakes.is_empty() => Ok(Loaded { config, file: found.map(|(path, _)| path), figment }),
        _ => Err(wrong(mistakes)),
    }
}

/// The configuration, and a sentence per value of a wrong type. Each of those counts as its default from then on, so that
/// all of them are found at once.
fn extract(figment: &Figment, defaults: &Dict) -> (Option<Config>, Vec<String>) {
    let mut figment = figment.clone();
    let mut mistakes = Vec::new();
    loop {
        let error = match figment.extract() {
            Ok(config) => return (Some(config), mistakes),
            Err(error) => error,
        };
        let key = error.path.join(".");
        let more: Vec<String> = error.into_iter().map(sentence).collect();
        let before = mistakes.len();
        mistakes.extend(more.into_iter().filter(|one| !mistakes.contains(one)).collect::<Vec<_>>());
        let Some(value) = look_up(defaults, &key).filter(|_| mistakes.len() > before) else {
            return (None, mistakes);
        };
        figment = figment.merge(Layer { name: "default".to_owned(), dict: nested(&key, value.clone()) });
    }
}

fn wrong(mistakes: Vec<String>) -> Failure {
    Failure::usage("the configuration is not usable")
        .details(mistakes)
        .hint("config.default.toml explains every key in its section, and what it may be")
}

fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("could not read the configuration file {}: {error}", path.display())))
}

pub(super) fn defaults() -> Outcome<Dict> {
    let value = Value::serialize(Config::default()).map_err(|error| Failure::because(Exit::Failed, &error))?;
    Ok(value.into_dict().unwrap_or_default())
}

/// One source of values.
struct Layer {
    name: String,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// `a.b` and a value as a dictionary in a dictionary.
fn nested(key: &str, value: Value) -> Dict {
    let (first, rest) = match key.split_once('.') {
        None => (key, value),
        Some((first, rest)) => (first, Value::from(nested(rest, value))),
    };
    Dict::from([(first.to_owned(), rest)])
}

/// A list is separated by commas. Text becomes a number only where a number belongs: a password of digits is still a text.
fn typed(key: &str, text: &str, defaults: &Dict) -> Value {
    match look_up(defaults, key) {
        Some(Value::Num(..)) => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
        Some(Value::Bool(..)) => text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from),
        Some(Value::Array(..)) => {
            let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
            Value::from(items)
        }
        _ => Value::from(text),
    }
}

fn look_up<'a>(dict: &'a Dict, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => dict.get(key),
        Some((first, rest)) => look_up(dict.get(first)?.as_dict()?, rest),
    }
}

/// Every key and section there is.
pub(super) fn known_keys(defaults: &Dict) -> Vec<String> {
    let mut keys = Vec::new();
    for (name, value) in defaults {
        match value.as_dict() {
            None => keys.push(name.clone()),
            Some(section) => keys.extend(known_keys(section).into_iter().map(|key| format!("{name}.{key}"))),
        }
    }
    keys
}

fn unknown_keys(layer: &Layer, defaults: &Dict) -> Vec<String> {
    let known = known_keys(defaults);
    let given = known_keys(&layer.dict);
    let unknown = given.into_iter().filter(|key| {
        // A section that should be a key, or the other way round, is a matter of types and told with its type.
        look_up(defaults, key).is_none() && !known.iter().any(|known| key.starts_with(&format!("{known}.")))
    });
    unknown
        .map(|key| {
            let section = key.split_once('.').map(|(section, _)| section);
            let expected = match known.iter().min_by_key(|known| distance(known, &key)) {
                Some(near) if distance(near, &key) <= 3 => format!("did you mean `{near}`?"),
                _ => match section.and_then(|section| defaults.get(section)).and_then(Value::as_dict) {
                    Some(keys) => format!("there are {}", keys.keys().cloned().collect::<Vec<_>>().join(", ")),
                    None => format!("the sections are {}", defaults.keys().cloned().collect::<Vec<_>>().join(", ")),
                },
            };
            format!("unknown key `{key}` ({}): {expected}", layer.name)
        })
        .collect()
}

fn sentence(error: Error) -> String {
    let origin = error.metadata.as_ref().map(|metadata| metadata.name.to_string()).unwrap_or_default();
    format!("{} ({origin}): {}", error.path.join("."), error.kind)
}

/// Levenshtein's: how many letters are to be typed, removed or replaced.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.iter().zip(row.iter().skip(1)) {
            left = (before + usize::from(x != *y)).min(above + 1).min(left + 1);
            before = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn later_layers_win_and_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.toml");
        std::fs::write(&file, "[http]\nbind = '127.0.0.1:1'\nbody_limit_bytes = 7\n[nats]\nreplicas = 3\n").unwrap();
        let environment = variables(&[
            ("AIRSTREAM__NATS__REPLICAS", "5"),
            ("AIRSTREAM__NATS__PASSWORD", "0123"),
            ("AIRSTREAM_URL", "not for us"),
        ]);
        let flags = [Flag { name: "--port", key: "http.bind", value: "127.0.0.1:2".to_owned() }];
        let loaded = load(Some(&file), environment, &flags).unwrap();
        assert_eq!(loaded.config.http.bind, "127.0.0.1:2");
        assert_eq!(loaded.config.http.body_limit_bytes, 7);
        assert_eq!(loaded.config.nats.replicas, 5);
        assert_eq!(loaded.config.nats.password, "0123");
        let origin = |key: &str| loaded.figment.find_metadata(key).unwrap().name.to_string();
        assert_eq!(origin("http.bind"), "flag --port");
        assert_eq!(origin("http.body_limit_bytes"), file.display().to_string());
        assert_eq!(origin("nats.replicas"), "environment AIRSTREAM__NATS__REPLICAS");
        assert_eq!(origin("log.level"), "default");
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
        let refused = |name: &str| load(None, variables(&[(name, "1")]), &[]).unwrap_err();
        assert_eq!(
            refused("AIRSTREAM__HTTP__BNID").details,
            ["unknown key `http.bnid` (environment AIRSTREAM__HTTP__BNID): did you mean `http.bind`?"]
        );
        assert_eq!(
            refused("AIRSTREAM__LOG__COLOUR").details,
            ["unknown key `log.colour` (environment AIRSTREAM__LOG__COLOUR): there are format, level"]
        );
        assert!(refused("AIRSTREAM__NONSENSE").details.concat().contains("the sections are development, executor"));
        assert_eq!(refused("AIRSTREAM__NONSENSE").exit, Exit::Usage);
    }

    #[test]
    fn a_wrong_type_names_key_and_origin() {
        let refused = load(None, variables(&[("AIRSTREAM__NATS__REPLICAS", "many")]), &[]).unwrap_err();
        let text = refused.details.concat();
        assert!(text.starts_with("nats.replicas (environment AIRSTREAM__NATS__REPLICAS): "), "{text}");
        assert!(text.contains("many"), "{text}");
        let two = variables(&[("AIRSTREAM__NATS__REPLICAS", "many"), ("AIRSTREAM__POSTGRES__MAX_CONNECTIONS", "few")]);
        let two = [two, variables(&[("AIRSTREAM__HTTP__BIND", "nowhere")])].concat();
        assert_eq!(load(None, two, &[]).unwrap_err().details.len(), 3);
        for wrong in ["AIRSTREAM__NATS", "AIRSTREAM__NATS__URL__X", "AIRSTREAM__", "AIRSTREAM____"] {
            assert!(load(None, variables(&[(wrong, "1")]), &[]).is_err(), "{wrong} was accepted");
        }
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let text = include_str!("../../../config.default.toml");
        let written: Config = toml::from_str(text).unwrap();
        assert_eq!(toml::to_string(&written).unwrap(), toml::to_string(&Config::default()).unwrap());
        for key in known_keys(&defaults().unwrap()) {
            let (section, name) = key.split_once('.').unwrap();
            let section = text.split(&format!("\n[{section}]\n")).nth(1).unwrap_or_default();
            let section = section.split("\n[").next().unwrap_or_default();
            let documented =
                section.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{name} =")));
            assert!(documented, "{key} is not in config.default.toml");
        }
    }

    #[test]
    fn distance_counts_letters() {
        for (a, b, expected) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("bind", "bnid", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
