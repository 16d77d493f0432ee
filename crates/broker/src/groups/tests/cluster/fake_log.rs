//! The offsets partitions of the cluster in memory, as the groups of one broker reach them.

use super::*;

/// The cluster as one broker sees it.
pub(super) struct FakeLog {
    pub(super) cluster: Arc<Cluster>,
    pub(super) broker_id: BrokerId,
}

impl FakeLog {
    fn append(&self, mut entry: ProduceEntry) -> Result<Produced, ProduceError> {
        let mut state = self.cluster.lock();
        let (fate, lag) = (state.fate, state.followers_lag);
        let record = state.image.partition(entry.id).cloned();
        let record = record.ok_or(ProduceError::UnknownPartition)?;
        if record.leader != Some(self.broker_id) {
            let leader = record.leader.map(|leader| (leader, record.leader_epoch));
            return Err(ProduceError::NotLeader { leader });
        }
        if fate == Fate::Refused {
            return Err(ProduceError::NotEnoughReplicas {
                in_sync: 1,
                required: 2,
            });
        }
        state.produced_batches += 1;
        let log = state
            .logs
            .get_mut(&entry.id)
            .ok_or(ProduceError::UnknownPartition)?;
        let base_offset = log.end;
        stamp(&mut entry.batch, base_offset, record.leader_epoch);
        log.end = base_offset.plus(i64::from(entry.header.record_count));
        log.batches
            .push((base_offset, log.end, entry.batch.freeze()));
        if fate == Fate::Unknown {
            return Err(ProduceError::TimedOut);
        }
        log.high_watermark = log.end;
        for (broker, known) in &mut log.known {
            if *broker == self.broker_id || !lag {
                *known = log.end;
            }
        }
        Ok(Produced {
            base_offset,
            log_append_time: None,
            log_start_offset: Offset::ZERO,
        })
    }

    fn read(&self, request: &FetchRequest) -> (Vec<FetchAnswer>, bool) {
        let mut state = self.cluster.lock();
        let mut read = 0;
        let mut any = false;
        let mut answers = Vec::new();
        for partition in &request.partitions {
            let result = match state.logs.get(&partition.id) {
                None => Err(FetchError::UnknownPartition),
                Some(log) => {
                    let high_watermark = log.known[&self.broker_id];
                    let mut bytes = Vec::new();
                    // As the lineage of a real log: the epoch of the last record must be the same.
                    let ends_here = log.batches.iter().find(|b| b.1 == partition.offset);
                    let epoch = ends_here.and_then(|(_, _, batch)| {
                        BatchHeader::parse(batch).unwrap().leader_epoch()
                    });
                    let foreign = partition
                        .last_fetched_epoch
                        .is_some_and(|asked| epoch != Some(asked));
                    for (_, next, batch) in &log.batches {
                        if *next > partition.offset && *next <= high_watermark {
                            bytes.extend_from_slice(batch);
                            read += 1;
                        }
                    }
                    any |= !bytes.is_empty() || foreign;
                    let records = match bytes.is_empty() {
                        true => FetchedRecords::Empty,
                        false => FetchedRecords::Memory(bytes.into()),
                    };
                    Ok(FetchedPartition {
                        high_watermark,
                        last_stable_offset: high_watermark,
                        log_start_offset: Offset::ZERO,
                        records,
                        diverging: foreign.then_some((LeaderEpoch::ZERO, Offset::ZERO)),
                        aborted: Vec::new(),
                    })
                }
            };
            any |= result.is_err();
            answers.push(FetchAnswer {
                id: partition.id,
                result,
            });
        }
        state.read_batches += read;
        (answers, any)
    }
}

impl OffsetsLog for FakeLog {
    fn broker_id(&self) -> BrokerId {
        self.broker_id
    }

    fn image(&self) -> Arc<Image> {
        self.cluster.lock().image_of(self.broker_id)
    }

    fn image_changes(&self) -> watch::Receiver<u64> {
        self.cluster.index.subscribe()
    }

    fn replica_status(&self, id: PartitionId) -> Option<ReplicaStatus> {
        let state = self.cluster.lock();
        let log = state.logs.get(&id)?;
        let image = state.image_of(self.broker_id);
        let record = image.partition(id)?;
        let leads = record.leader == Some(self.broker_id);
        Some(ReplicaStatus {
            role: if leads {
                ReplicaRole::Leader
            } else {
                ReplicaRole::Follower
            },
            leader_epoch: record.leader_epoch,
            epoch_start_offset: leads.then_some(log.epoch_start),
            log_start_offset: Offset::ZERO,
            high_watermark: log.known[&self.broker_id],
            log_end_offset: log.end,
            flushed_offset: log.end,
            size_bytes: 0,
            isr: BROKERS.to_vec(),
        })
    }

    fn partition_dir(&self, id: PartitionId) -> Option<PathBuf> {
        let root = self.cluster.lock().root.path().to_owned();
        let dir = root.join(format!("{}-{}", self.broker_id, id.partition));
        std::fs::create_dir_all(&dir).unwrap();
        Some(dir)
    }

    fn produce(
        &self,
        entries: Vec<ProduceEntry>,
        acks: Acks,
        _deadline: Instant,
    ) -> BoxFuture<'static, Vec<Result<Produced, ProduceError>>> {
        assert_eq!(acks, Acks::All);
        let results: Vec<_> = entries
            .into_iter()
            .map(|entry| self.append(entry))
            .collect();
        let cluster = Arc::clone(&self.cluster);
        async move {
            sleep(Duration::from_micros(200)).await;
            cluster.wake();
            results
        }
        .boxed()
    }

    fn fetch(&self, request: FetchRequest) -> BoxFuture<'static, Vec<FetchAnswer>> {
        let mut moved = self.cluster.moved.subscribe();
        let log = FakeLog {
            cluster: Arc::clone(&self.cluster),
            broker_id: self.broker_id,
        };
        async move {
            loop {
                let (answers, any) = log.read(&request);
                if any || timeout_at(request.deadline, moved.changed()).await.is_err() {
                    return answers;
                }
            }
        }
        .boxed()
    }

    fn confirm_leadership(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        deadline: Instant,
    ) -> BoxFuture<'static, bool> {
        let cluster = Arc::clone(&self.cluster);
        let broker = self.broker_id;
        async move {
            loop {
                let mut moved = cluster.moved.subscribe();
                {
                    let state = cluster.lock();
                    let paused = state.paused.as_ref().is_some_and(|(id, _)| *id == broker);
                    let record = state.image.partition(id);
                    let leads = record.is_some_and(|record| {
                        record.leader == Some(broker) && record.leader_epoch == leader_epoch
                    });
                    if leads || !paused {
                        return leads;
                    }
                }
                if timeout_at(deadline, moved.changed()).await.is_err() {
                    return false;
                }
            }
        }
        .boxed()
    }

    fn execute(
        &self,
        command: Command,
        _deadline: Instant,
    ) -> BoxFuture<'static, Result<(u64, Outcome), ControllerError>> {
        let Command::CreateTopics { topics, live, .. } = command else {
            return async { Err(ControllerError::TimedOut) }.boxed();
        };
        assert_eq!(live, BTreeSet::new());
        let CreateTopic {
            name,
            partitions,
            configs,
            ..
        } = topics.into_iter().next().unwrap();
        assert_eq!(configs["cleanup.policy"], "compact");
        let partitions = partitions.unwrap();
        let topic_id = self.cluster.create_topic(&name, partitions);
        let created = CreatedTopic {
            topic_id,
            partitions,
            replication_factor: 2,
        };
        let index = self.cluster.lock().image.index;
        async move { Ok((index, Outcome::CreatedTopics(vec![Ok(created)]))) }.boxed()
    }

    fn wait_for_image(&self, _index: u64, _deadline: Instant) -> BoxFuture<'static, bool> {
        async { true }.boxed()
    }
}
