//! Requests in, answers out.

use tracing::error;

use ottla_coordinator::{
    CommittedTopic, Coordinator, DeletedOffset, GroupError, Joined, Reply, ReplyToken, Synced,
};
use ottla_types::PartitionIndex;

use super::{
    handle::{ReplyTo, Request},
    hosted::{Hosted, Role},
    owner::Owner,
    topics::{ImageTopics, partition_of},
};

/// Somebody whose answer has to wait.
#[derive(Debug)]
pub(super) enum Waiter {
    Join(ReplyTo<Joined>),
    Sync(ReplyTo<Synced>),
    Commit(ReplyTo<Vec<CommittedTopic>>),
    DeleteGroup(ReplyTo<()>),
    DeleteOffsets(ReplyTo<Vec<DeletedOffset>>),
}

impl Waiter {
    /// The answer that says that another broker may coordinate.
    fn refuse(self) {
        let error = GroupError::NotCoordinator;
        match self {
            Waiter::Join(to) => drop(to.send(Err(error))),
            Waiter::Sync(to) => drop(to.send(Err(error))),
            Waiter::Commit(to) => drop(to.send(Err(error))),
            Waiter::DeleteGroup(to) => drop(to.send(Err(error))),
            Waiter::DeleteOffsets(to) => drop(to.send(Err(error))),
        }
    }

    /// Gives it its answer; nobody is hurt if the asker has left.
    fn answer(self, reply: Reply) {
        match (self, reply) {
            (Waiter::Join(to), Reply::Join(result)) => drop(to.send(result)),
            (Waiter::Sync(to), Reply::Sync(result)) => drop(to.send(result)),
            (Waiter::Commit(to), Reply::Commit(result)) => drop(to.send(result)),
            (Waiter::DeleteGroup(to), Reply::DeleteGroup(result)) => drop(to.send(result)),
            (Waiter::DeleteOffsets(to), Reply::DeleteOffsets(result)) => drop(to.send(result)),
            (waiter, reply) => error!(?waiter, ?reply, "answer to another kind of request"),
        }
    }
}

impl Owner {
    /// Serves one request, or says why not.
    pub(super) fn serve(&mut self, request: Request) {
        let now = self.clock.now();
        match request {
            Request::Join(request, reply) => {
                let unique = uuid::Uuid::new_v4().to_string();
                self.defer(
                    &request.group_id,
                    reply,
                    Waiter::Join,
                    |coordinator, _, token| {
                        coordinator.join(now, &request, &unique, token);
                    },
                );
            }
            Request::Sync(request, reply) => {
                self.defer(
                    &request.group_id,
                    reply,
                    Waiter::Sync,
                    |coordinator, _, token| {
                        coordinator.sync(now, &request, token);
                    },
                );
            }
            Request::Commit(request, reply) => {
                self.defer(
                    &request.group_id,
                    reply,
                    Waiter::Commit,
                    |coordinator, topics, token| {
                        coordinator.commit_offsets(now, &request, topics, token);
                    },
                );
            }
            Request::DeleteGroup(group_id, reply) => {
                self.defer(
                    &group_id,
                    reply,
                    Waiter::DeleteGroup,
                    |coordinator, _, token| {
                        coordinator.delete_group(now, &group_id, token);
                    },
                );
            }
            Request::DeleteOffsets(group_id, wanted, reply) => {
                let defer = |coordinator: &mut Coordinator, topics: &ImageTopics<'_>, token| {
                    coordinator.delete_offsets(&group_id, &wanted, topics, token);
                };
                self.defer(&group_id, reply, Waiter::DeleteOffsets, defer);
            }
            Request::Heartbeat(request, reply) => {
                let result = match self.coordinator(&request.group_id) {
                    Ok((index, coordinator)) => match coordinator.heartbeat(now, &request) {
                        // A member that is told to go on keeps what it owns (G-3).
                        Ok(()) => return self.hold(index, reply, ()),
                        Err(error) => Err(error),
                    },
                    // Clients take this code from a heartbeat for a fatal error; a member that
                    // is not known after all hears so with its next one.
                    Err(GroupError::CoordinatorLoadInProgress) => Ok(()),
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Leave(request, reply) => {
                let result = match self.coordinator(&request.group_id) {
                    Ok((index, coordinator)) => {
                        let result = coordinator.leave(now, &request);
                        self.touched.insert(index);
                        result
                    }
                    Err(error) => Err(error),
                };
                drop(reply.send(result));
            }
            Request::Fetch(request, reply) => {
                let image = self.image.clone();
                match self.coordinator(&request.group_id) {
                    Ok((index, coordinator)) => {
                        let fetched = coordinator.fetch_offsets(&request, &ImageTopics(&image));
                        self.hold(index, reply, fetched);
                    }
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Request::Describe(group_id, reply) => {
                let result = self
                    .coordinator(&group_id)
                    .and_then(|(_, coordinator)| coordinator.describe(&group_id));
                drop(reply.send(result));
            }
            Request::List(reply) => drop(reply.send(self.list())),
        }
    }

    fn list(&self) -> Result<Vec<ottla_coordinator::GroupListing>, GroupError> {
        let loading = self
            .partitions
            .values()
            .any(|hosted| matches!(hosted.role, Role::Loading(_)));
        if loading {
            return Err(GroupError::CoordinatorLoadInProgress);
        }
        let active = self
            .partitions
            .values()
            .filter(|hosted| matches!(hosted.role, Role::Active(_)));
        Ok(active
            .flat_map(|hosted| hosted.coordinator.list())
            .collect())
    }

    /// Asks the group's coordinator something whose answer has to wait.
    fn defer<T>(
        &mut self,
        group_id: &str,
        reply: ReplyTo<T>,
        waiter: impl FnOnce(ReplyTo<T>) -> Waiter,
        ask: impl FnOnce(&mut Coordinator, &ImageTopics<'_>, ReplyToken),
    ) {
        let token = ReplyToken(self.next_token);
        let image = self.image.clone();
        match self.coordinator(group_id) {
            Err(error) => drop(reply.send(Err(error))),
            Ok((index, coordinator)) => {
                ask(coordinator, &ImageTopics(&image), token);
                self.next_token += 1;
                self.waiters.insert(token, (self.turn, waiter(reply)));
                self.touched.insert(index);
            }
        }
    }

    /// The coordinator of a group, if this broker is it and may answer.
    fn coordinator(
        &mut self,
        group_id: &str,
    ) -> Result<(PartitionIndex, &mut Coordinator), GroupError> {
        let (id, record) = partition_of(&self.image, group_id).ok_or(GroupError::NotCoordinator)?;
        let leads = record.leader == Some(self.broker_id);
        match self.partitions.get_mut(&id.partition) {
            Some(hosted) if hosted.id == id && matches!(hosted.role, Role::Active(_)) => {
                Ok((id.partition, &mut hosted.coordinator))
            }
            _ if leads => Err(GroupError::CoordinatorLoadInProgress),
            _ => Err(GroupError::NotCoordinator),
        }
    }

    /// Answers those whom a partition that is given up leaves behind.
    pub(super) fn deliver_replies(&mut self, hosted: &mut Hosted) {
        for effect in hosted.coordinator.take_effects() {
            if let ottla_coordinator::Effect::Reply(token, reply) = effect {
                self.deliver(token, reply);
            }
        }
    }

    fn deliver(&mut self, token: ReplyToken, reply: Reply) {
        if let Some((_, waiter)) = self.waiters.remove(&token) {
            waiter.answer(reply);
        }
    }

    /// As `deliver`, but what grants something is held if it was answered at once, without a record
    /// whose commit proves the leadership.
    pub(super) fn deliver_confirmed(
        &mut self,
        index: PartitionIndex,
        token: ReplyToken,
        reply: Reply,
    ) {
        let Some((turn, waiter)) = self.waiters.remove(&token) else {
            return;
        };
        let grants = matches!(reply, Reply::Join(Ok(_)) | Reply::Sync(Ok(_)));
        match self.partitions.get_mut(&index) {
            Some(hosted) if grants && turn == self.turn => {
                hosted.unconfirmed.hold(Box::new(move |led| match led {
                    Ok(()) => waiter.answer(reply),
                    Err(_) => waiter.refuse(),
                }));
            }
            Some(_) | None => waiter.answer(reply),
        }
    }

    /// Answers once this broker is known to coordinate still.
    fn hold<T: Send + 'static>(&mut self, index: PartitionIndex, reply: ReplyTo<T>, answer: T) {
        if let Some(hosted) = self.partitions.get_mut(&index) {
            let answer = Box::new(move |led: Result<(), GroupError>| {
                drop(reply.send(led.map(|()| answer)));
            });
            hosted.unconfirmed.hold(answer);
            self.touched.insert(index);
        }
    }
}
