//! Folded streams as bytes: `[recent command ids, bytes of history, state]` in JSON.

use std::io::{Error, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::folded::{BoxState, Recent};

type Encode = fn(&Recent, usize, &BoxState, usize) -> Result<Vec<u8>, NotEncoded>;
type Decode = fn(&[u8]) -> Result<Parts, String>;

/// What a snapshot's body holds.
pub(super) struct Parts {
    pub(super) recent: Recent,
    pub(super) bytes: usize,
    pub(super) state: BoxState,
}

/// Why there is no snapshot of a state.
#[derive(Debug)]
pub(super) enum NotEncoded {
    TooLarge,
    Unwritable(String),
}

/// How the states of one category become bytes and states again.
#[derive(Clone, Copy)]
pub(crate) struct Codec {
    encode: Encode,
    decode: Decode,
}

impl Codec {
    pub(crate) fn of<S: Serialize + DeserializeOwned + Send + Sync + 'static>() -> Self {
        Self { encode: encode::<S>, decode: decode::<S> }
    }

    pub(super) fn encode(
        self,
        recent: &Recent,
        bytes: usize,
        state: &BoxState,
        limit_bytes: usize,
    ) -> Result<Vec<u8>, NotEncoded> {
        (self.encode)(recent, bytes, state, limit_bytes)
    }

    pub(super) fn decode(self, body: &[u8]) -> Result<Parts, String> {
        (self.decode)(body)
    }
}

fn encode<S: Serialize + 'static>(
    recent: &Recent,
    bytes: usize,
    state: &BoxState,
    limit_bytes: usize,
) -> Result<Vec<u8>, NotEncoded> {
    let Some(state) = state.downcast_ref::<S>() else {
        return Err(NotEncoded::Unwritable("the category belongs to another decider".to_owned()));
    };
    let mut out = Bounded { written: Vec::new(), limit_bytes };
    match serde_json::to_writer(&mut out, &(recent, bytes, state)) {
        Ok(()) => Ok(out.written),
        Err(error) if error.is_io() => Err(NotEncoded::TooLarge),
        Err(error) => Err(NotEncoded::Unwritable(error.to_string())),
    }
}

fn decode<S: DeserializeOwned + Send + Sync + 'static>(body: &[u8]) -> Result<Parts, String> {
    let (recent, bytes, state) =
        serde_json::from_slice::<(Recent, usize, S)>(body).map_err(|error| error.to_string())?;
    Ok(Parts { recent, bytes, state: Box::new(state) })
}

/// Values that a state shares are written out once for each place: what takes little memory can take much room, so the
/// limit holds while writing, not afterwards.
struct Bounded {
    written: Vec<u8>,
    limit_bytes: usize,
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> std::io::Result<usize> {
        if self.written.len() + more.len() > self.limit_bytes {
            return Err(Error::other("larger than the limit"));
        }
        self.written.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_takes_more_than_its_limit_is_not_written_out() {
        let codec = Codec::of::<Vec<String>>();
        let state: BoxState = Box::new(vec!["a".repeat(100)]);
        let body = codec.encode(&Recent::default(), 7, &state, 1_000).expect("it fits");
        let parts = codec.decode(&body).expect("it can be read");
        assert_eq!((parts.bytes, parts.state.downcast_ref()), (7, Some(&vec!["a".repeat(100)])));
        assert!(matches!(codec.encode(&Recent::default(), 7, &state, body.len() - 1), Err(NotEncoded::TooLarge)));
        assert!(codec.decode(&body[..body.len() - 1]).is_err());
    }
}
