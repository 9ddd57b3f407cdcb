//! What instances of the HTTP door agree about in Postgres: rate limits, and what keys stand for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway::limits::{Budgets, Class, Decision, Limiter, PerClass, Rate, Rates, Who, contract};
use projections::Database;
use projections::budgets;
use projections::idempotency::{IdempotencyKeys, Used};
use stories::Servers;
use tokio_util::sync::CancellationToken;

fn user() -> Who {
    Who::User("usr_1".parse().unwrap())
}

/// An instance with a pool of its own, as each process has.
async fn instance(servers: &Servers, rate: Rate, stop: &CancellationToken) -> Arc<Limiter> {
    let database = Database::open(&servers.postgres_url, 2).await.unwrap();
    let budgets: Arc<dyn Budgets> = Arc::new(budgets::Budgets::new(&database));
    let rates = Rates { user: PerClass { read: Some(rate), ..PerClass::default() }, ..Rates::default() };
    Limiter::start(&rates, budgets, stop.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_in_postgres() {
    let servers = Servers::fresh().await.unwrap();
    contract::suite(&budgets::Budgets::new(&servers.database)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_together_let_pass_what_the_limit_says_and_hardly_less() {
    let servers = Servers::fresh().await.unwrap();
    let stop = CancellationToken::new();
    let rate = Rate { requests: 600, seconds: 600 };
    let (one, other) = (instance(&servers, rate, &stop).await, instance(&servers, rate, &stop).await);
    let began = Instant::now();
    let ask = async |limiter: &Limiter| match limiter.admit(&user(), Class::Read).await {
        Decision::Admitted(_) => 1,
        Decision::Refused(standing) => {
            assert!(standing.next <= Duration::from_secs(2), "{standing:?}");
            0
        }
        other => panic!("{other:?}"),
    };
    let (mut here, mut there) = (0_u32, 0_u32);
    for _ in 0..2_000 {
        let (a, b) = tokio::join!(ask(&one), ask(&other));
        (here, there) = (here + a, there + b);
    }
    let most = f64::from(rate.requests) + began.elapsed().as_secs_f64();
    assert!(f64::from(here + there) <= most, "{here} and {there} are more than {most}");
    // 595 can be taken at once; of that, no more than one slice of each is unused.
    assert!(here + there >= 595 - 2 * 74, "{here} and {there} are much less than 600");
    assert!(here > 100 && there > 100, "{here} and {there}: one has taken what belongs to both");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_instance_has_used_another_that_begins_afterwards_does_not_have() {
    let servers = Servers::fresh().await.unwrap();
    let stop = CancellationToken::new();
    let rate = Rate { requests: 20, seconds: 86_400 };
    let first = instance(&servers, rate, &stop).await;
    let mut passed = 0;
    while matches!(first.admit(&user(), Class::Read).await, Decision::Admitted(_)) {
        passed += 1;
    }
    assert_eq!(passed, 19);
    let second = instance(&servers, rate, &stop).await;
    assert!(matches!(second.admit(&user(), Class::Read).await, Decision::Refused(_)));
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_postgres_does_not_answer_nobody_waits_for_long_and_the_rest_is_limited_still() {
    let servers = Servers::fresh().await.unwrap();
    let stop = CancellationToken::new();
    let limiter = instance(&servers, Rate { requests: 20, seconds: 86_400 }, &stop).await;
    // Somebody holds the table: questions hang, they do not fail.
    let mut holder = servers.database.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE airstream.budgets IN ACCESS EXCLUSIVE MODE").execute(&mut *holder).await.unwrap();
    let mut passed = 0;
    let until = Instant::now() + Duration::from_secs(60);
    while matches!(limiter.admit(&user(), Class::Read).await, Decision::Admitted(_)) {
        passed += 1;
        assert!(passed <= 19 && Instant::now() < until, "nothing is limited");
    }
    assert_eq!(passed, 19, "alone, and its share is everything");
    // And back: the budget in Postgres is untouched, and rules again.
    holder.rollback().await.unwrap();
    stories::eventually("the budget is asked again", async || {
        matches!(limiter.admit(&user(), Class::Read).await, Decision::Admitted(_))
    })
    .await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_first_uses_of_a_key_at_once_one_is_the_first() {
    let keys = IdempotencyKeys::new(&Servers::fresh().await.unwrap().database);
    let uses = (0..32).map(|n| {
        let keys = keys.clone();
        async move { keys.use_for(b"k", if n % 2 == 0 { "even" } else { "odd" }).await.unwrap() }
    });
    let uses = futures::future::join_all(uses).await;
    let count = |wanted: Used| uses.iter().filter(|used| **used == wanted).count();
    assert_eq!((count(Used::First), count(Used::Again), count(Used::Otherwise)), (1, 15, 16));
    // Whoever was refused gives it back, and nobody else does.
    let (winner, loser) = if uses[0] == Used::Otherwise { ("odd", "even") } else { ("even", "odd") };
    keys.forget(b"k", loser).await.unwrap();
    assert_eq!(keys.use_for(b"k", loser).await.unwrap(), Used::Otherwise);
    keys.forget(b"k", winner).await.unwrap();
    assert_eq!(keys.use_for(b"k", loser).await.unwrap(), Used::First);
}
