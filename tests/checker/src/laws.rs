//! The laws, one per file.

pub(crate) mod answers;
pub(crate) mod effects;
pub(crate) mod ids;
pub(crate) mod positions;
pub(crate) mod queue;
pub(crate) mod runs_end;
pub(crate) mod versions;

#[cfg(test)]
mod tests;
