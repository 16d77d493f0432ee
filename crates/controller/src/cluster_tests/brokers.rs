//! What brokers see: registration, sessions, fencing, the metadata stream.

use std::{collections::BTreeSet, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use uuid::Uuid;

use ottla_metadata::{AlterConfigOp, Command, Image, Outcome, Record, Registration};
use ottla_rpc::{
    controller::{
        ExecuteRequest, Heartbeat, HeartbeatReply, MetadataUpdate, SubscribeRequest,
        heartbeat_reply,
    },
    convert,
};
use ottla_types::{BrokerEpoch, BrokerId};

use super::harness::{LIMIT, Net, create_topic};

/// A registered broker of which only the control connection exists.
struct Broker {
    id: BrokerId,
    incarnation: Uuid,
    epoch: BrokerEpoch,
}

struct Session {
    heartbeats: mpsc::Sender<Heartbeat>,
    answers: Streaming<HeartbeatReply>,
}

impl Broker {
    async fn register(net: &Net, id: i32, address: &str) -> Broker {
        let incarnation = Uuid::new_v4();
        let registration = Registration {
            broker_id: BrokerId(id),
            cluster_id: None,
            incarnation,
            directory_ids: vec![Uuid::new_v4()],
            endpoints: Vec::new(),
            replication_address: address.to_owned(),
            rack: None,
            unclean: false,
            damaged: BTreeSet::new(),
            power_cut: None,
            default_flush_mode: ottla_types::FlushMode::Ack,
            offline_directories: Vec::new(),
            live: BTreeSet::new(),
        };
        match net.execute(Command::RegisterBroker(registration)).await {
            (_, Outcome::Registered { broker_epoch }) => Broker {
                id: BrokerId(id),
                incarnation,
                epoch: broker_epoch,
            },
            other => panic!("{other:?}"),
        }
    }

    fn beat(&self, metadata_index: u64, ready: bool, want_shutdown: bool) -> Heartbeat {
        Heartbeat {
            broker_id: self.id.get(),
            broker_epoch: self.epoch.get(),
            incarnation: convert::uuid_bytes(self.incarnation),
            metadata_index,
            ready,
            want_shutdown,
            offline_directories: Vec::new(),
            no_space: false,
        }
    }

    async fn connect(&self, net: &Net, active: i32) -> Session {
        let (heartbeats, receiver) = mpsc::channel(16);
        heartbeats
            .send(self.beat(u64::MAX >> 1, true, false))
            .await
            .unwrap();
        let answers = net
            .client(active)
            .session(ReceiverStream::new(receiver))
            .await
            .unwrap();
        Session {
            heartbeats,
            answers: answers.into_inner(),
        }
    }
}

impl Session {
    /// Waits for an answer that satisfies `wanted`.
    async fn told(&mut self, wanted: impl Fn(&heartbeat_reply::Result) -> bool) {
        assert!(self.is_told(wanted).await, "the stream ended");
    }

    /// The same; `false` if the stream ends first.
    async fn is_told(&mut self, wanted: impl Fn(&heartbeat_reply::Result) -> bool) -> bool {
        let reading = async {
            while let Ok(Some(reply)) = self.answers.message().await {
                if reply.result.as_ref().is_some_and(&wanted) {
                    return true;
                }
            }
            false
        };
        tokio::time::timeout(LIMIT, reading)
            .await
            .expect("the wanted answer")
    }

    async fn unfenced(&mut self) {
        self.told(is_unfenced).await;
    }
}

fn is_unfenced(result: &heartbeat_reply::Result) -> bool {
    matches!(result, heartbeat_reply::Result::Accepted(accepted) if !accepted.fenced)
}

async fn subscribe(net: &Net, active: i32, from_index: u64) -> Streaming<MetadataUpdate> {
    let request = SubscribeRequest {
        cluster_id: String::new(),
        broker_id: 9,
        from_index,
    };
    net.client(active)
        .subscribe(request)
        .await
        .unwrap()
        .into_inner()
}

/// Folds updates into an image until it satisfies `wanted`.
async fn follow(
    updates: &mut Streaming<MetadataUpdate>,
    image: &mut Image,
    wanted: impl Fn(&Image) -> bool,
) {
    let reading = async {
        while !wanted(image) {
            let update = updates.message().await.unwrap().expect("an update");
            if let Some(bytes) = &update.image {
                *image = ottla_metadata::decode(bytes).unwrap();
            }
            assert!(update.index >= image.index, "indices only rise");
            let records: Vec<Record> = ottla_metadata::decode(&update.records).unwrap();
            image.fold(update.index, &records);
        }
    };
    tokio::time::timeout(LIMIT, reading)
        .await
        .expect("the wanted image");
}

fn is_fenced(image: &Image, id: BrokerId) -> Option<bool> {
    image.broker(id).map(|broker| broker.fenced)
}

#[tokio::test]
async fn a_broker_is_unfenced_when_ready_and_fenced_soon_after_its_stream_breaks() {
    let mut net = Net::new(1);
    net.start_all().await;
    let active = net.active().await;
    let mut image = Image::default();
    let mut updates = subscribe(&net, active, 0).await;
    let broker = Broker::register(&net, 11, "127.0.0.1:1").await;
    let other = Broker::register(&net, 12, "127.0.0.1:1").await;
    follow(&mut updates, &mut image, |image| {
        is_fenced(image, BrokerId(12)) == Some(true)
    })
    .await;
    let mut session = broker.connect(&net, active).await;
    let mut other_session = other.connect(&net, active).await;
    session.unfenced().await;
    other_session.unfenced().await;
    net.execute(create_topic("t", 4)).await;
    follow(&mut updates, &mut image, |image| {
        image.partitions().count() == 4
    })
    .await;
    assert!(image.partitions_led_by(BrokerId(11)).count() > 0);

    let broke = Instant::now();
    drop(session);
    let beating = async {
        loop {
            other_session
                .heartbeats
                .send(other.beat(1, true, false))
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let fenced = follow(&mut updates, &mut image, |image| {
        is_fenced(image, BrokerId(11)) == Some(true)
            && image.partitions_led_by(BrokerId(12)).count() == 4
    });
    tokio::select! {
        () = beating => {}
        () = fenced => {}
    }
    println!("fenced {:?} after the stream broke", broke.elapsed());
    assert!(
        broke.elapsed() >= Duration::from_millis(40),
        "nothing listens on its address: the whole grace is for those that do"
    );
    assert!(
        broke.elapsed() < Duration::from_millis(1_900),
        "not by silence"
    );
    assert_eq!(net.handle(active).metrics().broker_fencings, 1);
    net.stop_all().await;
}

#[tokio::test]
async fn a_silent_broker_is_fenced_after_a_session() {
    let mut net = Net::new(1);
    net.configure(|config| config.session_timeout = Duration::from_millis(700));
    net.start_all().await;
    let active = net.active().await;
    let broker = Broker::register(&net, 11, "127.0.0.1:1").await;
    let began = Instant::now();
    let mut session = broker.connect(&net, active).await;
    session.unfenced().await;
    session
        .told(|result| {
            matches!(result, heartbeat_reply::Result::Accepted(accepted) if accepted.fenced)
        })
        .await;
    assert!(began.elapsed() >= Duration::from_millis(700));
    net.stop_all().await;
}

#[tokio::test]
async fn an_older_incarnation_is_told_that_it_is_stale() {
    let mut net = Net::new(1);
    net.start_all().await;
    let active = net.active().await;
    let mut broker = Broker::register(&net, 11, "127.0.0.1:1").await;
    broker.epoch = BrokerEpoch::ZERO;
    let mut session = broker.connect(&net, active).await;
    session
        .told(|result| matches!(result, heartbeat_reply::Result::Stale(_)))
        .await;
    net.stop_all().await;
}

#[tokio::test]
async fn a_stopping_broker_hands_over_and_may_go() {
    let mut net = Net::new(1);
    net.start_all().await;
    let active = net.active().await;
    let (one, two) = (
        Broker::register(&net, 11, "127.0.0.1:1").await,
        Broker::register(&net, 12, "127.0.0.1:1").await,
    );
    let mut first = one.connect(&net, active).await;
    let mut second = two.connect(&net, active).await;
    first.unfenced().await;
    second.unfenced().await;
    net.execute(create_topic("t", 4)).await;
    first
        .heartbeats
        .send(one.beat(u64::MAX >> 1, true, true))
        .await
        .unwrap();
    first
        .told(|result| {
            matches!(result, heartbeat_reply::Result::Accepted(accepted) if accepted.may_shut_down)
        })
        .await;
    let led = net
        .handle(active)
        .cluster
        .read(|_, tally| tally.led_by(BrokerId(11)));
    assert_eq!(led, 0);
    net.stop_all().await;
}

/// C-9: the address of a broker that died together with the active controller refuses the new
/// one, which need not wait for silence.
#[tokio::test]
async fn a_broker_that_died_with_the_active_controller_is_fenced_by_its_refusing_address() {
    let mut net = Net::new(3);
    net.start_all().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let broker = Broker::register(&net, 11, &address).await;
    // On a busy machine the leader may change meanwhile.
    let (active, session) = loop {
        let active = net.active().await;
        let mut session = broker.connect(&net, active).await;
        if session.is_told(is_unfenced).await {
            break (active, session);
        }
    };

    let died = Instant::now();
    drop((session, listener));
    net.kill(active).await;
    let active = net.active().await;
    let mut image = Image::default();
    let mut updates = subscribe(&net, active, 0).await;
    follow(&mut updates, &mut image, |image| {
        is_fenced(image, BrokerId(11)) == Some(true)
    })
    .await;
    println!("replaced after {:?}", died.elapsed());
    assert!(died.elapsed() < Duration::from_secs(6));
    net.stop_all().await;
}

/// As with a container that was killed: its process closed its connections, and then its name no
/// longer resolves. That is a broken stream, not silence (C-9).
#[tokio::test]
async fn a_broker_that_vanished_with_the_active_controller_is_fenced_before_a_session_is_over() {
    const SESSION: Duration = Duration::from_secs(60);
    let mut net = Net::new(3);
    net.configure(|config| config.session_timeout = SESSION);
    net.start_all().await;
    let nowhere = "gone.invalid:9094";
    // Brokers on the nodes of controllers, and one elsewhere of which only the name is as bad.
    let (first, session) = loop {
        let first = net.active().await;
        let broker = Broker::register(&net, first, nowhere).await;
        let mut session = broker.connect(&net, first).await;
        if session.is_told(is_unfenced).await {
            break (first, session);
        }
    };
    let elsewhere = Broker::register(&net, 11, nowhere).await;
    let mut silent = elsewhere.connect(&net, first).await;
    silent.unfenced().await;

    let died = Instant::now();
    drop(session);
    net.kill(first).await;
    let active = net.active().await;
    let mut image = Image::default();
    let mut updates = subscribe(&net, active, 0).await;
    follow(&mut updates, &mut image, |image| {
        is_fenced(image, BrokerId(first)) == Some(true)
    })
    .await;
    println!("fenced after {:?}", died.elapsed());
    assert!(died.elapsed() < SESSION / 4);
    assert_eq!(is_fenced(&image, BrokerId(11)), Some(false), "C-9");
    net.stop_all().await;
}

#[tokio::test]
async fn a_failed_directory_and_a_full_disk_in_a_heartbeat_are_decided_at_once() {
    let mut net = Net::new(1);
    net.start_all().await;
    let active = net.active().await;
    let mut image = Image::default();
    let mut updates = subscribe(&net, active, 0).await;
    let (one, two) = (
        Broker::register(&net, 11, "127.0.0.1:1").await,
        Broker::register(&net, 12, "127.0.0.1:1").await,
    );
    let mut first = one.connect(&net, active).await;
    let mut second = two.connect(&net, active).await;
    first.unfenced().await;
    second.unfenced().await;
    net.execute(create_topic("t", 4)).await;
    let led = |image: &Image, id| image.partitions_led_by(BrokerId(id)).count();
    follow(&mut updates, &mut image, |image| led(image, 11) > 0).await;
    let full = Heartbeat {
        no_space: true,
        ..one.beat(u64::MAX >> 1, true, false)
    };
    first.heartbeats.send(full.clone()).await.unwrap();
    follow(&mut updates, &mut image, |image| led(image, 12) == 4).await;
    assert!(image.partitions().all(|(_, record)| record.isr.len() == 2));
    let directory = image.broker(BrokerId(11)).unwrap().directory_ids[0];
    let failed = Heartbeat {
        offline_directories: vec![convert::uuid_bytes(directory)],
        ..full
    };
    first.heartbeats.send(failed).await.unwrap();
    follow(&mut updates, &mut image, |image| {
        let mut records = image.partitions();
        records.all(|(_, record)| !record.isr.contains(&BrokerId(11)))
    })
    .await;
    assert_eq!(is_fenced(&image, BrokerId(11)), Some(false));
    assert!(image.is_replica_offline(BrokerId(11)));
    net.stop_all().await;
}

#[tokio::test]
async fn what_the_active_controllers_file_says_of_elections_is_in_force() {
    let key = "unclean.leader.election.enable";
    let mut net = Net::new(1);
    net.configure(|config| {
        config
            .file_configs
            .insert(key.to_owned(), "true".to_owned());
    });
    net.start_all().await;
    net.active().await;
    let enabled = |net: &Net| {
        let cluster = net.handle(1).cluster;
        cluster.read(|image, _| image.unclean_leader_election_enabled("any"))
    };
    assert!(enabled(&net));
    net.kill(1).await;
    net.configure(|config| config.file_configs.clear());
    net.start(1).await;
    net.active().await;
    assert!(!enabled(&net));
    // A broker cannot say so in its place.
    let alteration = ottla_metadata::ConfigAlteration {
        resource: ottla_metadata::ConfigResource::ControllerFile,
        ops: vec![(key.to_owned(), AlterConfigOp::Set("true".to_owned()))],
    };
    let command = Command::AlterConfigs {
        alterations: vec![alteration],
        validate_only: false,
    };
    let request = ExecuteRequest {
        cluster_id: String::new(),
        command: ottla_metadata::encode(&command).into(),
    };
    let status = net.client(1).execute(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    net.stop_all().await;
}

#[tokio::test]
async fn subscribers_get_records_without_an_image_when_they_are_close() {
    let mut net = Net::new(1);
    net.start_all().await;
    let active = net.active().await;
    let mut image = Image::default();
    let mut updates = subscribe(&net, active, 0).await;
    follow(&mut updates, &mut image, |image| image.cluster_id.is_some()).await;
    let mut resumed = subscribe(&net, active, image.index).await;
    let (index, _) = net.execute(create_topic("t", 1)).await;
    loop {
        let update = resumed.message().await.unwrap().unwrap();
        assert!(update.image.is_none());
        if update.index >= index {
            break;
        }
    }
    follow(&mut updates, &mut image, |image| image.index >= index).await;
    net.stop_all().await;
}

#[tokio::test]
async fn another_cluster_id_is_refused() {
    let mut net = Net::new(1);
    net.start_all().await;
    let active = net.active().await;
    let request = SubscribeRequest {
        cluster_id: "other".to_owned(),
        broker_id: 9,
        from_index: 0,
    };
    let status = net.client(active).subscribe(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert_eq!(net.handle(active).metrics().refused_requests, 1);
    net.stop_all().await;
}
