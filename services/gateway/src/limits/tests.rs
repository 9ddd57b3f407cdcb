use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use projections::budgets::{Given, Slice as Asked};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::slice::{Slice, Spent};
use super::terms::Budget;
use super::*;

/// One step of a history with several instances and one budget.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Time passes: so many hundredths of the time that a slice lasts.
    Pass(u32),
    /// So many requests reach an instance at once.
    Requests(usize, u32),
    /// The question that an instance has sent reaches the budget.
    Arrive(usize),
    /// The answer reaches the instance.
    Answer(usize),
    /// An instance forgets everything.
    Restart(usize),
}

const INSTANCES: usize = 4;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let instance = 0..INSTANCES;
    let step = prop_oneof![
        3 => (1_u32..150).prop_map(Step::Pass),
        6 => (instance.clone(), 1_u32..12).prop_map(|(instance, requests)| Step::Requests(instance, requests)),
        6 => instance.clone().prop_map(Step::Arrive),
        6 => instance.clone().prop_map(Step::Answer),
        1 => instance.prop_map(Step::Restart),
    ];
    proptest::collection::vec(step, 1..400)
}

#[derive(Clone, Copy)]
enum Sent {
    Asking { wanted: u32, at: Instant },
    Answered { granted: u32, left: u32, wait: Duration, at: Instant },
}

/// When requests were let pass, in order.
fn admitted(rate: Rate, steps: &[Step]) -> Vec<Duration> {
    let terms = Terms::of(rate);
    let began = Instant::now();
    let mut now = began;
    let mut budget = Budget::default();
    let mut slices: Vec<Slice> = (0..INSTANCES).map(|_| Slice::new(&terms, now)).collect();
    let mut sent: [Option<Sent>; INSTANCES] = [None; INSTANCES];
    let mut admitted = Vec::new();
    for step in steps {
        match *step {
            Step::Pass(hundredths) => now += terms.lasts * hundredths / 100,
            Step::Requests(instance, requests) => {
                for _ in 0..requests {
                    let (spent, wanted) = slices[instance].spend(&terms, now);
                    if spent == Spent::Admitted {
                        admitted.push(now - began);
                    }
                    if let Some(wanted) = wanted {
                        sent[instance] = Some(Sent::Asking { wanted, at: now });
                    }
                }
            }
            Step::Arrive(instance) => {
                if let Some(Sent::Asking { wanted, at }) = sent[instance] {
                    let (granted, left) = budget.take(&terms, now - began, wanted);
                    let wait = budget.wait(&terms, now - began);
                    sent[instance] = Some(Sent::Answered { granted, left, wait, at });
                }
            }
            Step::Answer(instance) => {
                if let Some(Sent::Answered { granted, left, wait, at }) = sent[instance] {
                    slices[instance].given(&terms, granted, left, wait, at, now);
                    sent[instance] = None;
                }
            }
            Step::Restart(instance) => {
                slices[instance] = Slice::new(&terms, now);
                sent[instance] = None;
            }
        }
    }
    admitted
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn all_instances_together_never_let_more_pass_than_the_limit_says(
        requests in 2_u32..60,
        seconds in 1_u32..100,
        steps in steps(),
    ) {
        let rate = Rate { requests, seconds };
        let admitted = admitted(rate, &steps);
        for (first, from) in admitted.iter().enumerate() {
            for (last, to) in admitted.iter().enumerate().skip(first) {
                let count = last - first + 1;
                let grown = (*to - *from).as_secs_f64() * f64::from(requests) / f64::from(seconds);
                prop_assert!(count as f64 <= f64::from(requests) + grown + 1e-6, "{count} within {:?}", *to - *from);
            }
        }
    }

    #[test]
    fn whoever_keeps_to_half_of_the_limit_is_never_refused(requests in 4_u32..5_000, seconds in 1_u32..600) {
        let terms = Terms::of(Rate { requests, seconds });
        let (began, mut budget) = (Instant::now(), Budget::default());
        let mut slice = Slice::new(&terms, began);
        for n in 0..4_000 {
            let now = began + terms.step * 2 * n;
            for _ in 0..2 {
                let (spent, wanted) = slice.spend(&terms, now);
                if let Some(wanted) = wanted {
                    let (granted, left) = budget.take(&terms, now - began, wanted);
                    let wait = budget.wait(&terms, now - began);
                    slice.given(&terms, granted, left, wait, now, now);
                }
                match spent {
                    Spent::Admitted => break,
                    Spent::Unknown => {}
                    Spent::Refused(wait) => prop_assert!(false, "request {n} was refused for {wait:?}"),
                }
            }
        }
    }
}

#[test]
fn all_that_may_pass_at_once_does_pass() {
    for (requests, seconds, expected) in [(600, 60, 550), (12, 60, 11), (2, 1, 1), (1_000_000, 3_600, 998_611)] {
        assert_eq!(Terms::of(Rate { requests, seconds }).most, expected, "{requests}/{seconds}");
    }
    let everything: Vec<Step> =
        (0..200).flat_map(|n| [Step::Requests(n % 4, 9), Step::Arrive(n % 4), Step::Answer(n % 4)]).collect();
    assert_eq!(admitted(Rate { requests: 600, seconds: 60 }, &everything).len(), 550);
}

#[test]
fn a_limit_is_two_numbers_within_bounds() {
    assert_eq!("600/60".parse(), Ok(Rate { requests: 600, seconds: 60 }));
    for wrong in ["", "600", "600/", "/60", "1/60", "600/0", "600/86401", "-1/60", "six/60", "600/60/2"] {
        assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn budgets_of_one_process() {
    contract::suite(&MemoryBudgets::default()).await;
}

/// Budgets that can be taken away.
#[derive(Default)]
struct Shaky {
    budgets: MemoryBudgets,
    away: AtomicBool,
}

#[async_trait]
impl Budgets for Shaky {
    async fn take(&self, slices: &[Asked]) -> Result<Vec<Given>, Failed> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(Failed("gone".to_owned())),
            false => self.budgets.take(slices).await,
        }
    }

    async fn sweep(&self) -> Result<(), Failed> {
        Ok(())
    }

    async fn sharers(&self) -> Result<u32, Failed> {
        Ok(4)
    }
}

fn user(name: &str) -> Who {
    Who::User(name.parse().expect("a principal"))
}

fn limits(requests: u32, seconds: u32) -> Rates {
    let read = Some(Rate { requests, seconds });
    Rates { user: PerClass { read, ..PerClass::default() }, ..Rates::default() }
}

#[tokio::test]
async fn each_has_a_budget_of_their_own_and_is_told_how_they_stand() {
    let stop = CancellationToken::new();
    let limiter = Limiter::start(&limits(12, 3_600), Arc::new(MemoryBudgets::default()), stop.clone());
    for expected in (0..11).rev() {
        let Decision::Admitted(standing) = limiter.admit(&user("ann"), Class::Read).await else {
            panic!("refused with {expected} left");
        };
        assert_eq!((standing.policy, standing.remaining), ("user-read", expected));
    }
    let Decision::Refused(standing) = limiter.admit(&user("ann"), Class::Read).await else { panic!("admitted") };
    assert!(standing.next > Duration::from_secs(200) && standing.next <= Duration::from_secs(300), "{standing:?}");
    assert!(matches!(limiter.decide(&user("ann"), Class::Read), Decision::Refused(_)), "it has to ask again");
    assert!(matches!(limiter.admit(&user("bob"), Class::Read).await, Decision::Admitted(_)));
    assert_eq!(limiter.admit(&user("ann"), Class::Write).await, Decision::Unlimited);
    assert_eq!(limiter.admit(&Who::Key("ann".parse().expect("a principal")), Class::Read).await, Decision::Unlimited);
    stop.cancel();
}

#[tokio::test]
async fn without_the_budgets_an_instance_keeps_to_its_share_of_the_limit() {
    let stop = CancellationToken::new();
    let shaky = Arc::new(Shaky::default());
    let limiter = Limiter::start(&limits(480, 86_400), shaky.clone() as Arc<dyn Budgets>, stop.clone());
    // It has heard by then that there are four.
    assert!(matches!(limiter.admit(&user("ann"), Class::Read).await, Decision::Admitted(_)));
    shaky.away.store(true, Ordering::SeqCst);
    let pass = async |name: &str| {
        let mut passed = 0;
        while let Decision::Admitted(_) = limiter.admit(&user(name), Class::Read).await {
            passed += 1;
            assert!(passed < 1_000, "nothing is limited any more");
        }
        passed
    };
    assert_eq!(pass("bob").await, 479 / 4, "a quarter of what can be taken at once");
    // Ann goes on with what is left of her slice, and then alone as well.
    assert!((479 / 4..=479 / 4 + 60).contains(&pass("ann").await));
    stop.cancel();
}

#[tokio::test]
async fn whoever_comes_with_ever_new_names_is_forgotten_and_not_kept() {
    let stop = CancellationToken::new();
    let limiter = Limiter::start(&limits(10, 60), Arc::new(MemoryBudgets::default()), stop.clone());
    for n in 0..100_000 {
        let _ = limiter.decide(&user(&format!("usr_{n}")), Class::Read);
    }
    assert!(limiter.remembered() <= 32_768, "{} are remembered", limiter.remembered());
    stop.cancel();
}
