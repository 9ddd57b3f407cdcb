//! What every keeper of budgets promises.

#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "a suite of tests reports by panicking")]

use std::time::{Duration, Instant};

use projections::budgets::{Given, Slice};

use super::Budgets;

fn slice(bucket: u8, wanted: u32) -> Slice {
    let step = Duration::from_millis(50);
    Slice { bucket: [bucket; 16], wanted, step, room: step * 100 }
}

async fn take(budgets: &dyn Budgets, slices: &[Slice]) -> Vec<Given> {
    let mut given = budgets.take(slices).await.expect("slices");
    given.sort_by_key(|given| given.bucket);
    given
}

/// Runs everything. The budgets 1 to 9 must be full.
pub async fn suite(budgets: &dyn Budgets) {
    // As much as there is, and not more; one budget is nothing to another.
    let began = Instant::now();
    let given = take(budgets, &[slice(1, 70), slice(2, 500)]).await;
    assert_eq!((given[0].granted, given[0].left), (70, 30));
    assert_eq!((given[1].granted, given[1].left), (100, 0));
    assert!(given[1].wait <= Duration::from_millis(50), "{given:?}");
    let grown = |began: Instant| u32::try_from(began.elapsed().as_millis() / 50).expect("a count") + 1;
    let more = take(budgets, &[slice(1, 70)]).await[0].granted;
    assert!((30..=30 + grown(began)).contains(&more), "{more} of the 30 that were left");

    // Empty, and then there is more: as much as has grown.
    let began = Instant::now();
    let mut all = 0;
    while all < 10 {
        all += take(budgets, &[slice(2, 1)]).await[0].granted;
        assert!(began.elapsed() < Duration::from_secs(20), "it does not grow");
    }
    assert!(began.elapsed() >= Duration::from_millis(50 * 8), "it grows too quickly");

    // Full again, and not fuller than that. Other terms count at once.
    let small = Slice { room: Duration::from_millis(50) * 3, ..slice(3, 50) };
    assert_eq!(take(budgets, std::slice::from_ref(&small)).await[0].granted, 3);
    assert!((97..=98 + grown(began)).contains(&take(budgets, &[slice(3, 100)]).await[0].granted));

    // Many at once get as much as one would.
    let began = Instant::now();
    let takers = (0..20).map(|_| async {
        let mut sum = 0;
        for _ in 0..20 {
            sum += take(budgets, &[slice(4, 1), slice(5, 7)]).await[0].granted;
        }
        sum
    });
    let sum: u32 = futures::future::join_all(takers).await.into_iter().sum();
    assert!((100..=100 + grown(began)).contains(&sum), "{sum} of 100");

    // What is not full is not forgotten.
    let step = Duration::from_secs(60);
    let slow = |wanted| Slice { bucket: [6; 16], wanted, step, room: step * 100 };
    assert_eq!(take(budgets, &[slow(1)]).await[0].granted, 1);
    budgets.sweep().await.expect("a sweep");
    assert_eq!(take(budgets, &[slow(100)]).await[0].granted, 99);
    assert!(budgets.sharers().await.expect("a count") >= 1);
}
