//! Newtypes of the names in a topology file.
//!
//! All of them share one grammar, `[a-z0-9-]{1,63}`: a name is at home in a DNS label, a file name,
//! a URL path and a checkpoint's origin line without any escaping.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 63;

/// What a name must look like, in words.
pub(crate) const NAME_RULE: &str = "1 to 63 of a-z, 0-9 and '-'";

/// A name that breaks the grammar `[a-z0-9-]{1,63}`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad name {found:?}: allowed are {NAME_RULE}")]
pub struct NameError {
    /// The refused text, cut to its first 64 characters.
    pub found: String,
}

fn checked(name: &str) -> Result<(), NameError> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(good) {
        return Err(NameError { found: name.chars().take(NAME_BYTES_MAX + 1).collect() });
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                checked(name).map(|()| Self(name.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                checked(&name).map(|()| Self(name))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }
    )*};
}

names! {
    /// Name of the whole deployment: the first part of every ledger's origin.
    DeploymentName
    /// Name of a site.
    SiteName
    /// Name of a process, so of a node or of a mirror: unique in the deployment.
    ProcessName
    /// Name of a pool.
    PoolName
    /// Name of a client identity.
    ClientName
    /// Name of a region: a label that sites and mirrors share, for predicates and pictures.
    Region
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lowercase_labels_of_1_to_63_bytes() {
        let longest = "a".repeat(63);
        for good in ["a", "ams-1", "0", "-", longest.as_str()] {
            assert_eq!(good.parse::<PoolName>().unwrap().as_str(), good);
        }
        let too_long = "a".repeat(64);
        for bad in ["", "A", "a_b", "a.b", "a/b", "é", "a b", too_long.as_str()] {
            assert!(bad.parse::<PoolName>().is_err(), "{bad:?} must be refused");
        }
    }
}
