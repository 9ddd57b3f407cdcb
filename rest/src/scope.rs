//! What scopes are about. A scope that no route asks for opens nothing, and somebody who gives one to a key has mistyped it.

use crate::Level;

/// What routes, and the bus, ask for: the first word of a scope. `*` stands for all of them.
pub const RESOURCES: &[&str] =
    &["audit", "commands", "events", "keys", "operations", "runs", "tenant", "work", "workflows"];

/// The level of a scope within a tenant, `<resource>:<level>`; `None`: it is none.
#[must_use]
pub fn level_of(scope: &str) -> Option<Level> {
    let (resource, level) = scope.split_once(':')?;
    let known = resource == "*" || RESOURCES.contains(&resource);
    Level::of(level).filter(|_| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_names_something_that_exists_and_a_level() {
        assert_eq!((level_of("runs:write"), level_of("*:read")), (Some(Level::Write), Some(Level::Read)));
        for bad in ["", "runs", "runs:", ":read", "rnus:read", "runs:all", "me", "operate", "runs:read:write", "*"] {
            assert_eq!(level_of(bad), None, "{bad:?}");
        }
    }
}
