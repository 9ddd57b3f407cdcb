//! Three NATS servers as one.

use async_nats::jetstream;

use super::*;

const PEERS: [Child; 3] = [Child::NatsPeer(1), Child::NatsPeer(2), Child::NatsPeer(3)];

fn clustered(data_dir: &Path) -> Options {
    Options { nats_servers: Some(3), postgres_url: Some("postgres://nowhere".to_owned()), ..options(data_dir) }
}

async fn jetstream_at(stack: &Stack) -> jetstream::Context {
    let address = stack.nats();
    let (user, password) = (address.user.clone().unwrap(), address.password.clone().unwrap());
    let servers: Vec<String> = address.url.split(',').map(str::to_owned).collect();
    let options = async_nats::ConnectOptions::with_user_and_password(user, password);
    jetstream::new(options.connect(&*servers).await.unwrap())
}

#[tokio::test]
async fn a_cluster_keeps_its_data_addresses_and_size_over_a_restart() {
    let folder = folder();
    let cold = Instant::now();
    let stack = started(clustered(folder.path())).await;
    println!("a cluster is ready after {:?}", cold.elapsed());
    let before = stack.nats().clone();
    assert_eq!(before.servers.iter().map(|server| server.child).collect::<Vec<_>>(), PEERS);
    let stream = jetstream::stream::Config {
        name: "KEPT".to_owned(),
        subjects: vec!["kept".to_owned()],
        num_replicas: 3,
        ..Default::default()
    };
    let context = jetstream_at(&stack).await;
    context.create_stream(stream).await.unwrap();
    context.publish("kept", "x".into()).await.unwrap().await.unwrap();
    let seen: Vec<_> =
        doctor(&clustered(folder.path())).into_iter().filter(|one| one.name.starts_with("nats-")).collect();
    assert!(seen.iter().filter(|one| one.name != "nats-server").all(|one| one.status == Status::Ok), "{seen:?}");
    assert_eq!(seen.iter().filter(|one| one.detail.contains("leads the cluster")).count(), 1, "{seen:?}");
    let report = stack.stop().await;
    assert!(report.was_graceful() && report.children.len() == 3, "{report:?}");

    // Without a wish it goes on as what it is.
    let warm = Instant::now();
    let stack = started(Options { nats_servers: None, ..clustered(folder.path()) }).await;
    println!("and again after {:?}, stopped: {:?}", warm.elapsed(), report.children);
    assert_eq!(*stack.nats(), before);
    let context = jetstream_at(&stack).await;
    // Its own group may still be choosing a leader.
    let messages = async || Some(context.get_stream("KEPT").await.ok()?.cached_info().state.messages);
    assert_eq!(until("the stream is back", messages).await, 1);
    stack.stop().await;

    let refused = start(Options { nats_servers: Some(1), ..clustered(folder.path()) }, |_| {}).await.err().unwrap();
    assert!(refused.to_string().contains("was made with a cluster of 3 NATS servers"), "{refused}");
}

#[tokio::test]
async fn one_server_is_not_continued_as_a_cluster() {
    let folder = folder();
    let one = Options { nats_servers: None, ..clustered(folder.path()) };
    let stack = started(one.clone()).await;
    let stream = jetstream::stream::Config { name: "KEPT".to_owned(), ..Default::default() };
    jetstream_at(&stack).await.create_stream(stream).await.unwrap();
    stack.stop().await;
    let refused = start(clustered(folder.path()), |_| {}).await.err().unwrap();
    assert!(matches!(refused, StartError::OtherSize { made: 1, asked: 3, .. }), "{refused:?}");
    let odd = start(Options { nats_servers: Some(2), ..one.clone() }, |_| {}).await.err().unwrap();
    assert!(odd.to_string().contains("not of 2"), "{odd}");
    started(one).await.stop().await;
}

#[tokio::test]
async fn a_killed_server_of_a_cluster_comes_back_and_no_child_is_left_at_the_end() {
    let folder = folder();
    let stack = started(clustered(folder.path())).await;
    for peer in PEERS {
        assert!(stack.kill_child(peer, Signal::SIGKILL).await);
        until("it is back", async || (stack.restarts(peer) == 1).then_some(())).await;
    }
    let pids = PEERS.map(|peer| stack.child_pid(peer).unwrap());
    assert!(stack.kill_child(PEERS[1], Signal::SIGSTOP).await);
    assert!(pids.iter().all(|pid| alive(*pid)));
    stack.stop().await;
    assert!(pids.iter().all(|pid| !alive(*pid)));
}

#[tokio::test]
async fn nats_server_accepts_the_example_configurations() {
    let (folder, told) = (folder(), Arc::new(Mutex::new(Vec::new())));
    let hear = told.clone();
    let one = Options { nats_servers: None, ..clustered(folder.path()) };
    let stack = start(one, move |progress| hear.lock().unwrap().push(progress.clone())).await.unwrap();
    let binary = told.lock().unwrap().iter().find_map(|told| match told {
        Progress::Chose { what: Child::Nats, path, .. } => path.clone(),
        _ => None,
    });
    stack.stop().await;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nats/cluster");
    for number in 1..=3 {
        let example = examples.join(format!("nats-{number}.conf"));
        // A server does not start before the key is one of yours.
        let text = std::fs::read_to_string(&example).unwrap();
        let key = nkeys::KeyPair::new_account().public_key();
        assert!(text.contains("issuer: \"CHANGE-ME\""), "{}", example.display());
        let changed = folder.path().join(format!("nats-{number}.conf"));
        std::fs::write(&changed, text.replace("issuer: \"CHANGE-ME\"", &format!("issuer: \"{key}\""))).unwrap();
        let checked = std::process::Command::new(binary.as_ref().unwrap()).arg("-t").arg("-c").arg(&changed).output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{}: {}", example.display(), String::from_utf8_lossy(&checked.stderr));
    }
}
