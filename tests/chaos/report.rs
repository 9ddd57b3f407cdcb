//! What people read at the end.

use std::sync::Arc;

use crate::drive::Strikes;
use crate::profile::Profile;
use crate::world::World;

/// More than this nobody reads.
const SHOWN: usize = 20;

/// Collects what was found.
pub(crate) struct Report {
    pub(crate) strikes: Strikes,
    profile: Profile,
    violations: Vec<String>,
}

impl Report {
    pub(crate) fn new(profile: &Profile, world: &World) -> Self {
        eprintln!("logs in {}", world.folder().display());
        Self { strikes: Strikes::default(), profile: profile.clone(), violations: Vec::new() }
    }

    pub(crate) fn add(&mut self, violations: Vec<String>) {
        self.violations.extend(violations);
    }

    pub(crate) fn panicked(&mut self, panic: Box<dyn std::any::Any + Send>) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        self.violations.push(format!("the story did not get to its end: {}", text.unwrap_or_default()));
    }

    /// Fails with everything that helps, or says that all is well.
    pub(crate) fn end(self, mut world: Arc<World>) {
        let strikes = self.strikes.lock().unwrap().clone();
        if self.violations.is_empty() {
            eprintln!("{} faults, no promise broken", strikes.len());
            return;
        }
        for strike in &strikes {
            eprintln!("{strike}");
        }
        for violation in self.violations.iter().take(SHOWN) {
            eprintln!("broken: {violation}");
        }
        // A pause that has not ended yet still holds the world; then its folder is removed with it, and said so.
        let folder = Arc::get_mut(&mut world).map(World::keep);
        let kept = folder.map_or("removed: a pause was still under way".to_owned(), |path| path.display().to_string());
        panic!(
            "{} promises broken, {} shown above; all logs: {kept}\nagain: {}",
            self.violations.len(),
            self.violations.len().min(SHOWN),
            self.profile.replay()
        );
    }
}
