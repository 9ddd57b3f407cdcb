//! The contract of [`EffectStore`].

use kernel::{Position, StreamName};
use serde_json::json;

use super::fresh_stream;
use crate::{EffectState, EffectStore, Parked, ParkedState, Plan, Planned, Settlement, StoreError, clock};

fn planned(stream: &StreamName, plan: Plan) -> Planned {
    Planned {
        stream: stream.clone(),
        position: Position::at(1),
        event: "e.0".into(),
        correlation: "k".into(),
        traceparent: None,
        plan,
    }
}

fn effect(stream: &StreamName, name: &str) -> Planned {
    planned(stream, Plan::Do { name: name.into(), due: None, request: json!({ "do": name }) })
}

fn settled(stream: &StreamName, name: &str, state: EffectState) -> Settlement {
    let due = (state == EffectState::Scheduled).then(clock::now);
    Settlement { stream: stream.clone(), name: name.into(), event: "e.0".into(), state, due, note: "because".into() }
}

/// The same plan, called for by another event.
fn from(event: &str, plan: Planned) -> Planned {
    Planned { event: event.into(), ..plan }
}

async fn names(store: &dyn EffectStore, consumer: &str) -> Vec<String> {
    let mut names: Vec<_> = store.pending(consumer).await.unwrap().into_iter().map(|row| row.name).collect();
    names.sort();
    names
}

/// Runs the whole suite on a store.
pub async fn suite(store: &dyn EffectStore) {
    effects_and_checkpoint_move_together(store).await;
    a_plan_that_comes_again_counts_once(store).await;
    a_cancelled_effect_is_gone_unless_it_is_done(store).await;
    a_later_event_calls_for_the_same_effect_anew(store).await;
    parked_commits_come_back_in_order(store).await;
    a_former_owner_cannot_record_and_may_only_say_what_is_done(store).await;
}

async fn effects_and_checkpoint_move_together(store: &dyn EffectStore) {
    let (consumer, stream) = (clock::fresh_id("c"), fresh_stream("till"));
    let begin = store.begin(&consumer, "log_1", 1).await.unwrap();
    assert_eq!(begin.checkpoint, Position::START);
    let (two, three) = (Position::at(2), Position::at(3));
    store.record(&consumer, 1, Position::START, two, &[effect(&stream, "a")], &[]).await.unwrap();
    let stale = store.record(&consumer, 1, Position::START, three, &[effect(&stream, "b")], &[]).await;
    assert!(matches!(stale, Err(StoreError::Lost(_))), "a checkpoint that moved was not noticed: {stale:?}");
    assert_eq!(names(store, &consumer).await, ["a"], "effects without their checkpoint");
    let begin = store.begin(&consumer, "log_1", 1).await.unwrap();
    assert_eq!(begin.checkpoint, two);
    let other = store.begin(&consumer, "log_2", 1).await;
    assert!(matches!(other, Err(StoreError::Lost(_))), "positions of one log were taken for another's: {other:?}");
    store.begin(&consumer, "log_1", 1).await.expect("its own log is still its own");
    let row = store.pending(&consumer).await.unwrap().remove(0);
    assert_eq!((row.stream, row.request, row.attempts), (stream, json!({ "do": "a" }), 0));
}

async fn a_plan_that_comes_again_counts_once(store: &dyn EffectStore) {
    let (consumer, stream) = (clock::fresh_id("c"), fresh_stream("till"));
    store.begin(&consumer, "log_1", 1).await.unwrap();
    let plans = [effect(&stream, "a"), effect(&stream, "a")];
    store.record(&consumer, 1, Position::START, Position::at(1), &plans, &[]).await.unwrap();
    assert_eq!(names(store, &consumer).await, ["a"]);
    store.settle(&consumer, 1, &[settled(&stream, "a", EffectState::Done)]).await.unwrap();
    store.record(&consumer, 1, Position::at(1), Position::at(2), &plans, &[]).await.unwrap();
    assert!(names(store, &consumer).await.is_empty(), "a done effect came back");
    // A later try counts attempts and keeps waiting.
    store.record(&consumer, 1, Position::at(2), Position::at(3), &[effect(&stream, "b")], &[]).await.unwrap();
    store.settle(&consumer, 1, &[settled(&stream, "b", EffectState::Scheduled)]).await.unwrap();
    assert_eq!(store.pending(&consumer).await.unwrap().remove(0).attempts, 1);
}

async fn a_cancelled_effect_is_gone_unless_it_is_done(store: &dyn EffectStore) {
    let (consumer, stream) = (clock::fresh_id("c"), fresh_stream("till"));
    store.begin(&consumer, "log_1", 1).await.unwrap();
    let cancel = |name: &str| planned(&stream, Plan::Cancel { name: name.into() });
    let first = [effect(&stream, "a"), effect(&stream, "b"), cancel("b"), effect(&stream, "c")];
    store.record(&consumer, 1, Position::START, Position::at(1), &first, &[]).await.unwrap();
    assert_eq!(names(store, &consumer).await, ["a", "c"]);
    let second = [cancel("a"), cancel("never-planned")];
    store.record(&consumer, 1, Position::at(1), Position::at(2), &second, &[]).await.unwrap();
    assert_eq!(names(store, &consumer).await, ["c"]);
}

async fn a_later_event_calls_for_the_same_effect_anew(store: &dyn EffectStore) {
    let (consumer, stream) = (clock::fresh_id("c"), fresh_stream("till"));
    store.begin(&consumer, "log_1", 1).await.unwrap();
    let cancel = planned(&stream, Plan::Cancel { name: "a".into() });
    let twice = [effect(&stream, "twice"), from("e.2", effect(&stream, "twice"))];
    store.record(&consumer, 1, Position::START, Position::at(1), &twice, &[]).await.unwrap();
    let row = store.pending(&consumer).await.unwrap().remove(0);
    assert_eq!(row.event, "e.2", "of two calls in one batch the older one was recorded");
    let twice = Settlement { event: row.event, ..settled(&stream, "twice", EffectState::Done) };
    store.settle(&consumer, 1, &[twice]).await.unwrap();
    // Called for, taken back and called for again, all within one batch.
    let plans = [effect(&stream, "a"), cancel.clone(), from("e.2", effect(&stream, "a"))];
    store.record(&consumer, 1, Position::at(1), Position::at(2), &plans, &[]).await.unwrap();
    assert_eq!(store.pending(&consumer).await.unwrap().remove(0).event, "e.2", "the second call was lost");
    // It was done when it was taken back; the next event wants it done once more.
    let done = Settlement { event: "e.2".into(), ..settled(&stream, "a", EffectState::Done) };
    store.settle(&consumer, 1, std::slice::from_ref(&done)).await.unwrap();
    let again = [cancel, from("e.4", effect(&stream, "a"))];
    store.record(&consumer, 1, Position::at(2), Position::at(3), &again, &[]).await.unwrap();
    let row = store.pending(&consumer).await.unwrap().pop().expect("what was done before is not what is wanted now");
    assert_eq!((row.event.as_str(), row.attempts), ("e.4", 0));
    // A try for the earlier event that ends only now says nothing about it.
    store.settle(&consumer, 1, &[done]).await.unwrap();
    assert_eq!(names(store, &consumer).await, ["a"], "an earlier try settled it");
}

async fn parked_commits_come_back_in_order(store: &dyn EffectStore) {
    let (consumer, stream) = (clock::fresh_id("c"), fresh_stream("till"));
    store.begin(&consumer, "log_1", 1).await.unwrap();
    let subject = format!("ev.0.{}.{}.{}", stream.tenant, stream.category, stream.id);
    let parked = |at: u64, state: ParkedState| Parked {
        position: Position::at(at),
        subject: subject.clone(),
        state,
        reason: "broken".into(),
    };
    let lot = [parked(4, ParkedState::Cause), parked(7, ParkedState::Behind)];
    store.record(&consumer, 1, Position::START, Position::at(9), &[], &lot).await.unwrap();
    let begin = store.begin(&consumer, "log_1", 1).await.unwrap();
    assert!(begin.parked.contains(&subject), "a new owner must know what is parked");
    assert!(store.released(&consumer, 1).await.unwrap().is_empty(), "nobody has released anything");
    store.park_again(&consumer, 1, Position::at(4), "still broken").await.unwrap();
    store.unpark(&consumer, 1, Position::at(4), &[effect(&stream, "late")]).await.unwrap();
    store.unpark(&consumer, 1, Position::at(7), &[]).await.unwrap();
    assert_eq!(names(store, &consumer).await, ["late"]);
    assert!(store.begin(&consumer, "log_1", 1).await.unwrap().parked.is_empty());
}

async fn a_former_owner_cannot_record_and_may_only_say_what_is_done(store: &dyn EffectStore) {
    let (consumer, stream) = (clock::fresh_id("c"), fresh_stream("till"));
    store.begin(&consumer, "log_1", 1).await.unwrap();
    let plans = ["a", "b", "c"].map(|name| effect(&stream, name));
    store.record(&consumer, 1, Position::START, Position::at(1), &plans, &[]).await.unwrap();
    // Another instance has the lease now; the first one was paused and knows nothing of it.
    let begin = store.begin(&consumer, "log_1", 2).await.unwrap();
    assert_eq!(begin.checkpoint, Position::at(1));
    let stale = store.record(&consumer, 1, Position::at(1), Position::at(2), &[effect(&stream, "d")], &[]).await;
    assert!(matches!(stale, Err(StoreError::Lost(_))), "a former owner moved the checkpoint: {stale:?}");
    let again = store.begin(&consumer, "log_1", 1).await;
    assert!(matches!(again, Err(StoreError::Lost(_))), "a former owner began again in its old epoch: {again:?}");
    store.settle(&consumer, 1, &[settled(&stream, "a", EffectState::Parked)]).await.unwrap();
    store.settle(&consumer, 1, &[settled(&stream, "b", EffectState::Done)]).await.unwrap();
    assert_eq!(
        names(store, &consumer).await,
        ["a", "c"],
        "it put an effect of the new owner aside, or its deed was forgotten"
    );
    // Who parked it was wrong, who did it was right: in this order, too.
    store.settle(&consumer, 2, &[settled(&stream, "c", EffectState::Parked)]).await.unwrap();
    store.settle(&consumer, 1, &[settled(&stream, "c", EffectState::Done)]).await.unwrap();
    store.settle(&consumer, 2, &[settled(&stream, "b", EffectState::Scheduled)]).await.unwrap();
    assert_eq!(names(store, &consumer).await, ["a"], "what was done is to be done again");
    store.record(&consumer, 2, Position::at(1), Position::at(2), &[effect(&stream, "d")], &[]).await.unwrap();
    assert_eq!(names(store, &consumer).await, ["a", "d"]);
}
