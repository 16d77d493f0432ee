//! Against a real cluster, ours or Apache Kafka's: `OTTLA_BOOTSTRAP=host:port,... cargo nextest run
//! -p ottla-client --test live`. Without the variable every test says that it is skipped.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use ottla_client::{
    Acks, Admin, AdminError, Assignor, ClientConfig, Codec, CommittedOffset, ConfigChange,
    ConfigResource, Consumer, ConsumerConfig, ConsumerRecord, ElectionType, ErrorCode,
    IsolationLevel, NewTopic, OffsetReset, OffsetSpec, Producer, ProducerConfig, ProducerRecord,
    RebalanceEvent, RequestError, TopicPartition,
};
use tokio::time::Instant;

fn client() -> Option<ClientConfig> {
    match std::env::var("OTTLA_BOOTSTRAP") {
        Ok(bootstrap) => Some(ClientConfig::from_list(&bootstrap)),
        Err(_) => {
            eprintln!("SKIPPED: OTTLA_BOOTSTRAP does not name a cluster");
            None
        }
    }
}

fn fresh(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

async fn topic(admin: &Admin, name: &str, partitions: i32) -> Result<String> {
    let name = fresh(name);
    admin
        .create_topic(NewTopic::new(&name).partitions(partitions))
        .await?;
    admin.wait_for_leaders(&name).await?;
    Ok(name)
}

fn consumer(client: &ClientConfig) -> ConsumerConfig {
    let mut config = ConsumerConfig::new(client.clone());
    config.offset_reset = OffsetReset::Earliest;
    config.session_timeout = Duration::from_secs(10);
    config.heartbeat_interval = Duration::from_millis(300);
    config
}

async fn produce(client: &ClientConfig, topic: &str, values: std::ops::Range<usize>) -> Result<()> {
    let producer = Producer::new(ProducerConfig::new(client.clone()))?;
    let mut deliveries = Vec::new();
    for value in values {
        let record = ProducerRecord::to(topic)
            .key(value.to_string())
            .value(value.to_string());
        deliveries.push(producer.send(record).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    producer.close(Duration::from_secs(10)).await;
    Ok(())
}

/// Polls until `count` records are here.
async fn read(consumer: &mut Consumer, count: usize) -> Result<Vec<ConsumerRecord>> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut records = Vec::new();
    while records.len() < count {
        ensure!(
            Instant::now() < deadline,
            "{} of {count} records",
            records.len()
        );
        records.extend(consumer.poll(Duration::from_millis(200)).await?.records);
    }
    Ok(records)
}

fn numbers(records: &[ConsumerRecord]) -> Vec<usize> {
    let value = |record: &ConsumerRecord| {
        let value = record.value.as_deref().unwrap();
        std::str::from_utf8(value).unwrap().parse().unwrap()
    };
    let mut numbers: Vec<usize> = records.iter().map(value).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn what_is_produced_is_consumed_with_every_codec_and_acks() -> Result<()> {
    let Some(client) = client() else {
        return Ok(());
    };
    let admin = Admin::new(client.clone())?;
    for (codec, acks) in [
        (Codec::None, Acks::All),
        (Codec::Gzip, Acks::Leader),
        (Codec::Snappy, Acks::All),
        (Codec::Lz4, Acks::None),
        (Codec::Zstd, Acks::All),
    ] {
        let topic = topic(&admin, "codec", 1).await?;
        let mut config = ProducerConfig::new(client.clone()).acks(acks);
        config.compression = codec;
        let producer = Producer::new(config)?;
        let mut deliveries = Vec::new();
        for number in 0..500usize {
            let record = ProducerRecord::to(topic.as_str())
                .key(format!("k{number}"))
                .value(number.to_string())
                .timestamp(1_700_000_000_000 + i64::try_from(number)?)
                .header("h", format!("{number}"));
            deliveries.push(producer.send(record).await?);
        }
        for (number, delivery) in deliveries.into_iter().enumerate() {
            let written = delivery.await?;
            if acks != Acks::None {
                ensure!(written.offset == Some(i64::try_from(number)?));
            }
        }
        let mut consumer = Consumer::new(consumer(&client))?;
        consumer
            .assign([TopicPartition::new(topic.as_str(), 0)])
            .await;
        let records = read(&mut consumer, 500).await?;
        for (number, record) in records.iter().enumerate() {
            ensure!(record.offset == i64::try_from(number)?);
            ensure!(record.timestamp == 1_700_000_000_000 + i64::try_from(number)?);
            ensure!(record.key.as_deref() == Some(format!("k{number}").as_bytes()));
            ensure!(record.headers.len() == 1 && &record.headers[0].0[..] == b"h");
        }
        consumer.close(Duration::from_secs(10)).await;
        producer.close(Duration::from_secs(10)).await;
    }
    Ok(())
}

#[tokio::test]
async fn positions_can_be_sought_by_offset_and_time_and_partitions_paused() -> Result<()> {
    let Some(client) = client() else {
        return Ok(());
    };
    let admin = Admin::new(client.clone())?;
    let topic = topic(&admin, "seek", 1).await?;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let producer = Producer::new(ProducerConfig::new(client.clone()))?;
    for number in 0..100i64 {
        let record = ProducerRecord::to(topic.as_str())
            .value(number.to_string())
            .timestamp(1_700_000_000_000 + number * 1000);
        producer.send(record).await?;
    }
    producer.flush().await;
    let mut config = consumer(&client);
    config.isolation = IsolationLevel::ReadCommitted;
    let mut consumer = Consumer::new(config)?;
    consumer.assign([partition.clone()]).await;
    read(&mut consumer, 100).await?;
    ensure!(consumer.position(&partition) == Some(100));
    ensure!(consumer.high_watermark(&partition) == Some(100));
    consumer.seek(&partition, 90)?;
    ensure!(numbers(&read(&mut consumer, 10).await?)[0] == 90);
    consumer.seek_to(&partition, OffsetSpec::Timestamp(1_700_000_050_500))?;
    ensure!(numbers(&read(&mut consumer, 49).await?)[0] == 51);
    consumer.seek_to(&partition, OffsetSpec::Earliest)?;
    consumer.pause(&partition)?;
    ensure!(consumer.poll(Duration::from_millis(700)).await?.is_empty());
    consumer.resume(&partition)?;
    ensure!(numbers(&read(&mut consumer, 100).await?)[0] == 0);
    let wanted = BTreeMap::from([(partition.clone(), OffsetSpec::Latest)]);
    let found = consumer
        .list_offsets(wanted, Duration::from_secs(10))
        .await?;
    ensure!(found[&partition].offset == Some(100));
    // Beyond the end: the rule brings it back to the beginning.
    consumer.seek(&partition, 5_000)?;
    ensure!(numbers(&read(&mut consumer, 100).await?)[0] == 0);
    consumer.close(Duration::from_secs(10)).await;
    Ok(())
}

#[tokio::test]
async fn members_share_a_topic_and_hand_it_over_with_every_assignor() -> Result<()> {
    let Some(client) = client() else {
        return Ok(());
    };
    let admin = Admin::new(client.clone())?;
    for assignor in [
        Assignor::Range,
        Assignor::RoundRobin,
        Assignor::CooperativeSticky,
    ] {
        let topic = topic(&admin, "group", 4).await?;
        let group = fresh("group");
        produce(&client, &topic, 0..200).await?;
        let mut config = consumer(&client).group(&group);
        config.assignors = vec![assignor];
        let mut first = Consumer::new(config.clone())?;
        first.subscribe([topic.as_str()]).await?;
        let records = read(&mut first, 200).await?;
        ensure!(
            numbers(&records) == (0..200).collect::<Vec<_>>(),
            "{assignor:?}"
        );
        first.commit().await?;

        let mut second = Consumer::new(config.clone())?;
        second.subscribe([topic.as_str()]).await?;
        let deadline = Instant::now() + Duration::from_secs(60);
        let (mut again, mut revoked) = (Vec::new(), 0);
        while first.assignment().len() != 2 || second.assignment().len() != 2 {
            ensure!(Instant::now() < deadline, "{assignor:?}: no even division");
            let (one, two) = tokio::join!(
                first.poll(Duration::from_millis(100)),
                second.poll(Duration::from_millis(100))
            );
            for event in one?.events {
                if let RebalanceEvent::Revoked(partitions) = event {
                    revoked += partitions.len();
                }
            }
            again.extend(two?.records);
        }
        let expected = if assignor.is_cooperative() { 2 } else { 4 };
        ensure!(revoked == expected, "{assignor:?}: {revoked} revoked");
        ensure!(
            again.is_empty(),
            "{assignor:?}: {} records again",
            again.len()
        );

        // What one commits, the other does not see again after it has gone.
        produce(&client, &topic, 200..300).await?;
        let mut seen = Vec::new();
        while seen.len() < 100 {
            ensure!(Instant::now() < deadline + Duration::from_secs(60));
            let (one, two) = tokio::join!(
                first.poll(Duration::from_millis(100)),
                second.poll(Duration::from_millis(100))
            );
            seen.extend(one?.records);
            seen.extend(two?.records);
        }
        ensure!(
            numbers(&seen) == (200..300).collect::<Vec<_>>(),
            "{assignor:?}"
        );
        first.close(Duration::from_secs(10)).await;
        while second.assignment().len() != 4 {
            ensure!(Instant::now() < deadline + Duration::from_secs(120));
            ensure!(
                second
                    .poll(Duration::from_millis(100))
                    .await?
                    .records
                    .is_empty()
            );
        }
        second.close(Duration::from_secs(10)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_static_member_comes_back_to_its_partitions_without_a_rebalance() -> Result<()> {
    let Some(client) = client() else {
        return Ok(());
    };
    let admin = Admin::new(client.clone())?;
    let topic = topic(&admin, "static", 2).await?;
    let group = fresh("static");
    let mut config = consumer(&client).group(&group);
    config.group_instance_id = Some("one".to_owned());
    let mut first = Consumer::new(config.clone())?;
    first.subscribe([topic.as_str()]).await?;
    produce(&client, &topic, 0..10).await?;
    read(&mut first, 10).await?;
    first.close(Duration::from_secs(10)).await;
    let mut back = Consumer::new(config)?;
    back.subscribe([topic.as_str()]).await?;
    produce(&client, &topic, 10..20).await?;
    ensure!(numbers(&read(&mut back, 10).await?) == (10..20).collect::<Vec<_>>());
    let described = admin.describe_group(&group).await?;
    ensure!(described.members.len() == 1, "{described:?}");
    ensure!(described.members[0].instance_id.as_deref() == Some("one"));
    ensure!(described.members[0].assignment.len() == 2);
    back.close(Duration::from_secs(10)).await;
    Ok(())
}

#[tokio::test]
async fn topics_configs_and_groups_are_administered() -> Result<()> {
    let Some(client) = client() else {
        return Ok(());
    };
    let admin = Admin::new(client.clone())?;
    let cluster = admin.describe_cluster().await?;
    ensure!(!cluster.brokers.is_empty());
    let name = topic(&admin, "admin", 1).await?;
    let again = admin.create_topic(NewTopic::new(&name)).await;
    ensure!(
        matches!(&again, Err(AdminError::Refused(refusal)) if refusal.code == ErrorCode::TopicAlreadyExists),
        "{again:?}"
    );

    let resource = ConfigResource::Topic(name.clone());
    let set = BTreeMap::from([(
        "retention.ms".to_owned(),
        ConfigChange::Set("123456".to_owned()),
    )]);
    admin.alter_configs(&resource, &set, false).await?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let configs = admin.describe_configs(&resource).await?;
        if configs["retention.ms"].value.as_deref() == Some("123456") {
            break;
        }
        ensure!(Instant::now() < deadline, "{configs:?}");
    }
    let wrong = BTreeMap::from([("no.such.key".to_owned(), ConfigChange::Set("1".to_owned()))]);
    ensure!(admin.alter_configs(&resource, &wrong, false).await.is_err());
    let broker = ConfigResource::Broker(cluster.brokers[0].id);
    ensure!(!admin.describe_configs(&broker).await?.is_empty());

    let grown = admin
        .create_partitions(&BTreeMap::from([(name.clone(), 3)]), false)
        .await?;
    ensure!(grown[&name].is_ok(), "{grown:?}");
    while admin.wait_for_leaders(&name).await?.topics[&*name]
        .partitions
        .len()
        != 3
    {
        ensure!(Instant::now() < deadline + Duration::from_secs(10));
    }
    ensure!(
        !admin
            .describe_log_dirs(cluster.brokers[0].id)
            .await?
            .is_empty()
    );
    ensure!(admin.list_reassignments().await?.is_empty());
    ensure!(admin.describe_quorum().await?.leader.is_some());

    let group = fresh("group");
    let partition = TopicPartition::new(Arc::<str>::from(name.as_str()), 0);
    let offsets = BTreeMap::from([(partition.clone(), CommittedOffset::new(5))]);
    let set = admin.alter_group_offsets(&group, &offsets).await?;
    ensure!(set[&partition].is_ok());
    ensure!(admin.group_offsets(&group, None).await?[&partition].offset == 5);
    ensure!(admin.list_groups().await?.contains_key(&group));
    ensure!(admin.describe_group(&group).await?.state == "Empty");
    let gone = admin
        .delete_group_offsets(&group, std::slice::from_ref(&partition))
        .await?;
    ensure!(gone[&partition].is_ok());
    ensure!(admin.group_offsets(&group, None).await?.is_empty());
    admin.alter_group_offsets(&group, &offsets).await?;
    admin.delete_group(&group).await?;
    ensure!(!admin.list_groups().await?.contains_key(&group));

    let deleted = admin.delete_topics(&[&name]).await?;
    ensure!(deleted[&name].is_ok());
    Ok(())
}

/// What a broker may not serve (yet): then the error says so, and nothing hangs.
#[tokio::test]
async fn the_rest_works_or_is_clearly_unsupported() -> Result<()> {
    let Some(client) = client() else {
        return Ok(());
    };
    let admin = Admin::new(client.clone())?.timeout(Duration::from_secs(20));
    let name = topic(&admin, "rest", 1).await?;
    produce(&client, &name, 0..10).await?;
    let partition = TopicPartition::new(name.as_str(), 0);

    let deleted = admin
        .delete_records(BTreeMap::from([(partition.clone(), Some(4))]))
        .await;
    if is_served("DeleteRecords", &deleted[&partition])? {
        ensure!(*deleted[&partition].as_ref().ok().context("low watermark")? == 4);
    }
    let producers = admin
        .describe_producers(std::slice::from_ref(&partition))
        .await;
    if is_served("DescribeProducers", &producers[&partition])? {
        let states = producers[&partition].as_ref().ok().context("states")?;
        ensure!(
            states.len() == 1 && states[0].last_sequence == Some(9),
            "{states:?}"
        );
    }
    let elected = admin
        .elect_leaders(
            ElectionType::Preferred,
            Some(std::slice::from_ref(&partition)),
        )
        .await;
    if is_served("ElectLeaders", &elected)? {
        let result = elected
            .ok()
            .context("a result")?
            .remove(&partition)
            .context("partition")?;
        let needless = result
            .as_ref()
            .is_err_and(|refusal| refusal.code == ErrorCode::ElectionNotNeeded);
        ensure!(result.is_ok() || needless, "{result:?}");
    }
    let called_off = admin
        .alter_reassignments(&BTreeMap::from([(partition.clone(), None)]))
        .await;
    if is_served("AlterPartitionReassignments", &called_off)? {
        let result = called_off
            .ok()
            .context("a result")?
            .remove(&partition)
            .context("partition")?;
        let code = result.err().map(|refusal| refusal.code);
        ensure!(
            code == Some(ErrorCode::NoReassignmentInProgress),
            "{code:?}"
        );
    }
    admin.delete_topics(&[&name]).await?;
    Ok(())
}

fn is_served<T>(what: &str, result: &Result<T, AdminError>) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(AdminError::Request(RequestError::UnsupportedVersion { .. })) => {
            eprintln!("NOT SERVED by this cluster: {what}");
            Ok(false)
        }
        Err(error) => anyhow::bail!("{what}: {error}"),
    }
}
