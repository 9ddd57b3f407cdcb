//! The contract of [`CommitIndex`].

use kernel::{CommandId, Position, StreamName};

use super::fresh_stream;
use crate::{CommitIndex, Lookup};

/// Checks an index that has caught up with a log in which `stream` has a commit `known` at `position`.
pub async fn suite(index: &dyn CommitIndex, stream: &StreamName, known: &str, position: Position) {
    let find = |stream: StreamName, id: &'static str| async move {
        index.find(&stream, &CommandId::new(id).unwrap()).await.unwrap()
    };
    let id = CommandId::new(known).unwrap();
    assert_eq!(index.find(stream, &id).await.unwrap(), Lookup::Found(position));
    let Lookup::Absent { covers } = find(stream.clone(), "never-used").await else { panic!("found what is not there") };
    assert!(covers >= position, "an index that has caught up says so");
    let elsewhere = index.find(&fresh_stream("till"), &id).await.unwrap();
    assert!(matches!(elsewhere, Lookup::Absent { .. }), "a command id of one stream was found on another");
}
