//! What a process does. `up` does everything; in production the parts run, and are scaled, apart.

/// The parts of the platform that this process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Roles {
    /// HTTP, and the commands that come over NATS.
    pub(crate) api: bool,
    /// Writes the read models.
    pub(crate) projector: bool,
    /// Acts on the world: steps, timers, processes.
    pub(crate) reactor: bool,
}

const NAMES: &str = "api, projector, reactor (or all)";

impl Roles {
    /// Everything.
    pub(crate) fn all() -> Roles {
        Roles { api: true, projector: true, reactor: true }
    }

    /// Reads `api,projector`.
    pub(crate) fn parse(text: &str) -> Result<Roles, String> {
        let mut roles = Roles { api: false, projector: false, reactor: false };
        for name in text.split(',').map(str::trim) {
            match name {
                "all" => roles = Roles::all(),
                "api" => roles.api = true,
                "projector" => roles.projector = true,
                "reactor" => roles.reactor = true,
                "" => return Err(format!("name at least one of {NAMES}, separated by commas")),
                other => return Err(format!("there is no role '{other}': choose from {NAMES}")),
            }
        }
        Ok(roles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_named_or_refused() {
        assert_eq!(Roles::parse("all"), Ok(Roles::all()));
        assert_eq!(Roles::parse("api, projector"), Ok(Roles { api: true, projector: true, reactor: false }));
        for wrong in ["", "api,", "apis", "API"] {
            assert!(Roles::parse(wrong).is_err(), "{wrong:?} was accepted");
        }
    }
}
