//! Settings from the environment variables of Python's huggingface_hub.

use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::HubError;

/// The default hub, overridden by `HF_ENDPOINT`.
const HUB: &str = "https://huggingface.co";

/// The locations of the hub and its cache, and how to access the hub.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The URL of the hub, without a trailing slash.
    pub endpoint: String,
    /// The directory of the cache.
    pub cache: PathBuf,
    /// The access token.
    pub token: Option<Token>,
    /// Never contact the hub.
    pub offline: bool,
    /// Waiting time before the second attempt; doubled before each later one.
    pub patience: Duration,
}

/// A token, which is sent to the hub and nowhere else.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// Parses a token.
    ///
    /// # Errors
    /// If it has characters that no token has; `origin` is its source.
    pub fn new(token: &str, origin: &'static str) -> Result<Self, HubError> {
        let token = token.trim();
        if token.chars().all(|c| c.is_ascii_graphic()) {
            return Ok(Self(token.to_owned()));
        }
        let expected = "a token of letters, digits and underscores was expected".to_owned();
        Err(HubError::Setting { variable: origin, found: "something else".to_owned(), expected })
    }

    /// The value of the authorisation header.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The cache directory from the environment; `None` if neither `HF_HOME` nor `HOME` is set.
#[must_use]
pub fn cache_dir() -> Option<PathBuf> {
    Place::from_variables(&|name| std::env::var_os(name)).cache()
}

/// Directories from the environment.
struct Place<'a> {
    get: &'a dyn Fn(&str) -> Option<OsString>,
    /// The user's home directory.
    user: Option<PathBuf>,
}

impl<'a> Place<'a> {
    fn from_variables(get: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        let place = Self { get, user: None };
        let user = place.get("HOME").or_else(|| place.get("USERPROFILE")).map(PathBuf::from);
        Self { user, ..place }
    }

    /// The value of a variable, if it is not empty.
    fn get(&self, name: &str) -> Option<OsString> {
        (self.get)(name).filter(|value| !value.is_empty())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(|value| expanded(Path::new(&value), self.user.as_deref()))
    }

    /// The base directory of huggingface_hub.
    fn home(&self) -> Option<PathBuf> {
        let of_caches = || self.path("XDG_CACHE_HOME").map(|caches| caches.join("huggingface"));
        let of_user = || self.user.as_ref().map(|user| user.join(".cache/huggingface"));
        self.path("HF_HOME").or_else(of_caches).or_else(of_user)
    }

    fn cache(&self) -> Option<PathBuf> {
        let cache = self.path("HF_HUB_CACHE").or_else(|| self.path("HUGGINGFACE_HUB_CACHE"));
        cache.or_else(|| self.home().map(|home| home.join("hub")))
    }
}

impl Settings {
    /// The settings from the environment.
    ///
    /// # Errors
    /// If a variable has an invalid value, or the file with the token can't be read.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(&|name| std::env::var_os(name))
    }

    /// As [`Settings::from_env`], with variables looked up by `get`.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn from_variables(get: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let place = Place::from_variables(get);
        let text = |name: &str| place.get(name).map(|value| value.to_string_lossy().into_owned());
        let cache = place.cache().ok_or(HubError::NoHome)?;
        let token = match text("HF_TOKEN") {
            Some(token) => Some(Token::new(&token, "HF_TOKEN")?),
            None => {
                let file =
                    place.path("HF_TOKEN_PATH").or_else(|| place.home().map(|home| home.join("token")));
                file.map(|file| stored(&file)).transpose()?.flatten()
            }
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| HUB.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            let expected = format!("an address was expected, such as {HUB}");
            return Err(HubError::Setting { variable: "HF_ENDPOINT", found: endpoint, expected });
        }
        let offline = text("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()));
        Ok(Self { endpoint, cache, token, offline, patience: Duration::from_secs(1) })
    }
}

/// The token in a file, if it exists.
fn stored(path: &Path) -> Result<Option<Token>, HubError> {
    match std::fs::read_to_string(path) {
        Ok(token) if token.trim().is_empty() => Ok(None),
        Ok(token) => Token::new(&token, "the token file").map(Some),
        // A home that is not a directory, such as /dev/null, contains no token either.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(HubError::Io { action: "read", path: path.to_owned(), source }),
    }
}

/// The path with a leading `~` replaced by the user's home directory.
fn expanded(path: &Path, user: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), user) {
        (Ok(below), Some(user)) => user.join(below),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        Settings::from_variables(&|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cache_is_where_python_has_it() {
        let cache = |variables: &[(&str, &str)]| settings(variables).unwrap().cache;
        let home = ("HOME", "/home/u");
        assert_eq!(cache(&[home]), Path::new("/home/u/.cache/huggingface/hub"));
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/c")]), Path::new("/c/huggingface/hub"));
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "/c"), ("HF_HOME", "~/hf")]),
            Path::new("/home/u/hf/hub")
        );
        assert_eq!(cache(&[("HF_HOME", "/hf"), ("HF_HUB_CACHE", "/models")]), Path::new("/models"));
        assert_eq!(cache(&[home, ("HF_HUB_CACHE", "")]), Path::new("/home/u/.cache/huggingface/hub"));
        assert!(matches!(settings(&[]), Err(HubError::NoHome)));
        assert_eq!(settings(&[("HOME", "/dev/null")]).unwrap().token.map(|token| token.header()), None);
    }

    #[test]
    fn the_token_is_the_variables_or_else_the_files_and_is_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hf_of_the_file\n").unwrap();
        std::fs::write(dir.path().join("elsewhere"), "hf_elsewhere").unwrap();
        let (home, elsewhere) =
            (dir.path().display().to_string(), dir.path().join("elsewhere").display().to_string());
        let token = |variables: &[(&str, &str)]| {
            settings(variables).unwrap().token.map(|token| (token.header(), format!("{token:?}")))
        };
        let shown = |token: &str| Some((format!("Bearer {token}"), "Token(…)".to_owned()));
        assert_eq!(token(&[("HF_HOME", &home)]), shown("hf_of_the_file"));
        assert_eq!(token(&[("HF_HOME", &home), ("HF_TOKEN", " hf_1 ")]), shown("hf_1"));
        assert_eq!(token(&[("HF_HOME", &home), ("HF_TOKEN_PATH", &elsewhere)]), shown("hf_elsewhere"));
        assert_eq!(token(&[("HF_HOME", "/nowhere")]), None);
        let error = settings(&[("HF_HOME", &home), ("HF_TOKEN", "hf_secret\nX: y")]).unwrap_err().to_string();
        assert!(error.starts_with("HF_TOKEN is something else") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn the_endpoint_is_an_address_and_offline_is_a_word() {
        let of = |name, value| settings(&[("HF_HOME", "/hf"), (name, value)]);
        assert_eq!(of("HF_ENDPOINT", "http://mirror:80/hf/").unwrap().endpoint, "http://mirror:80/hf");
        assert_eq!(of("HF_ENDPOINT", "").unwrap().endpoint, HUB);
        let error = of("HF_ENDPOINT", "mirror").unwrap_err().to_string();
        assert_eq!(error, "HF_ENDPOINT is mirror, an address was expected, such as https://huggingface.co");
        assert!(["1", "ON", "yes", "True"].iter().all(|word| of("HF_HUB_OFFLINE", word).unwrap().offline));
        assert!(["", "0", "no"].iter().all(|word| !of("HF_HUB_OFFLINE", word).unwrap().offline));
    }
}
